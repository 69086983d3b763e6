package archive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/errdefs"
	"github.com/cleatlabs/cleat/internal/safepath"
)

// Options of Unpack.
type Options struct {
	// KeepKinds refuses to replace a folder by something else and the other
	// way round.
	KeepKinds bool
	// Owner, if set, owns everything instead of who the archive says.
	Owner *Owner
	// Top gives the root itself the owner, mode and time of an entry "./".
	Top bool
}

// Owner is a user and group, by number.
type Owner struct{ UID, GID int }

// Unpack extracts a tar into root. A malformed archive is class invalid; what
// came before stays.
func Unpack(ctx context.Context, root *safepath.Root, r io.Reader, o Options) error {
	return (&unpacker{dir: root, o: o, ctx: ctx}).all(r)
}

type unpacker struct {
	dir   *safepath.Root
	o     Options
	ctx   context.Context // of the one call that this unpacker serves
	times []dirTime
}

type dirTime struct {
	name string
	h    *tar.Header
}

func (x *unpacker) all(r io.Reader) error {
	t := tar.NewReader(r)
	for {
		if err := x.ctx.Err(); err != nil {
			return err
		}
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return errdefs.As(errdefs.ErrInvalidArgument, fmt.Errorf("read archive: %w", err))
		}
		name := path.Clean("/" + h.Name)
		if name == "/" {
			if x.o.Top && h.Typeflag == tar.TypeDir {
				if err := x.finish(name, h); err != nil {
					return fmt.Errorf("extract %s: %w", h.Name, err)
				}
			}
			continue
		}
		if err := x.one(name, h, t); err != nil {
			err = fmt.Errorf("extract %s: %w", h.Name, err)
			if errors.Is(err, io.ErrUnexpectedEOF) {
				err = errdefs.As(errdefs.ErrInvalidArgument, fmt.Errorf("read archive: %w", err))
			}
			return err
		}
	}
	// Last, because what is made in a folder changes its time.
	for _, d := range x.times {
		if err := x.dir.Chtimes(d.name, d.h.ModTime, d.h.ModTime); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (x *unpacker) one(name string, h *tar.Header, content io.Reader) error {
	if parent := path.Dir(name); parent != "/" {
		if err := x.dir.MkdirAll(parent, 0o755); err != nil {
			return err
		}
	}
	if err := x.clear(name, h); err != nil {
		return err
	}
	if err := x.make(name, h, content); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeLink {
		return nil
	}
	return x.finish(name, h)
}

// finish gives what was made its owner, mode, attributes and time.
func (x *unpacker) finish(name string, h *tar.Header) error {
	uid, gid := h.Uid, h.Gid
	if x.o.Owner != nil {
		uid, gid = x.o.Owner.UID, x.o.Owner.GID
	}
	if err := x.dir.Lchown(name, uid, gid); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeSymlink {
		return nil
	}
	if err := x.dir.Chmod(name, h.FileInfo().Mode()); err != nil {
		return err
	}
	for k, v := range h.PAXRecords {
		attr, ok := strings.CutPrefix(k, "SCHILY.xattr.")
		if !ok {
			continue
		}
		// A file system without them is no reason not to copy.
		if err := x.dir.Lsetxattr(name, attr, []byte(v)); err != nil && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.EPERM) {
			return err
		}
	}
	if h.Typeflag == tar.TypeDir {
		x.times = append(x.times, dirTime{name, h})
		return nil
	}
	return x.dir.Chtimes(name, h.ModTime, h.ModTime)
}

// clear makes room for an entry.
func (x *unpacker) clear(name string, h *tar.Header) error {
	have, err := x.dir.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	isDir := h.Typeflag == tar.TypeDir
	if have.IsDir() && isDir {
		return nil
	}
	if x.o.KeepKinds && have.IsDir() != isDir {
		if have.IsDir() {
			return errdefs.Invalidf("cannot overwrite directory %q with non-directory", name)
		}
		if st, err := x.dir.Stat(name); err == nil && st.IsDir() {
			return nil // a link to a folder
		}
		return errdefs.Invalidf("cannot overwrite non-directory %q with directory", name)
	}
	return x.dir.RemoveAll(name)
}

func (x *unpacker) make(name string, h *tar.Header, content io.Reader) error {
	switch h.Typeflag {
	case tar.TypeDir:
		if err := x.dir.Mkdir(name, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return nil
	case tar.TypeReg:
		f, err := x.dir.OpenFile(name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, content)
		return errors.Join(err, f.Close())
	case tar.TypeSymlink:
		return x.dir.Symlink(h.Linkname, name)
	case tar.TypeLink:
		return x.dir.Link(path.Clean("/"+h.Linkname), name)
	case tar.TypeFifo:
		return x.dir.Mknod(name, unix.S_IFIFO|uint32(h.Mode&0o7777), 0)
	case tar.TypeChar, tar.TypeBlock:
		kind := uint32(unix.S_IFCHR)
		if h.Typeflag == tar.TypeBlock {
			kind = unix.S_IFBLK
		}
		return x.dir.Mknod(name, kind|uint32(h.Mode&0o7777), unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor)))
	default:
		return nil // global headers and the like
	}
}
