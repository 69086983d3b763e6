package container

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/cleatlabs/cleat/internal/errdefs"
	"github.com/cleatlabs/cleat/internal/safepath"
)

// archive writes a tar of a local file or folder whose root entry is base.
func archive(w io.Writer, source, base string) error {
	tw := tar.NewWriter(w)
	err := filepath.WalkDir(source, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(source, p)
		if err != nil {
			return err
		}
		return addFile(tw, p, path.Join(base, filepath.ToSlash(rel)))
	})
	return errors.Join(err, tw.Close())
}

func addFile(tw *tar.Writer, p, name string) error {
	st, err := os.Lstat(p)
	if err != nil {
		return err
	}
	if st.Mode()&os.ModeSocket != 0 {
		return nil // means nothing elsewhere
	}
	link := ""
	if st.Mode()&os.ModeSymlink != 0 {
		if link, err = os.Readlink(p); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(st, link)
	if err != nil {
		return err
	}
	h.Name, h.Format = name, tar.FormatPAX
	h.Uname, h.Gname = "", "" // names of this machine say nothing in the container
	h.AccessTime, h.ChangeTime = time.Time{}, time.Time{}
	if st.IsDir() {
		h.Name += "/"
	}
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return nil
	}
	f, err := os.Open(p)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // read only
	// A file that grows meanwhile is cut at the size in its header.
	_, err = io.CopyN(tw, f, h.Size)
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: file became shorter while it was read", p)
	}
	return err
}

// extract unpacks what a container sent below target, which bounds all that
// the archive can write: links in it, or made by it, are resolved inside. The
// archive's root entry gets the target's name. uidgid keeps owners.
func extract(r io.Reader, target copyTarget, isDir, uidgid bool, warn io.Writer) (int64, error) {
	x := &extractor{base: target.base, uidgid: uidgid, warn: warn}
	root, err := safepath.OpenRoot(target.dir)
	if err != nil {
		return 0, err
	}
	defer func() { _ = root.Close() }() // nothing is written through it any more
	x.root = root
	if isDir && target.base != "." {
		// From here on the folder itself is the root: no entry can leave it.
		if err := root.Mkdir(target.base, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return 0, err
		}
		st, err := root.Stat(target.base)
		if err != nil {
			return 0, err
		}
		if !st.IsDir() {
			return 0, errCopyDirToFile
		}
		if x.root, err = root.OpenRoot(target.base); err != nil {
			return 0, err
		}
		defer func() { _ = x.root.Close() }() // as above
		x.base = "."
	}
	return x.run(tar.NewReader(r))
}

type extractor struct {
	root   *safepath.Root
	base   string
	uidgid bool
	warn   io.Writer
	prefix string // the name of the archive's root entry
	n      int64
	// dirs get their times when nothing is written into them any more.
	dirs []*tar.Header
}

func (x *extractor) run(tr *tar.Reader) (int64, error) {
	first := true
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return x.n, err
		}
		if first {
			x.prefix, first = path.Clean(strings.TrimPrefix(h.Name, "/")), false
		}
		if err := x.entry(h, tr); err != nil {
			return x.n, fmt.Errorf("%s: %w", h.Name, err)
		}
	}
	for i := len(x.dirs) - 1; i >= 0; i-- {
		h := x.dirs[i]
		if err := x.attributes(h); err != nil {
			return x.n, err
		}
	}
	return x.n, nil
}

// rename maps a name of the archive to one below the root.
func (x *extractor) rename(name string) (string, error) {
	name = path.Clean(strings.TrimPrefix(name, "/"))
	switch {
	case x.prefix == "." || name == x.prefix:
	case !strings.HasPrefix(name, x.prefix+"/"):
		return "", errdefs.Invalidf("entry outside of what was asked for")
	}
	if x.prefix != "." {
		name = strings.TrimPrefix(strings.TrimPrefix(name, x.prefix), "/")
	}
	for elem := range strings.SplitSeq(name, "/") {
		if elem == ".." {
			return "", errdefs.Invalidf("entry leads outside")
		}
	}
	return path.Join(x.base, name), nil
}

func (x *extractor) entry(h *tar.Header, r io.Reader) error {
	name, err := x.rename(h.Name)
	if err != nil {
		return err
	}
	h = &tar.Header{
		Name: name, Typeflag: h.Typeflag, Linkname: h.Linkname, Mode: h.Mode, Size: h.Size,
		Uid: h.Uid, Gid: h.Gid, ModTime: h.ModTime,
	}
	if h.Typeflag == tar.TypeDir {
		if st, err := x.root.Lstat(name); err == nil && !st.IsDir() {
			if err := x.root.Remove(name); err != nil {
				return err
			}
		}
		if err := x.root.MkdirAll(name, 0o755); err != nil {
			return err
		}
		x.dirs = append(x.dirs, h)
		return nil
	}
	if st, err := x.root.Lstat(name); err == nil {
		if st.IsDir() {
			return errdefs.Conflictf("cannot overwrite a directory with a file")
		}
		if err := x.root.Remove(name); err != nil {
			return err
		}
	}
	if dir := path.Dir(name); dir != "." {
		if err := x.root.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	switch h.Typeflag {
	case tar.TypeReg:
		return x.file(h, r)
	case tar.TypeSymlink:
		if err := x.root.Symlink(h.Linkname, name); err != nil {
			return err
		}
		return x.owner(h)
	case tar.TypeLink:
		old, err := x.rename(h.Linkname)
		if err != nil {
			return err
		}
		return x.root.Link(old, name)
	default:
		fmt.Fprintf(x.warn, "WARNING: skipped %s: it is a device, pipe or socket\n", h.Name)
		return nil
	}
}

func (x *extractor) file(h *tar.Header, r io.Reader) error {
	f, err := x.root.OpenFile(h.Name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	n, err := io.Copy(f, r)
	x.n += n
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return x.attributes(h)
}

// attributes sets owner, mode and time, in this order: a change of owner clears bits of the mode.
func (x *extractor) attributes(h *tar.Header) error {
	if err := x.owner(h); err != nil {
		return err
	}
	if err := x.root.Chmod(h.Name, h.FileInfo().Mode()&(os.ModePerm|os.ModeSetuid|os.ModeSetgid|os.ModeSticky)); err != nil {
		return err
	}
	return x.root.Chtimes(h.Name, h.ModTime, h.ModTime)
}

func (x *extractor) owner(h *tar.Header) error {
	if !x.uidgid {
		return nil
	}
	return x.root.Lchown(h.Name, h.Uid, h.Gid)
}
