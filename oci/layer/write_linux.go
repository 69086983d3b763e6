package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const whiteoutPrefix = ".wh."

// WriteTar writes the changes as a layer: whiteouts for what was deleted,
// owners by number, extended attributes except those of overlayfs and the
// security labels of this machine; sockets are left out. Times are whole seconds, as
// other engines write them. A file that shrinks while it is read makes it fail.
func WriteTar(ctx context.Context, w io.Writer, d Diff) error {
	tw := &tarWriter{tw: tar.NewWriter(w), source: d.Source, links: map[inode]string{}}
	for _, c := range d.Changes {
		if err := ctx.Err(); err != nil {
			return err
		}
		var err error
		if c.Kind == Deleted {
			err = tw.whiteout(c.Path)
		} else {
			err = tw.entry(c)
		}
		if err != nil {
			return fmt.Errorf("write layer: %s: %w", c.Path, err)
		}
	}
	return tw.tw.Close()
}

type inode struct{ dev, ino uint64 }

type tarWriter struct {
	tw     *tar.Writer
	source string
	links  map[inode]string // first name of a file with several
}

func (t *tarWriter) whiteout(p string) error {
	dir, base := path.Split(strings.TrimPrefix(p, "/"))
	return t.tw.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: dir + whiteoutPrefix + base, ModTime: time.Unix(0, 0).UTC(), Format: tar.FormatPAX,
	})
}

func (t *tarWriter) entry(c Change) error {
	full := filepath.Join(t.source, c.Path)
	st, ok := c.Info.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.New("no file status")
	}
	h := &tar.Header{
		Name: strings.TrimPrefix(c.Path, "/"), Format: tar.FormatPAX,
		Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid),
		ModTime: c.Info.ModTime().Truncate(time.Second),
	}
	mode := c.Info.Mode()
	switch {
	case mode.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
	case mode.IsRegular():
		h.Typeflag, h.Size = tar.TypeReg, c.Info.Size()
	case mode&fs.ModeSymlink != 0:
		target, err := os.Readlink(full)
		if err != nil {
			return err
		}
		h.Typeflag, h.Linkname = tar.TypeSymlink, target
	case mode&fs.ModeNamedPipe != 0:
		h.Typeflag = tar.TypeFifo
	case mode&fs.ModeDevice != 0:
		h.Typeflag = tar.TypeBlock
		if mode&fs.ModeCharDevice != 0 {
			h.Typeflag = tar.TypeChar
		}
		h.Devmajor, h.Devminor = int64(unix.Major(uint64(st.Rdev))), int64(unix.Minor(uint64(st.Rdev)))
	default:
		return nil // a socket
	}
	if st.Nlink > 1 && !mode.IsDir() {
		id := inode{uint64(st.Dev), st.Ino}
		if first, ok := t.links[id]; ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
			return t.tw.WriteHeader(h)
		}
		t.links[id] = h.Name
	}
	if err := addXattrs(h, full); err != nil {
		return err
	}
	if err := t.tw.WriteHeader(h); err != nil {
		return err
	}
	if h.Typeflag != tar.TypeReg || h.Size == 0 {
		return nil
	}
	return t.content(full, h.Size)
}

// content copies size bytes; a file that grows meanwhile is cut there.
func (t *tarWriter) content(full string, size int64) error {
	f, err := os.OpenFile(full, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyN(t.tw, f, size)
	if errors.Is(err, io.EOF) {
		return errors.New("the file was truncated while it was read; stop or pause the container")
	}
	return err
}

// addXattrs records extended attributes that mean something elsewhere.
func addXattrs(h *tar.Header, full string) error {
	size, err := unix.Llistxattr(full, nil)
	if errors.Is(err, unix.ENOTSUP) || size == 0 {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "listxattr", Path: full, Err: err}
	}
	buf := make([]byte, size)
	if size, err = unix.Llistxattr(full, buf); err != nil {
		return &os.PathError{Op: "listxattr", Path: full, Err: err}
	}
	for _, name := range strings.Split(strings.TrimRight(string(buf[:size]), "\x00"), "\x00") {
		if !portableXattr(name) {
			continue
		}
		value, err := getXattr(full, name)
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return err
		}
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords["SCHILY.xattr."+name] = string(value)
	}
	return nil
}

// portableXattr leaves out what belongs to this machine: overlayfs's own
// records, security labels, and trusted attributes, which no image may set.
func portableXattr(name string) bool {
	switch {
	case name == "security.capability":
		return true
	case strings.HasPrefix(name, "user.overlay."):
		return false
	}
	return strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "system.posix_acl_")
}

func getXattr(full, name string) ([]byte, error) {
	size, err := unix.Lgetxattr(full, name, nil)
	if err != nil {
		return nil, &os.PathError{Op: "getxattr " + name, Path: full, Err: err}
	}
	buf := make([]byte, size)
	if size > 0 {
		if size, err = unix.Lgetxattr(full, name, buf); err != nil {
			return nil, &os.PathError{Op: "getxattr " + name, Path: full, Err: err}
		}
	}
	return buf[:size], nil
}
