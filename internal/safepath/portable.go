//go:build !linux

package safepath

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// Root is a folder to resolve in.
type Root struct{ r *os.Root }

// OpenRoot opens dir as a root.
func OpenRoot(dir string) (*Root, error) {
	r, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &Root{r}, nil
}

func in(name string) string {
	c := strings.TrimPrefix(path.Clean("/"+filepath.ToSlash(name)), "/")
	if c == "" {
		return "."
	}
	return filepath.FromSlash(c)
}

// Name is the path that OpenRoot was given.
func (r *Root) Name() string { return r.r.Name() }

// Close releases the root; files opened through it stay open.
func (r *Root) Close() error { return r.r.Close() }

// OpenRoot opens the folder name as a root of its own.
func (r *Root) OpenRoot(name string) (*Root, error) {
	s, err := r.r.OpenRoot(in(name))
	if err != nil {
		return nil, err
	}
	return &Root{s}, nil
}

// Open opens name for reading.
func (r *Root) Open(name string) (*os.File, error) { return r.r.Open(in(name)) }

// Create makes or truncates a file.
func (r *Root) Create(name string, perm os.FileMode) (*os.File, error) {
	return r.r.OpenFile(in(name), os.O_RDWR|os.O_CREATE|os.O_TRUNC, perm)
}

// OpenFile is os.OpenFile inside the root.
func (r *Root) OpenFile(name string, flag int, perm os.FileMode) (*os.File, error) {
	return r.r.OpenFile(in(name), flag, perm)
}

// ReadFile returns the content of name.
func (r *Root) ReadFile(name string) ([]byte, error) { return r.r.ReadFile(in(name)) }

// ReadDir lists the folder name, sorted.
func (r *Root) ReadDir(name string) ([]os.DirEntry, error) {
	return fs.ReadDir(r.r.FS(), filepath.ToSlash(in(name)))
}

// Stat follows a final symbolic link, Lstat does not.
func (r *Root) Stat(name string) (os.FileInfo, error) { return r.r.Stat(in(name)) }

// Lstat describes name itself.
func (r *Root) Lstat(name string) (os.FileInfo, error) { return r.r.Lstat(in(name)) }

// Readlink returns the text of a symbolic link, which is not to be trusted.
func (r *Root) Readlink(name string) (string, error) { return r.r.Readlink(in(name)) }

// Mkdir makes one folder.
func (r *Root) Mkdir(name string, perm os.FileMode) error { return r.r.Mkdir(in(name), perm) }

// MkdirAll makes name and the folders above it that are missing.
func (r *Root) MkdirAll(name string, perm os.FileMode) error { return r.r.MkdirAll(in(name), perm) }

// Symlink makes name a symbolic link with the text target.
func (r *Root) Symlink(target, name string) error { return r.r.Symlink(target, in(name)) }

// Link makes newname another name of oldname, which is not followed.
func (r *Root) Link(oldname, newname string) error { return r.r.Link(in(oldname), in(newname)) }

// Rename renames within the root.
func (r *Root) Rename(oldname, newname string) error { return r.r.Rename(in(oldname), in(newname)) }

// Remove removes a file or an empty folder.
func (r *Root) Remove(name string) error { return r.r.Remove(in(name)) }

// RemoveAll removes name and what is in it; an absent name is no error.
func (r *Root) RemoveAll(name string) error { return r.r.RemoveAll(in(name)) }

// Chmod changes the mode of name, following links inside the root.
func (r *Root) Chmod(name string, mode os.FileMode) error { return r.r.Chmod(in(name), mode) }

// Lchown changes the owner of name itself.
func (r *Root) Lchown(name string, uid, gid int) error { return r.r.Lchown(in(name), uid, gid) }

// Chtimes sets the times of name.
func (r *Root) Chtimes(name string, atime, mtime time.Time) error {
	return r.r.Chtimes(in(name), atime, mtime)
}
