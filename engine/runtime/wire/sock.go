package wire

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// through calls f with a path to the socket in dir that is short however long
// dir is: sun_path holds 107 bytes.
func through(dir string, f func(path string) error) error {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	return f(filepath.Join("/proc/self/fd", strconv.Itoa(fd), SocketFile))
}

// Listen makes the socket in a run folder, replacing one that is there.
func Listen(dir string) (*net.UnixListener, error) {
	var l *net.UnixListener
	err := through(dir, func(path string) error {
		if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
			return err
		}
		var err error
		l, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			return err
		}
		// The name given is valid only inside this call.
		l.SetUnlinkOnClose(false)
		return os.Chmod(path, 0o600)
	})
	if err != nil {
		if l != nil {
			l.Close()
		}
		return nil, fmt.Errorf("listen in %s: %w", dir, err)
	}
	return l, nil
}

// Dial connects to the socket in a run folder.
func Dial(dir string) (*net.UnixConn, error) {
	var conn *net.UnixConn
	err := through(dir, func(path string) error {
		var err error
		conn, err = net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
		return err
	})
	return conn, err
}

// PeerAllowed says whether the process at the other end is root or runs as
// the same user as this one.
func PeerAllowed(conn *net.UnixConn) (bool, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false, err
	}
	var cred *syscall.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err != nil {
		return false, err
	}
	if credErr != nil {
		return false, credErr
	}
	return cred.Uid == 0 || int(cred.Uid) == os.Geteuid(), nil
}
