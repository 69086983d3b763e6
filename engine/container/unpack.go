package container

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/errdefs"
	"github.com/cleatlabs/cleat/internal/safepath"
)

// CopyTo extracts a tar into a folder of the container.
func (s *Service) CopyTo(ctx context.Context, ref, p string, o CopyOptions, r io.Reader) error {
	c, err := s.lookup(ref)
	if err != nil {
		return err
	}
	rec := c.snapshot()
	err = s.withFiles(ctx, c, false, func(f *files) error {
		fi, err := f.root.Stat(p)
		if err != nil {
			return err
		}
		if !fi.IsDir() {
			return errdefs.Invalidf("extraction point is not a directory")
		}
		real, err := f.root.RealPath(p)
		if err != nil {
			return err
		}
		if err := checkWritable(&rec, real); err != nil {
			return err
		}
		if o.CopyUIDGID {
			accounts, err := readAccountFiles(f.root)
			if err != nil {
				return err
			}
			if f.user, err = resolveAccount(accounts, rec.Config.User, nil); err != nil {
				return err
			}
		}
		dir, err := f.root.OpenRoot(p)
		if err != nil {
			return err
		}
		x := &unpacker{dir: dir, o: o, user: f.user, ctx: ctx}
		return errors.Join(x.all(r), dir.Close())
	})
	if errors.Is(err, fs.ErrNotExist) {
		return noSuchFile(ref, p)
	}
	if err == nil {
		s.publish(c, events.ActionExtractToDir, nil)
	}
	return err
}

// mountOver is the innermost mount that p is in, or nil.
func mountOver(r *record, p string) *mountPoint {
	p = path.Clean("/" + p)
	var best *mountPoint
	for i := range r.Mounts {
		m := &r.Mounts[i]
		if (p == m.Destination || strings.HasPrefix(p, m.Destination+"/")) && (best == nil || len(m.Destination) > len(best.Destination)) {
			best = m
		}
	}
	return best
}

// checkWritable refuses a place that the container cannot write to either. p is
// free of links; what becomes of it meanwhile meets the read-only mount itself.
func checkWritable(r *record, p string) error {
	switch m := mountOver(r, p); {
	case m != nil && m.ReadOnly:
		return errdefs.Forbiddenf("mounted volume is marked read-only")
	case m == nil && r.HostConfig.ReadonlyRootfs && !inTmpfs(r, p):
		return errdefs.Forbiddenf("container rootfs is marked read-only")
	}
	return nil
}

// inTmpfs says whether p is in a tmpfs of --tmpfs while the container runs.
func inTmpfs(r *record, p string) bool {
	if !live(r.State) {
		return false
	}
	for dest := range r.HostConfig.Tmpfs {
		if d := path.Clean(dest); p == d || strings.HasPrefix(p, d+"/") {
			return true
		}
	}
	return false
}

// unpacker extracts a tar below dir. Links, those that are there already as well,
// and ".." in the archive's names stay inside dir.
type unpacker struct {
	dir   *safepath.Root
	o     CopyOptions
	user  account
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
			continue
		}
		if err := x.one(name, h, t); err != nil {
			return fmt.Errorf("extract %s: %w", h.Name, err)
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
	uid, gid := h.Uid, h.Gid
	if x.o.CopyUIDGID {
		uid, gid = int(x.user.uid), int(x.user.gid)
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
		attr, ok := strings.CutPrefix(k, attrRecord)
		if !ok || attr != capabilityAttr && !strings.HasPrefix(attr, "user.") {
			continue // the others are the host's business
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
	if x.o.NoOverwriteDirNonDir && have.IsDir() != isDir {
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
