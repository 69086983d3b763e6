package safepath

import (
	"errors"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Mkdir makes one folder.
func (r *Root) Mkdir(name string, perm os.FileMode) error {
	return r.at("mkdir", name, func(dir int, base string) error {
		return unix.Mkdirat(dir, base, sysMode(perm))
	})
}

// MkdirAll makes name and the folders above it that are missing. Links of the
// part that exists are followed inside the root; the missing part must not
// contain "..".
func (r *Root) MkdirAll(name string, perm os.FileMode) error {
	dir, err := r.MkdirAllPath(name, perm)
	if err != nil {
		return err
	}
	return dir.Close()
}

// MkdirAllPath is MkdirAll that returns the folder's handle (O_PATH).
func (r *Root) MkdirAllPath(name string, perm os.FileMode) (*os.File, error) {
	cur, missing, err := r.longestPrefix(name)
	if err != nil {
		return nil, err
	}
	for _, elem := range missing {
		next, err := enter(cur, elem, perm)
		if err != nil {
			return nil, errors.Join(&os.PathError{Op: "mkdir", Path: name, Err: err}, cur.Close())
		}
		if err := cur.Close(); err != nil {
			return nil, errors.Join(err, next.Close())
		}
		cur = next
	}
	return cur, nil
}

// longestPrefix opens as much of name as exists and returns the rest.
func (r *Root) longestPrefix(name string) (*os.File, []string, error) {
	elems := strings.FieldsFunc(name, func(c rune) bool { return c == '/' })
	for n := len(elems); ; n-- {
		f, err := r.open("mkdir", strings.Join(elems[:n], "/"), unix.O_PATH|unix.O_DIRECTORY, 0)
		if err == nil {
			for _, e := range elems[n:] {
				if e == ".." {
					return nil, nil, errors.Join(&os.PathError{Op: "mkdir", Path: name, Err: unix.ENOENT}, f.Close())
				}
			}
			return f, elems[n:], nil
		}
		if n == 0 || !errors.Is(err, unix.ENOENT) {
			return nil, nil, err
		}
	}
}

// enter makes elem in dir unless it exists, and opens it. A link in its place
// is refused: it leads to nothing, else longestPrefix had followed it.
func enter(dir *os.File, elem string, perm os.FileMode) (*os.File, error) {
	if elem == "." {
		elem = "./"
	} else if err := unix.Mkdirat(int(dir.Fd()), elem, sysMode(perm)); err != nil && err != unix.EEXIST {
		return nil, err
	}
	fd, err := retry(func() (int, error) {
		return unix.Openat(int(dir.Fd()), elem, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path.Join(dir.Name(), elem)), nil
}

// Mknod makes a device, FIFO or socket file; mode holds the kernel's type bits
// (unix.S_IFCHR and so on).
func (r *Root) Mknod(name string, mode uint32, dev uint64) error {
	return r.at("mknod", name, func(dir int, base string) error {
		return unix.Mknodat(dir, base, mode, int(dev))
	})
}

// Symlink makes name a symbolic link with the text target.
func (r *Root) Symlink(target, name string) error {
	return r.at("symlink", name, func(dir int, base string) error {
		return unix.Symlinkat(target, dir, base)
	})
}

// Link makes newname another name of oldname, which is not followed.
func (r *Root) Link(oldname, newname string) error {
	return r.at2("link", oldname, newname, func(od int, ob string, nd int, nb string) error {
		return unix.Linkat(od, ob, nd, nb, 0)
	})
}

// Rename renames within the root.
func (r *Root) Rename(oldname, newname string) error {
	return r.at2("rename", oldname, newname, unix.Renameat)
}

// Remove removes a file or an empty folder.
func (r *Root) Remove(name string) error {
	return r.at("remove", name, func(dir int, base string) error {
		err := unix.Unlinkat(dir, base, 0)
		if err == nil || err == unix.ENOENT {
			return err
		}
		if derr := unix.Unlinkat(dir, base, unix.AT_REMOVEDIR); derr != unix.ENOTDIR {
			return derr
		}
		return err
	})
}

// RemoveAll removes name and what is in it; an absent name is no error.
func (r *Root) RemoveAll(name string) error {
	dir, base, err := r.Parent(name)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	// os.RemoveAll opens the folder above and goes down by descriptor without
	// following links.
	return errors.Join(os.RemoveAll(FDPath(dir)+"/"+base), dir.Close())
}

// Chmod changes the mode of name, following links inside the root.
func (r *Root) Chmod(name string, mode os.FileMode) error {
	f, err := r.OpenPath(name)
	if err != nil {
		return err
	}
	// A handle cannot be changed itself; its /proc entry leads to exactly it.
	if err = unix.Chmod(FDPath(f), sysMode(mode)); err != nil {
		err = &os.PathError{Op: "chmod", Path: name, Err: err}
	}
	return errors.Join(err, f.Close())
}

// Lchown changes the owner of name itself.
func (r *Root) Lchown(name string, uid, gid int) error {
	f, err := r.OpenPathNoFollow(name)
	if err != nil {
		return err
	}
	if err = unix.Fchownat(int(f.Fd()), "", uid, gid, unix.AT_EMPTY_PATH); err != nil {
		err = &os.PathError{Op: "lchown", Path: name, Err: err}
	}
	return errors.Join(err, f.Close())
}

// Chtimes sets the times of name itself; a link is not followed.
func (r *Root) Chtimes(name string, atime, mtime time.Time) error {
	at, err := unix.TimeToTimespec(atime)
	if err != nil {
		return err
	}
	mt, err := unix.TimeToTimespec(mtime)
	if err != nil {
		return err
	}
	return r.at("chtimes", name, func(dir int, base string) error {
		return unix.UtimesNanoAt(dir, base, []unix.Timespec{at, mt}, unix.AT_SYMLINK_NOFOLLOW)
	})
}

// Lsetxattr sets an extended attribute of name itself.
func (r *Root) Lsetxattr(name, attr string, value []byte) error {
	return r.at("setxattr", name, func(dir int, base string) error {
		// There is no setxattrat before Linux 6.13; the parent's /proc entry
		// leads to exactly it, and lsetxattr does not follow base.
		return unix.Lsetxattr(procFD(dir)+"/"+base, attr, value, 0)
	})
}

// at runs f on the resolved parent of name. The root itself has no parent: f
// gets it as "." then, for which the calls that make or remove fail by
// themselves.
func (r *Root) at(op, name string, f func(dir int, base string) error) error {
	dir, base, err := r.parentOrSelf(name)
	if err != nil {
		return err
	}
	if err = f(int(dir.Fd()), base); err != nil {
		err = &os.PathError{Op: op, Path: name, Err: err}
	}
	return errors.Join(err, dir.Close())
}

func (r *Root) at2(op, oldname, newname string, f func(od int, ob string, nd int, nb string) error) error {
	od, ob, err := r.Parent(oldname)
	if err != nil {
		return err
	}
	nd, nb, err := r.Parent(newname)
	if err != nil {
		return errors.Join(err, od.Close())
	}
	if err = f(int(od.Fd()), ob, int(nd.Fd()), nb); err != nil {
		err = &os.LinkError{Op: op, Old: oldname, New: newname, Err: err}
	}
	return errors.Join(err, od.Close(), nd.Close())
}

func (r *Root) parentOrSelf(name string) (*os.File, string, error) {
	dir, base, err := r.Parent(name)
	if !errors.Is(err, unix.EINVAL) {
		return dir, base, err
	}
	dir, err = r.open("open", name, unix.O_PATH|unix.O_DIRECTORY, 0)
	return dir, ".", err
}
