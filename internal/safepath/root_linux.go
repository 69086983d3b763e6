package safepath

import (
	"errors"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Root is a folder to resolve in. It is safe for concurrent use; Close it only
// when nothing uses it any more.
type Root struct {
	dir *os.File // O_PATH
}

// OpenRoot opens dir as a root.
func OpenRoot(dir string) (*Root, error) {
	fd, err := retry(func() (int, error) {
		return unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return &Root{os.NewFile(uintptr(fd), dir)}, nil
}

// Name is the path that OpenRoot was given.
func (r *Root) Name() string { return r.dir.Name() }

// Close releases the root; files opened through it stay open.
func (r *Root) Close() error { return r.dir.Close() }

// FDPath is a path by which this process reaches exactly what f has open, for
// system calls that take no descriptor. It is valid until f is closed. For an
// O_PATH file of a symbolic link it leads to the link, not to its target.
func FDPath(f *os.File) string { return procFD(int(f.Fd())) }

// OpenPath returns a handle (O_PATH) of name, following a final symbolic link;
// see FDPath.
func (r *Root) OpenPath(name string) (*os.File, error) {
	return r.open("open", name, unix.O_PATH, 0)
}

// OpenPathNoFollow is OpenPath of name itself.
func (r *Root) OpenPathNoFollow(name string) (*os.File, error) {
	return r.open("open", name, unix.O_PATH|unix.O_NOFOLLOW, 0)
}

// OpenRoot opens the folder name as a root of its own.
func (r *Root) OpenRoot(name string) (*Root, error) {
	f, err := r.open("open", name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	return &Root{f}, nil
}

// Parent resolves the folder that name is in and returns it with name's last
// element, which may not exist. A name that ends in ".." or means the root
// itself has no last element: EINVAL.
func (r *Root) Parent(name string) (*os.File, string, error) {
	trimmed := strings.TrimRight(name, "/")
	dir, base := path.Split(trimmed)
	if base == "" || base == "." || base == ".." {
		return nil, "", &os.PathError{Op: "open", Path: name, Err: unix.EINVAL}
	}
	f, err := r.open("open", dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	return f, base, err
}

// Open opens name for reading.
func (r *Root) Open(name string) (*os.File, error) {
	return r.open("open", name, unix.O_RDONLY, 0)
}

// Create makes or truncates a file.
func (r *Root) Create(name string, perm os.FileMode) (*os.File, error) {
	return r.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, perm)
}

// OpenFile is os.OpenFile inside the root.
func (r *Root) OpenFile(name string, flag int, perm os.FileMode) (*os.File, error) {
	return r.open("open", name, flag, perm)
}

// ReadFile returns the content of name.
func (r *Root) ReadFile(name string) ([]byte, error) {
	f, err := r.Open(name)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(f)
	return data, errors.Join(err, f.Close())
}

// ReadDir lists the folder name, sorted.
func (r *Root) ReadDir(name string) ([]os.DirEntry, error) {
	f, err := r.open("open", name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	list, err := f.ReadDir(-1)
	slices.SortFunc(list, func(a, b os.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return list, errors.Join(err, f.Close())
}

// Stat follows a final symbolic link, Lstat does not.
func (r *Root) Stat(name string) (os.FileInfo, error) { return r.stat("stat", name, 0) }

// Lstat describes name itself.
func (r *Root) Lstat(name string) (os.FileInfo, error) {
	return r.stat("lstat", name, unix.O_NOFOLLOW)
}

func (r *Root) stat(op, name string, flag int) (os.FileInfo, error) {
	f, err := r.open(op, name, unix.O_PATH|flag, 0)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	return fi, errors.Join(err, f.Close())
}

// Readlink returns the text of a symbolic link, which is not to be trusted.
func (r *Root) Readlink(name string) (string, error) {
	f, err := r.open("readlink", name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return "", err
	}
	defer f.Close() // a handle: closing it cannot fail
	for size := 256; ; size *= 2 {
		buf := make([]byte, size)
		n, err := unix.Readlinkat(int(f.Fd()), "", buf)
		if errors.Is(err, unix.ENOENT) {
			err = unix.EINVAL // what the kernel says of a handle that is no link
		}
		if err != nil {
			return "", &os.PathError{Op: "readlink", Path: name, Err: err}
		}
		if n < size {
			return string(buf[:n]), nil
		}
	}
}

// RealPath returns where in the root name leads to: absolute, clean, free of
// symbolic links, "/" for the root itself. It is a statement about one moment;
// do not use it to reach the thing again when others may change the folder.
func (r *Root) RealPath(name string) (string, error) {
	f, err := r.OpenPath(name)
	if err != nil {
		return "", err
	}
	defer f.Close() // a handle: closing it cannot fail
	root, err := os.Readlink(FDPath(r.dir))
	if err != nil {
		return "", err
	}
	p, err := os.Readlink(FDPath(f))
	if err != nil {
		return "", err
	}
	if p == root {
		return "/", nil
	}
	rest, ok := strings.CutPrefix(p, strings.TrimSuffix(root, "/")+"/")
	if !ok {
		return "", &os.PathError{Op: "realpath", Path: name, Err: unix.EXDEV}
	}
	return "/" + rest, nil
}

func (r *Root) open(op, name string, flag int, perm os.FileMode) (*os.File, error) {
	if name == "" {
		name = "."
	}
	how := unix.OpenHow{
		Flags:   uint64(flag) | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	if flag&unix.O_PATH == 0 {
		how.Flags |= unix.O_NOCTTY | unix.O_LARGEFILE
	}
	if flag&(unix.O_CREAT|unix.O_TMPFILE&^unix.O_DIRECTORY) != 0 {
		how.Mode = uint64(sysMode(perm))
	}
	fd, err := retry(func() (int, error) { return unix.Openat2(int(r.dir.Fd()), name, &how) })
	if err != nil {
		return nil, &os.PathError{Op: op, Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// retry repeats what a signal interrupted, and what the kernel gave up because
// of a rename at the same time (EAGAIN: it could not prove that ".." stayed
// inside). The bound keeps a hostile renamer from holding the caller for ever.
func retry(f func() (int, error)) (int, error) {
	const bound = 4096
	for i := 0; ; i++ {
		fd, err := f()
		if (errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN)) && i < bound {
			continue
		}
		return fd, err
	}
}

// sysMode translates to the kernel's bits, as package os does.
func sysMode(m os.FileMode) uint32 {
	o := uint32(m.Perm())
	if m&os.ModeSetuid != 0 {
		o |= unix.S_ISUID
	}
	if m&os.ModeSetgid != 0 {
		o |= unix.S_ISGID
	}
	if m&os.ModeSticky != 0 {
		o |= unix.S_ISVTX
	}
	return o
}

func procFD(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }
