package container

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

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/errdefs"
	"github.com/cleatlabs/cleat/internal/safepath"
)

// files is a container's file system, opened for one operation. Every path is
// resolved inside its root, whatever links the container made.
type files struct {
	root *safepath.Root
	user account // whose what is extracted becomes, when asked for
}

// withFiles opens the files of a container: of a running one through its
// init, of others by mounting the layers privately, volumes included.
func (s *Service) withFiles(ctx context.Context, c *instance, readOnly bool, f func(*files) error) error {
	unlock, err := c.lock(ctx)
	if err != nil {
		return err
	}
	c.mu.Lock()
	r := c.run
	c.mu.Unlock()
	if r != nil {
		unlock() // the kernel keeps order among those who use a live root
		root, err := safepath.OpenRoot(r.task.Root())
		if err != nil {
			return errdefs.As(errdefs.ErrConflict, err)
		}
		return errors.Join(f(&files{root: root}), root.Close())
	}
	defer unlock()
	if err := c.check(verbUse); err != nil {
		return err
	}
	rec := c.snapshot()
	opts := rootOptions{readOnly: readOnly}
	for _, m := range rec.Mounts {
		switch m.Type {
		case mount.TypeVolume:
			p, err := s.deps.Volumes.Mount(ctx, m.Name, "cp-"+c.id)
			if err != nil {
				return err
			}
			defer func() {
				if err := s.deps.Volumes.Unmount(ctx, m.Name, "cp-"+c.id); err != nil {
					s.log.Warn("volume stays mounted", "volume", m.Name, "error", err)
				}
			}()
			opts.binds = append(opts.binds, rootBind{source: p, sub: m.Subpath, dest: m.Destination, readOnly: m.ReadOnly})
		case mount.TypeBind:
			if _, err := os.Stat(m.Source); err == nil {
				opts.binds = append(opts.binds, rootBind{source: m.Source, dest: m.Destination, readOnly: m.ReadOnly})
			}
		}
	}
	if !readOnly {
		c.mu.Lock()
		c.rec.Touched = true
		c.mu.Unlock()
	}
	return s.withRootfs(ctx, &rec, opts, func(root *safepath.Root) error { return f(&files{root: root}) })
}

func noSuchFile(ref, p string) error {
	return errdefs.NotFoundf("Could not find the file %s in container %s", p, ref)
}

// StatPath describes one path.
func (s *Service) StatPath(ctx context.Context, ref, p string) (st container.PathStat, err error) {
	c, err := s.lookup(ref)
	if err != nil {
		return st, err
	}
	err = s.withFiles(ctx, c, true, func(f *files) error {
		st, err = f.stat(p)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return st, noSuchFile(ref, p)
	}
	return st, err
}

func (f *files) stat(p string) (container.PathStat, error) {
	fi, err := f.lstat(p)
	if err != nil {
		return container.PathStat{}, err
	}
	st := container.PathStat{Name: archiveName(p), Size: fi.Size(), Mode: fi.Mode(), Mtime: fi.ModTime()}
	if fi.Mode()&fs.ModeSymlink != 0 {
		// Docker gives the target resolved within the container.
		if real, err := f.root.RealPath(p); err == nil {
			st.LinkTarget = real
		} else if target, err := f.root.Readlink(p); err == nil {
			st.LinkTarget = target
			if !path.IsAbs(target) {
				st.LinkTarget = path.Join(path.Dir(path.Clean("/"+p)), target)
			}
		}
	}
	return st, nil
}

// archiveName is what a path's entry in an archive is called: its last element,
// and "." for the content of a folder alone, which clients build on.
func archiveName(p string) string {
	if p == "." || strings.HasSuffix(p, "/.") {
		return "."
	}
	return path.Base(path.Clean("/" + p))
}

// lstat follows a link at the end only when the path says so by "/" or "/.".
func (f *files) lstat(p string) (fs.FileInfo, error) {
	if strings.HasSuffix(p, "/") || strings.HasSuffix(p, "/.") {
		return f.root.Stat(p)
	}
	return f.root.Lstat(p)
}

// CopyFrom writes a path as a tar, after telling its stat.
func (s *Service) CopyFrom(ctx context.Context, ref, p string, begin func(container.PathStat) io.Writer) error {
	c, err := s.lookup(ref)
	if err != nil {
		return err
	}
	err = s.withFiles(ctx, c, true, func(f *files) error {
		st, err := f.stat(p)
		if err != nil {
			return err
		}
		return f.pack(ctx, begin(st), p, st.Name)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return noSuchFile(ref, p)
	}
	if err == nil {
		s.publish(c, events.ActionArchivePath, nil)
	}
	return err
}

// pack writes p and what is below it. Entries are named from base; with "" there
// is none for p itself.
func (f *files) pack(ctx context.Context, w io.Writer, p, base string) error {
	t := &packer{w: tar.NewWriter(w), root: f.root, links: map[[2]uint64]string{}, ctx: ctx}
	fi, err := f.lstat(p)
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
		if err := t.add(child, below(name, e.Name()), sub, false); err != nil {
			return err
		}
	}
	return nil
}

// below keeps a leading "./" or "/", unlike path.Join.
func below(dir, name string) string {
	if dir == "" {
		return name
	}
	return strings.TrimSuffix(dir, "/") + "/" + name
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
		h.Name = strings.TrimSuffix(name, "/") + "/"
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
	if !fi.Mode().IsRegular() || h.Typeflag == tar.TypeLink {
		return t.w.WriteHeader(h)
	}
	return t.content(p, h)
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
	capability := make([]byte, 256)
	if n, err := unix.Fgetxattr(int(f.Fd()), capabilityAttr, capability); err == nil && n > 0 {
		h.PAXRecords = map[string]string{attrRecord + capabilityAttr: string(capability[:n])}
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

const (
	// attrRecord begins the names of extended attributes in a tar.
	attrRecord     = "SCHILY.xattr."
	capabilityAttr = "security.capability"
)

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
