package shim

import (
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// reaper collects the orphans that the shim, as a subreaper, inherits: of
// containers in the host's PID namespace, and of OCI runtime programs. The
// children that somebody waits for are left to them.
type reaper struct {
	mu      sync.RWMutex // read-held while a launch forks children of its own
	ownedMu sync.Mutex
	owned   map[int]bool
	// watching says that orphans may come, see watch.
	watching atomic.Bool
}

func newReaper() *reaper { return &reaper{owned: make(map[int]bool)} }

// launching runs f, which makes a child that somebody will wait for, and
// children that it waits for itself.
func (r *reaper) launching(f func() (pid int, err error)) error {
	r.mu.RLock()
	defer r.launched()
	pid, err := f()
	if err != nil {
		return err
	}
	r.ownedMu.Lock()
	r.owned[pid] = true
	r.ownedMu.Unlock()
	return nil
}

// launched ends a launch. Orphans that came during it were passed over, and
// their signals are gone: it looks for them now. One left behind would keep the
// init of its PID namespace from ending.
func (r *reaper) launched() {
	r.mu.RUnlock()
	if r.watching.Load() {
		r.collect()
	}
}

// forget says that pid was reaped.
func (r *reaper) forget(pid int) {
	r.ownedMu.Lock()
	delete(r.owned, pid)
	r.ownedMu.Unlock()
}

// collect reaps the orphans that have ended.
func (r *reaper) collect() {
	if !r.mu.TryLock() {
		return // a launch is under way; its end collects
	}
	defer r.mu.Unlock()
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		return
	}
	for _, list := range lists {
		data, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has ended
		}
		for _, f := range strings.Fields(string(data)) {
			pid, err := strconv.Atoi(f)
			if err != nil || r.isOwned(pid) {
				continue
			}
			var status unix.WaitStatus
			// Still running, or none of ours after all: nothing to do.
			_, _ = unix.Wait4(pid, &status, unix.WNOHANG, nil)
		}
	}
}

func (r *reaper) isOwned(pid int) bool {
	r.ownedMu.Lock()
	defer r.ownedMu.Unlock()
	return r.owned[pid]
}

// guarded runs f, which waits for children of its own.
func (r *reaper) guarded(f func() error) error {
	r.mu.RLock()
	defer r.launched()
	return f()
}

// watch collects orphans until stop is closed.
func (r *reaper) watch(stop <-chan struct{}) {
	r.watching.Store(true)
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, unix.SIGCHLD)
	defer signal.Stop(ch)
	for {
		select {
		case <-ch:
			r.collect()
		case <-stop:
			return
		}
	}
}
