package dockerapi

import (
	"crypto/tls"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// hangupWatch tells a client that closed its connection from one that only
// ended its input: both read as EOF. The kernel reports the former as EPOLLHUP
// on an epoll instance, which the Go runtime waits for without a thread.
type hangupWatch struct {
	poll   *os.File // nil if conn cannot be watched
	closed chan struct{}
	once   sync.Once
}

func watchHangup(conn net.Conn) *hangupWatch {
	w := &hangupWatch{closed: make(chan struct{})}
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return w
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return w
	}
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return w
	}
	// No events are asked for: EPOLLHUP and EPOLLERR always come.
	var addErr error
	err = raw.Control(func(target uintptr) {
		addErr = unix.EpollCtl(fd, unix.EPOLL_CTL_ADD, int(target), &unix.EpollEvent{Fd: int32(target)})
	})
	if err != nil || addErr != nil || unix.SetNonblock(fd, true) != nil {
		_ = unix.Close(fd) // unused
		return w
	}
	w.poll = os.NewFile(uintptr(fd), "hangup")
	return w
}

// wait returns true when the client has hung up, false after close.
func (w *hangupWatch) wait() bool {
	if w.poll == nil {
		<-w.closed
		return false
	}
	raw, err := w.poll.SyscallConn()
	if err != nil {
		return false
	}
	hungUp := false
	err = raw.Read(func(fd uintptr) bool {
		events := make([]unix.EpollEvent, 1)
		n, err := unix.EpollWait(int(fd), events, 0)
		hungUp = n > 0
		return n > 0 || err != nil && err != unix.EINTR
	})
	return err == nil && hungUp
}

// close ends wait; it may be called more than once.
func (w *hangupWatch) close() {
	w.once.Do(func() {
		close(w.closed)
		if w.poll != nil {
			_ = w.poll.Close() // only unblocks wait
		}
	})
}
