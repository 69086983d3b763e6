package shim

import (
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// reaper collects the orphans that the shim, as a subreaper, inherits: of
// containers in the host's PID namespace, and of OCI runtime programs. The
// children that somebody waits for are left to them.
type reaper struct {
	mu      sync.RWMutex // read-held while a launch forks children of its own
	ownedMu sync.Mutex
	owned   map[int]bool
}

func newReaper() *reaper { return &reaper{owned: make(map[int]bool)} }

// launching runs f, which makes a child that somebody will wait for, and
// children that it waits for itself.
func (r *reaper) launching(f func() (pid int, err error)) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	pid, err := f()
	if err != nil {
		return err
	}
	r.ownedMu.Lock()
	r.owned[pid] = true
	r.ownedMu.Unlock()
	return nil
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
		return // a launch is under way, and its end is followed by a SIGCHLD
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
	defer r.mu.RUnlock()
	return f()
}

// watch collects orphans until stop is closed.
func (r *reaper) watch(stop <-chan struct{}) {
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
