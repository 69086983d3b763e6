package runtime

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// pidfd holds a process, so that its number cannot be given to another, and
// tells when it has ended without a thread that waits.
type pidfd struct{ f *os.File }

// newPidfd takes fd over.
func newPidfd(fd int) (pidfd, error) {
	unix.CloseOnExec(fd)
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return pidfd{}, os.NewSyscallError("fcntl", err)
	}
	return pidfd{os.NewFile(uintptr(fd), "pidfd")}, nil
}

func openPidfd(pid int) (pidfd, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return pidfd{}, os.NewSyscallError("pidfd_open", err)
	}
	return newPidfd(fd)
}

// ended waits until the process has ended, whoever reaps it.
func (p pidfd) ended(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		// Fails only when the file is closed, which ends the wait too.
		_ = p.f.SetReadDeadline(time.Unix(1, 0))
	})
	defer stop()
	raw, err := p.f.SyscallConn()
	if err != nil {
		return err
	}
	err = raw.Read(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		return err == nil && n > 0
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ctx.Err()
	}
	return err
}

// reap collects an ended child.
func (p pidfd) reap() error {
	raw, err := p.f.SyscallConn()
	if err != nil {
		return err
	}
	var waitErr error
	err = raw.Control(func(fd uintptr) {
		for {
			waitErr = unix.Waitid(unix.P_PIDFD, int(fd), nil, unix.WEXITED|unix.WNOHANG, nil)
			if !errors.Is(waitErr, unix.EINTR) {
				return
			}
		}
	})
	return errors.Join(err, waitErr)
}

func (p pidfd) kill() error {
	raw, err := p.f.SyscallConn()
	if err != nil {
		return err
	}
	var killErr error
	err = raw.Control(func(fd uintptr) { killErr = unix.PidfdSendSignal(int(fd), unix.SIGKILL, nil, 0) })
	return errors.Join(err, killErr)
}

func (p pidfd) close() { p.f.Close() }
