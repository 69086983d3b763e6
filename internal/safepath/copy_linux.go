package safepath

import (
	"context"
	"errors"
	"io"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// CopyTree copies the content of the folder src of from into the folder dst of
// to, which is made if it does not exist and gets src's owner, mode, times and
// extended attributes. Kept are owners, modes, times, extended attributes, hard
// links within the tree, holes and devices; data is shared where the file system
// can (FICLONE). Sockets, and what disappears meanwhile, are left out. Links are
// copied, never followed, also when others change either tree at the same time.
// A name that exists in dst already is an error, but for folders.
func CopyTree(ctx context.Context, from *Root, src string, to *Root, dst string) error {
	in, err := from.open("open", src, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer in.Close() // only read
	handle, err := to.MkdirAllPath(dst, 0o755)
	if err != nil {
		return err
	}
	out, err := openat(handle, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err = errors.Join(err, handle.Close()); err != nil {
		return err
	}
	defer out.Close() // nothing is written through it
	c := &copier{ctx: ctx, to: to, links: make(map[fileID]string)}
	return c.folder(in, out, dst)
}

type fileID struct{ dev, ino uint64 }

type copier struct {
	ctx   context.Context // of the one call that it serves
	to    *Root
	links map[fileID]string // the first copy of a file with several names
}

func openat(dir *os.File, name string, flag int) (*os.File, error) {
	fd, err := retry(func() (int, error) {
		return unix.Openat(int(dir.Fd()), name, flag|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NOCTTY, 0o600)
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path.Join(dir.Name(), name), Err: err}
	}
	return os.NewFile(uintptr(fd), path.Join(dir.Name(), name)), nil
}

// folder copies what is in the folder in to out, and then in's own properties;
// rel is out's path in the target root.
func (c *copier) folder(in, out *os.File, rel string) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(in.Fd()), &st); err != nil {
		return err
	}
	for {
		entries, err := in.ReadDir(256)
		for _, e := range entries {
			if err := c.entry(in, out, e.Name(), path.Join(rel, e.Name())); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return properties(in, out, &st)
		}
		if err != nil {
			return err
		}
	}
}

func (c *copier) entry(in, out *os.File, name, rel string) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	var st unix.Stat_t
	err := unix.Fstatat(int(in.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		err = &vanished{&os.PathError{Op: "stat", Path: rel, Err: err}}
	} else {
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			err = c.subfolder(in, out, name, rel)
		case unix.S_IFREG:
			err = c.file(in, out, name, rel)
		case unix.S_IFLNK:
			err = link(in, out, name, &st)
		case unix.S_IFSOCK:
			return nil // belongs to a process, not to the data
		default:
			err = special(out, name, &st)
		}
	}
	var gone *vanished
	if errors.Is(err, unix.ENOENT) && errors.As(err, &gone) {
		return nil
	}
	return err
}

// vanished marks an error about the source, which others may change.
type vanished struct{ error }

func (v *vanished) Unwrap() error { return v.error }

func source(f *os.File, err error) (*os.File, error) {
	if err != nil {
		return nil, &vanished{err}
	}
	return f, nil
}

func (c *copier) subfolder(in, out *os.File, name, rel string) (err error) {
	sub, err := source(openat(in, name, unix.O_RDONLY|unix.O_DIRECTORY))
	if err != nil {
		return err
	}
	defer sub.Close() // only read
	if err := unix.Mkdirat(int(out.Fd()), name, 0o700); err != nil && err != unix.EEXIST {
		return &os.PathError{Op: "mkdir", Path: rel, Err: err}
	}
	target, err := openat(out, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer target.Close() // nothing is written through it
	return c.folder(sub, target, rel)
}

func (c *copier) file(in, out *os.File, name, rel string) error {
	// O_NONBLOCK: it may have become a FIFO since it was looked at.
	f, err := source(openat(in, name, unix.O_RDONLY|unix.O_NONBLOCK))
	if err != nil {
		return err
	}
	defer f.Close() // only read
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil // replaced meanwhile: as if it had vanished
	}
	id := fileID{uint64(st.Dev), st.Ino}
	if first, ok := c.links[id]; ok && st.Nlink > 1 {
		return c.to.Link(first, rel)
	}
	g, err := openat(out, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return err
	}
	err = content(f, g, st.Size)
	if err == nil {
		err = properties(f, g, &st)
	}
	if err == nil && st.Nlink > 1 {
		c.links[id] = rel
	}
	return errors.Join(err, g.Close())
}

// content clones, or copies the parts that are no holes.
func content(f, g *os.File, size int64) error {
	if size == 0 || unix.IoctlFileClone(int(g.Fd()), int(f.Fd())) == nil {
		return nil
	}
	for at := int64(0); at < size; {
		begin, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if err == unix.ENXIO {
			break // only a hole until the end
		}
		end := size
		if err == nil {
			end, err = unix.Seek(int(f.Fd()), begin, unix.SEEK_HOLE)
		}
		if err != nil {
			begin, end = at, size // a file system that cannot tell
		}
		end = min(end, size)
		if begin >= end {
			break
		}
		if _, err := f.Seek(begin, io.SeekStart); err != nil {
			return err
		}
		if _, err := g.Seek(begin, io.SeekStart); err != nil {
			return err
		}
		// io.Copy uses copy_file_range where that works.
		if _, err := io.Copy(g, io.LimitReader(f, end-begin)); err != nil {
			return err
		}
		at = end
	}
	return g.Truncate(size) // a hole at the end
}

func link(in, out *os.File, name string, st *unix.Stat_t) error {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(in.Fd()), name, buf)
	if err != nil {
		return &vanished{&os.PathError{Op: "readlink", Path: name, Err: err}}
	}
	if err := unix.Symlinkat(string(buf[:n]), int(out.Fd()), name); err != nil {
		return &os.PathError{Op: "symlink", Path: name, Err: err}
	}
	return owned(out, name, st)
}

func special(out *os.File, name string, st *unix.Stat_t) error {
	if err := unix.Mknodat(int(out.Fd()), name, st.Mode&unix.S_IFMT|0o600, int(st.Rdev)); err != nil {
		return &os.PathError{Op: "mknod", Path: name, Err: err}
	}
	if err := owned(out, name, st); err != nil {
		return err
	}
	h, err := openat(out, name, unix.O_PATH)
	if err != nil {
		return err
	}
	return errors.Join(unix.Chmod(FDPath(h), st.Mode&0o7777), h.Close())
}

// owned gives a thing that cannot be opened its owner and times.
func owned(out *os.File, name string, st *unix.Stat_t) error {
	if err := unix.Fchownat(int(out.Fd()), name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "chown", Path: name, Err: err}
	}
	return unix.UtimesNanoAt(int(out.Fd()), name, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

// properties copies owner, extended attributes, mode and times; the mode after
// the owner, because changing that clears set-user-ID.
func properties(f, g *os.File, st *unix.Stat_t) error {
	if err := unix.Fchown(int(g.Fd()), int(st.Uid), int(st.Gid)); err != nil {
		return &os.PathError{Op: "chown", Path: g.Name(), Err: err}
	}
	if err := attributes(f, g); err != nil {
		return &os.PathError{Op: "setxattr", Path: g.Name(), Err: err}
	}
	if err := unix.Fchmod(int(g.Fd()), st.Mode&0o7777); err != nil {
		return &os.PathError{Op: "chmod", Path: g.Name(), Err: err}
	}
	tv := []unix.Timespec{st.Atim, st.Mtim}
	return unix.UtimesNanoAt(unix.AT_FDCWD, FDPath(g), tv, 0)
}

func attributes(f, g *os.File) error {
	names, err := Xattrs(f)
	if err != nil {
		return err
	}
	for name, value := range names {
		err := unix.Fsetxattr(int(g.Fd()), name, value, 0)
		// The other file system may not have them; security attributes may be
		// the kernel's own business.
		if err != nil && err != unix.ENOTSUP && err != unix.EPERM {
			return err
		}
	}
	return nil
}

// Xattrs returns the extended attributes of an open file or folder; none where
// the file system has no such thing.
func Xattrs(f *os.File) (map[string][]byte, error) {
	list, err := sized(func(b []byte) (int, error) { return unix.Flistxattr(int(f.Fd()), b) })
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	all := make(map[string][]byte)
	for len(list) > 0 {
		n := 0
		for n < len(list) && list[n] != 0 {
			n++
		}
		name := string(list[:n])
		list = list[min(n+1, len(list)):]
		v, err := sized(func(b []byte) (int, error) { return unix.Fgetxattr(int(f.Fd()), name, b) })
		if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
			continue // removed meanwhile, or not readable on this file system
		}
		if err != nil {
			return nil, err
		}
		all[name] = v
	}
	return all, nil
}

// sized calls f with a buffer that is large enough, however it grows.
func sized(f func([]byte) (int, error)) ([]byte, error) {
	for {
		n, err := f(nil)
		if err != nil || n == 0 {
			return nil, err
		}
		b := make([]byte, n)
		if n, err = f(b); !errors.Is(err, unix.ERANGE) {
			return b[:max(n, 0)], err
		}
	}
}
