package snapshot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// File systems by the magic number of statfs.
const (
	magicBtrfs   = unix.BTRFS_SUPER_MAGIC
	magicOverlay = unix.OVERLAYFS_SUPER_MAGIC
)

// OverlaySupported says why overlayfs cannot be used on the file system of
// dir, or nil. It tries a real mount with a whiteout, as file systems such as
// overlayfs itself accept some uses and refuse others.
func OverlaySupported(dir string) error {
	fs, err := fsMagic(dir)
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(dir, "probe-")
	if err != nil {
		return err
	}
	err = tryOverlay(tmp)
	if err != nil && fs == magicOverlay {
		err = fmt.Errorf("%w (%s is itself on overlayfs, which cannot hold another overlay's changes)", err, dir)
	}
	if rmErr := os.RemoveAll(tmp); rmErr != nil {
		err = errors.Join(err, rmErr)
	}
	return err
}

func tryOverlay(tmp string) error {
	for _, d := range []string{"lower1", "lower2", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(tmp, d), 0o755); err != nil {
			return err
		}
	}
	merged := filepath.Join(tmp, "merged")
	if err := os.WriteFile(filepath.Join(tmp, "lower1", "file"), nil, 0o600); err != nil {
		return err
	}
	opts := fmt.Sprintf("lowerdir=%s:%s,upperdir=%s,workdir=%s", filepath.Join(tmp, "lower2"),
		filepath.Join(tmp, "lower1"), filepath.Join(tmp, "upper"), filepath.Join(tmp, "work"))
	if err := unix.Mount("overlay", merged, "overlay", 0, opts); err != nil {
		return fmt.Errorf("overlayfs cannot be mounted: %w", err)
	}
	err := os.Remove(filepath.Join(merged, "file")) // makes a whiteout in upper
	if err != nil {
		err = fmt.Errorf("overlayfs cannot record a removal: %w", err)
	}
	return errors.Join(err, unix.Unmount(merged, unix.MNT_DETACH))
}

func fsMagic(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return int64(st.Type), nil
}
