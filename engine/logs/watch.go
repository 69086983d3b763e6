package logs

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pollEvery is how often followers look when there is no notification.
const pollEvery = 200 * time.Millisecond

// watcher tells followers that a folder's files have changed. Its goroutine
// lives from the first subscription to close.
type watcher struct {
	log *slog.Logger

	mu     sync.Mutex
	ino    *os.File // nil before the first subscription and without inotify
	failed bool     // inotify cannot be had: everybody polls
	closed bool
	dirs   map[string]*watched
	byWD   map[int32]*watched
	done   sync.WaitGroup
}

// watched is a folder with subscribers.
type watched struct {
	dir  string
	wd   int32 // 0: not watched, its subscribers poll
	subs map[*subscription]struct{}
}

// subscription belongs to one follower. c yields after something may have
// changed.
type subscription struct {
	w    *watcher
	d    *watched
	c    chan struct{}
	poll *time.Ticker // nil when notified
}

func newWatcher(log *slog.Logger) *watcher {
	return &watcher{log: log, dirs: make(map[string]*watched), byWD: make(map[int32]*watched)}
}

const interesting = unix.IN_MODIFY | unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_ONLYDIR

func (w *watcher) subscribe(dir string) *subscription {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := w.dirs[dir]
	if d == nil {
		d = &watched{dir: dir, subs: make(map[*subscription]struct{})}
		w.dirs[dir] = d
	}
	s := &subscription{w: w, d: d, c: make(chan struct{}, 1)}
	d.subs[s] = struct{}{}
	return s
}

// add watches d if that is possible.
func (w *watcher) add(d *watched) {
	if w.ino == nil && !w.failed && !w.closed {
		fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
		if err != nil {
			w.failed = true
			w.log.Warn("no inotify: following logs by polling", "error", err,
				"hint", "raise the sysctl fs.inotify.max_user_instances")
			return
		}
		w.ino = os.NewFile(uintptr(fd), "inotify")
		ino := w.ino
		w.done.Go(func() { w.run(ino) })
	}
	if w.ino == nil {
		return
	}
	raw, err := w.ino.SyscallConn()
	if err != nil {
		return
	}
	var wd int
	cerr := raw.Control(func(fd uintptr) {
		// The folder may not exist before the container's first start.
		wd, err = unix.InotifyAddWatch(int(fd), d.dir, interesting)
	})
	if cerr != nil || err != nil {
		return
	}
	d.wd = int32(wd)
	w.byWD[d.wd] = d
}

func (w *watcher) run(ino *os.File) {
	buf := make([]byte, 16<<10)
	for {
		n, err := ino.Read(buf)
		if err != nil {
			if !errors.Is(err, os.ErrClosed) {
				w.log.Error("inotify failed: followers of logs may stop", "error", err)
			}
			return
		}
		w.dispatch(buf[:n])
	}
}

func (w *watcher) dispatch(b []byte) {
	const head = int(unsafe.Sizeof(unix.InotifyEvent{}))
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(b) >= head {
		wd := int32(binary.NativeEndian.Uint32(b))
		mask := binary.NativeEndian.Uint32(b[4:])
		length := int(binary.NativeEndian.Uint32(b[12:]))
		b = b[min(len(b), head+length):]
		if mask&unix.IN_Q_OVERFLOW != 0 {
			for _, d := range w.dirs {
				d.wake()
			}
			continue
		}
		if d := w.byWD[wd]; d != nil {
			if mask&unix.IN_IGNORED != 0 {
				delete(w.byWD, wd) // the folder is gone
				d.wd = 0
			}
			d.wake()
		}
	}
}

func (d *watched) wake() {
	for s := range d.subs {
		select {
		case s.c <- struct{}{}:
		default: // a wake-up is waiting already
		}
	}
}

// refresh is called before each look at the files: it watches the folder, if it
// is not watched yet or any more, so that nothing after that look is missed.
// While that is not possible, tick yields now and then.
func (s *subscription) refresh() {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	if s.d.wd == 0 {
		s.w.add(s.d)
	}
	if s.d.wd == 0 && s.poll == nil {
		s.poll = time.NewTicker(pollEvery)
	}
	if s.d.wd != 0 && s.poll != nil {
		s.poll.Stop()
		s.poll = nil
	}
}

// tick yields when the follower has to look by itself. Only the follower's own
// goroutine calls it and refresh.
func (s *subscription) tick() <-chan time.Time {
	if s.poll == nil {
		return nil
	}
	return s.poll.C
}

func (s *subscription) close() {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	if s.poll != nil {
		s.poll.Stop()
	}
	delete(s.d.subs, s)
	if len(s.d.subs) > 0 {
		return
	}
	delete(s.w.dirs, s.d.dir)
	if s.d.wd == 0 || s.w.ino == nil {
		return
	}
	delete(s.w.byWD, s.d.wd)
	raw, err := s.w.ino.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		// It may be gone together with its folder.
		_, _ = unix.InotifyRmWatch(int(fd), uint32(s.d.wd))
	})
}

func (w *watcher) close() error {
	w.mu.Lock()
	w.closed = true
	ino := w.ino
	w.ino = nil
	w.mu.Unlock()
	if ino == nil {
		return nil
	}
	err := ino.Close()
	w.done.Wait()
	return err
}
