// Package archive packs folders as tar and unpacks tar into folders, for files
// that others may change meanwhile and archives that nobody vouches for: every
// path is resolved with internal/safepath. engine/container copies with it,
// engine/volume exports and imports.
//
// It guarantees that nothing outside of the root given is read or changed,
// whatever the archive names and whatever links are in the way.
package archive

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/safepath"
)

// Pack writes p of root and what is below it as a tar; entries are named from
// base, "" leaves out p itself. A link at the end of p is followed only when p
// ends with "/" or "/.". What a running program removes meanwhile is left out.
func Pack(ctx context.Context, w io.Writer, root *safepath.Root, p, base string) error {
	t := &packer{w: tar.NewWriter(w), root: root, links: map[[2]uint64]string{}, ctx: ctx}
	fi, err := Lstat(root, p)
	if err != nil {
		return err
	}
	if err := t.add(path.Clean("/"+p), base, fi, true); err != nil {
		return err
	}
	return t.w.Close()
}

type packer struct {
	w     *tar.Writer
	root  *safepath.Root
	links map[[2]uint64]string // by device and inode: the first name
	ctx   context.Context      // of the one call that this packer serves
}

func (t *packer) add(p, name string, fi fs.FileInfo, top bool) error {
	if err := t.ctx.Err(); err != nil {
		return err
	}
	if fi.Mode()&fs.ModeSocket != 0 {
		return nil // a tar has no place for them
	}
	if name != "" {
		if err := t.entry(p, name, fi); err != nil {
			return skipVanished(err, top)
		}
	}
	if !fi.IsDir() {
		return nil
	}
	entries, err := t.root.ReadDir(p)
	if err != nil {
		return skipVanished(err, top)
	}
	for _, e := range entries {
		child := path.Join(p, e.Name())
		sub, err := t.root.Lstat(child)
		if err != nil {
			if err := skipVanished(err, false); err != nil {
				return err
			}
			continue
		}
		if err := t.add(child, path.Join(name, e.Name()), sub, false); err != nil {
			return err
		}
	}
	return nil
}

// skipVanished passes over what a running container removed meanwhile.
func skipVanished(err error, top bool) error {
	if !top && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (t *packer) entry(p, name string, fi fs.FileInfo) error {
	link := ""
	if fi.Mode()&fs.ModeSymlink != 0 {
		var err error
		if link, err = t.root.Readlink(p); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(fi, link)
	if err != nil {
		return err
	}
	h.Name, h.Format = name, tar.FormatPAX
	h.Uname, h.Gname = "", ""
	if fi.IsDir() {
		h.Name += "/"
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if ok && st.Nlink > 1 && fi.Mode().IsRegular() {
		key := [2]uint64{uint64(st.Dev), st.Ino}
		if first, seen := t.links[key]; seen {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
		} else {
			t.links[key] = name
		}
	}
	if fi.IsDir() {
		if err := t.folderAttributes(p, h); err != nil {
			return err
		}
	}
	if !fi.Mode().IsRegular() || h.Typeflag == tar.TypeLink {
		return t.w.WriteHeader(h)
	}
	return t.content(p, h)
}

func (t *packer) folderAttributes(p string, h *tar.Header) error {
	f, err := t.root.OpenFile(p, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	return errors.Join(attributes(f, h), f.Close())
}

// attributes adds to h the extended attributes that mean the same elsewhere:
// file capabilities, access lists and the users' own.
func attributes(f *os.File, h *tar.Header) error {
	all, err := safepath.Xattrs(f)
	if err != nil {
		return err
	}
	for name, value := range all {
		if name != "security.capability" && !strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "system.posix_acl_") {
			continue
		}
		if h.PAXRecords == nil {
			h.PAXRecords = make(map[string]string)
		}
		h.PAXRecords["SCHILY.xattr."+name] = string(value)
	}
	return nil
}

// content writes a file that may shrink or grow while it is read: the header's
// size is kept to.
func (t *packer) content(p string, h *tar.Header) error {
	f, err := t.root.OpenFile(p, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close() // only read
	fi, err := f.Stat()
	if err != nil || !fi.Mode().IsRegular() {
		return err // replaced by something else meanwhile: left out
	}
	h.Size = fi.Size()
	if err := attributes(f, h); err != nil {
		return err
	}
	if err := t.w.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.Copy(t.w, io.LimitReader(f, h.Size))
	if err != nil {
		return err
	}
	_, err = io.CopyN(t.w, zeros{}, h.Size-n)
	return err
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// Lstat looks at p in root; it follows a link at the end only when p says so
// by "/" or "/.".
func Lstat(root *safepath.Root, p string) (fs.FileInfo, error) {
	if strings.HasSuffix(p, "/") || strings.HasSuffix(p, "/.") {
		return root.Stat(p)
	}
	return root.Lstat(p)
}
