package dockerapi

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

const (
	socketMode = 0o660
	folderMode = 0o711
)

// unixSocket is a listening socket whose file goes when it is closed, unless
// another process has put its own in the place.
type unixSocket struct {
	*net.UnixListener
	path string
	file os.FileInfo
	once sync.Once
}

// listenUnix makes the socket at path, with its mode and group before anybody
// can see it, in the place of one that nobody serves.
func listenUnix(path, group string) (net.Listener, error) {
	gid := -1
	if group != "" {
		var err error
		if gid, err = groupID(group); err != nil {
			return nil, err
		}
	}
	dir, name := filepath.Split(path)
	if err := os.MkdirAll(dir, folderMode); err != nil {
		return nil, err
	}
	// A socket's address is at most 107 bytes; through the folder's descriptor
	// every path is short enough.
	folder, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	short := fmt.Sprintf("/proc/self/fd/%d/", folder.Fd())
	if c, err := net.Dial("unix", short+name); err == nil {
		return nil, errors.Join(errdefs.Conflictf("another program serves it"), c.Close())
	}
	fresh := name + ".new" // made aside and renamed, so that the right mode is there from the start
	if err := os.Remove(filepath.Join(dir, fresh)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: short + fresh})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // by a descriptor that is closed by then
	s := &unixSocket{UnixListener: l, path: path}
	if s.file, err = place(filepath.Join(dir, fresh), path, gid); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return s, nil
}

// place gives a new socket its owner and mode and moves it to its path.
func place(from, to string, gid int) (os.FileInfo, error) {
	var err error
	if gid >= 0 {
		err = os.Chown(from, -1, gid)
	}
	if err == nil {
		err = os.Chmod(from, socketMode)
	}
	if err == nil {
		err = os.Rename(from, to)
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(from))
	}
	return os.Lstat(to)
}

func groupID(name string) (int, error) {
	if gid, err := strconv.Atoi(name); err == nil {
		return gid, nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, fmt.Errorf("group of the socket: %w", err)
	}
	return strconv.Atoi(g.Gid)
}

// Addr implements net.Listener with the path that clients use.
func (s *unixSocket) Addr() net.Addr { return &net.UnixAddr{Net: "unix", Name: s.path} }

// Close implements net.Listener.
func (s *unixSocket) Close() error {
	err := s.UnixListener.Close()
	s.once.Do(func() {
		if now, statErr := os.Lstat(s.path); statErr == nil && os.SameFile(now, s.file) {
			err = errors.Join(err, os.Remove(s.path))
		}
	})
	return err
}
