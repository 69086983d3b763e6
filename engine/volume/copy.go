package volume

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/moby/moby/api/types/volume"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/archive"
	"github.com/cleatlabs/cleat/internal/atomicfile"
	"github.com/cleatlabs/cleat/internal/errdefs"
	"github.com/cleatlabs/cleat/internal/safepath"
)

// transfer is the user by whose name Export, Import and Clone mount a volume.
const transfer = "volume-transfer"

// within mounts a volume for as long as f works on its folder.
func (s *Service) within(ctx context.Context, name string, f func(root *safepath.Root) error) error {
	path, err := s.Mount(ctx, name, transfer)
	if err != nil {
		return err
	}
	return errors.Join(inRoot(path, f), s.Unmount(context.WithoutCancel(ctx), name, transfer))
}

func inRoot(dir string, f func(root *safepath.Root) error) error {
	root, err := safepath.OpenRoot(dir)
	if err != nil {
		return err
	}
	return errors.Join(f(root), root.Close())
}

// Export writes the volume's content as a tar; its first entry, "./", has the
// owner and mode of the volume's folder. While a container writes to the volume
// the copy is as consistent as after a crash: stop the container first for more.
func (s *Service) Export(ctx context.Context, name string, w io.Writer) error {
	return s.within(ctx, name, func(root *safepath.Root) error { return archive.Pack(ctx, w, root, "/", ".") })
}

// Import replaces the volume's content by that of a tar, making the volume if
// it does not exist. A volume in use is refused. A volume without options has
// the old content or the new at any time; one that is a mount is emptied and
// then filled.
func (s *Service) Import(ctx context.Context, name string, tar io.Reader) error {
	unpack := func(root *safepath.Root) error { return archive.Unpack(ctx, root, tar, archive.Options{Top: true}) }
	e, err := s.lookup(ctx, name)
	if errors.Is(err, errdefs.ErrNotFound) {
		r, err := complete(volume.CreateRequest{Name: name}, s.now())
		if err != nil {
			return wrap("import into", name, err)
		}
		_, err = s.create(ctx, r, func(have *entry) error {
			return errdefs.Conflictf("volume '%s' was created meanwhile", have.Name)
		}, func(dir string) error {
			if err := inRoot(dir, unpack); err != nil {
				return err
			}
			return flush(dir)
		})
		return err
	}
	if err != nil {
		return wrap("import into", name, err)
	}
	defer e.op.Unlock()
	if users := s.users(name); len(users) > 0 {
		return errdefs.WithHint(wrap("import into", name, errdefs.Conflictf("volume is in use - %v", users)),
			"remove these containers, or import into another volume")
	}
	if plain(e) {
		return s.exchange(e, unpack)
	}
	path, err := s.mount(ctx, e, transfer)
	if err != nil {
		return err
	}
	err = inRoot(path, func(root *safepath.Root) error {
		entries, err := root.ReadDir("/")
		if err != nil {
			return err
		}
		for _, old := range entries {
			if err := root.RemoveAll(old.Name()); err != nil {
				return err
			}
		}
		return unpack(root)
	})
	return errors.Join(err, s.unmount(context.WithoutCancel(ctx), e, transfer))
}

// exchange fills a new folder and puts it in the place of e's content. e.op is
// held and nobody uses e.
func (s *Service) exchange(e *entry, fill func(root *safepath.Root) error) (err error) {
	tmp, err := os.MkdirTemp(s.cfg.Root, scratchNew)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.destroy(tmp)) }()
	data, old := filepath.Join(tmp, dataDir), s.dataPath(e.Name)
	if err := os.Mkdir(data, 0o755); err != nil {
		return err
	}
	if err := likeFolder(old, data); err != nil {
		return err
	}
	if err := inRoot(data, fill); err != nil {
		return err
	}
	if err := flush(data); err != nil {
		return err
	}
	if users := s.users(e.Name); len(users) > 0 {
		return wrap("import into", e.Name, errdefs.Conflictf("volume is in use - %v", users))
	}
	if err := unix.Renameat2(unix.AT_FDCWD, data, unix.AT_FDCWD, old, unix.RENAME_EXCHANGE); err != nil {
		return &os.LinkError{Op: "exchange", Old: data, New: old, Err: err}
	}
	return errors.Join(atomicfile.SyncDir(tmp), atomicfile.SyncDir(filepath.Dir(old)))
}

// Clone makes a new local volume with the content of another one; where the
// file system can, the two share their data until one is changed.
func (s *Service) Clone(ctx context.Context, source, target string) (v volume.Volume, err error) {
	from, err := s.Inspect(ctx, source)
	if err != nil {
		return v, err
	}
	r, err := complete(volume.CreateRequest{Name: target, Labels: from.Labels}, s.now())
	if err != nil {
		return v, wrap("create", target, err)
	}
	if target != "" {
		delete(r.Labels, anonymousLabel)
	}
	exists := func(have *entry) error { return errdefs.Conflictf("volume %s exists already", have.Name) }
	err = s.within(ctx, source, func(src *safepath.Root) error {
		v, err = s.create(ctx, r, exists, func(dir string) error {
			if err := inRoot(dir, func(dst *safepath.Root) error { return safepath.CopyTree(ctx, src, "/", dst, "/") }); err != nil {
				return err
			}
			return flush(dir)
		})
		return err
	})
	return v, err
}

// flush writes everything of dir's file system to the disk: what was copied is
// acknowledged. It is one call, where fsync would be one a file.
func flush(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(d.Fd())), d.Close())
}

// likeFolder gives dst the owner and mode of src.
func likeFolder(src, dst string) error {
	fi, err := os.Stat(src)
	if err != nil {
		return err
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		if err := os.Chown(dst, int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
	}
	return os.Chmod(dst, fi.Mode())
}
