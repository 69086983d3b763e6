package volume

import (
	"context"
	"errors"
	"io"
	"os"
	"syscall"

	"github.com/moby/moby/api/types/volume"

	"github.com/cleatlabs/cleat/internal/archive"
	"github.com/cleatlabs/cleat/internal/errdefs"
	"github.com/cleatlabs/cleat/internal/safepath"
)

// transfer is the user by whose name Export, Import and Clone mount a volume.
const transfer = "volume-transfer"

// within mounts a volume for as long as f works on its folder.
func (s *Service) within(ctx context.Context, name string, f func(path string, root *safepath.Root) error) error {
	path, err := s.Mount(ctx, name, transfer)
	if err != nil {
		return err
	}
	root, err := safepath.OpenRoot(path)
	if err == nil {
		err = errors.Join(f(path, root), root.Close())
	}
	return errors.Join(err, s.Unmount(context.WithoutCancel(ctx), name, transfer))
}

// Export writes the volume's content as a tar. While a container writes to the
// volume the copy is as consistent as after a crash: stop the container first
// for more.
func (s *Service) Export(ctx context.Context, name string, w io.Writer) error {
	return s.within(ctx, name, func(_ string, root *safepath.Root) error { return archive.Pack(ctx, w, root, "/", "") })
}

// Import replaces the volume's content by that of a tar, making the volume if
// it does not exist. A volume in use is refused.
func (s *Service) Import(ctx context.Context, name string, tar io.Reader) error {
	if _, err := s.Inspect(ctx, name); errors.Is(err, errdefs.ErrNotFound) {
		if _, err := s.Create(ctx, volume.CreateRequest{Name: name}); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	if users := s.users(name); len(users) > 0 {
		return errdefs.WithHint(errdefs.Conflictf("import into %s: volume is in use - %v", name, users), "remove these containers, or import into another volume")
	}
	return s.within(ctx, name, func(_ string, root *safepath.Root) error {
		entries, err := root.ReadDir("/")
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := root.RemoveAll(e.Name()); err != nil {
				return err
			}
		}
		return archive.Unpack(ctx, root, tar, archive.Options{})
	})
}

// Clone makes a new volume with the content of another one.
func (s *Service) Clone(ctx context.Context, source, target string) (v volume.Volume, err error) {
	from, err := s.Inspect(ctx, source)
	if err != nil {
		return v, err
	}
	if _, err := s.Inspect(ctx, target); err == nil {
		return v, errdefs.Conflictf("volume %s exists already", target)
	}
	if v, err = s.Create(ctx, volume.CreateRequest{Name: target, Labels: from.Labels}); err != nil {
		return v, err
	}
	err = s.within(ctx, source, func(srcPath string, src *safepath.Root) error {
		return s.within(ctx, target, func(dstPath string, dst *safepath.Root) error {
			r, w := io.Pipe()
			packed := make(chan error, 1)
			go func() { // ends with the reader
				err := archive.Pack(ctx, w, src, "/", "")
				packed <- err
				_ = w.CloseWithError(err) // always nil
			}()
			err := archive.Unpack(ctx, dst, r, archive.Options{})
			_ = r.CloseWithError(io.ErrClosedPipe) // always nil
			if perr := <-packed; err == nil {
				err = perr
			}
			return errors.Join(err, likeFolder(srcPath, dstPath))
		})
	})
	if err != nil {
		return v, errors.Join(err, s.Remove(context.WithoutCancel(ctx), target, true))
	}
	return v, nil
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
