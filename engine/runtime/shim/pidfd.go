package shim

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// child is a direct child of the shim, held by a pidfd: signals cannot hit a
// stranger that got its number, and waiting costs no thread.
type child struct {
	pid int
	fd  *os.File
}

// newChild holds pid, which must be an unreaped child.
func newChild(pid int) (*child, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("pidfd of %d: %w", pid, err)
	}
	return &child{pid: pid, fd: os.NewFile(uintptr(fd), "pidfd")}, nil
}

// signal sends sig; after the end it says ESRCH.
func (c *child) signal(sig syscall.Signal) error {
	raw, err := c.fd.SyscallConn()
	if err != nil {
		return unix.ESRCH
	}
	var sigErr error
	if err := raw.Control(func(fd uintptr) { sigErr = unix.PidfdSendSignal(int(fd), sig, nil, 0) }); err != nil {
		return unix.ESRCH // closed: it was reaped
	}
	return sigErr
}

// wait reaps the child and gives its exit code as a shell does.
func (c *child) wait() (int, error) {
	defer c.fd.Close()
	raw, err := c.fd.SyscallConn()
	if err != nil {
		return 0, err
	}
	var status unix.WaitStatus
	var waitErr error
	// A pidfd is readable once the process has ended.
	err = raw.Read(func(uintptr) bool {
		for {
			pid, err := unix.Wait4(c.pid, &status, unix.WNOHANG, nil)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			waitErr = err
			return err != nil || pid == c.pid
		}
	})
	if err = errors.Join(err, waitErr); err != nil {
		return 0, fmt.Errorf("wait for %d: %w", c.pid, err)
	}
	return exitCode(status), nil
}

func exitCode(s unix.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}
