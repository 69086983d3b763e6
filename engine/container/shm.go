package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// shmDir is the /dev/shm of a container that shares it.
const shmDir = "shm"

func mountShm(path string, size int64) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	if err := unmountShm(filepath.Dir(path)); err != nil { // of a life that ended badly
		return err
	}
	data := fmt.Sprintf("mode=1777,size=%d", size)
	if err := unix.Mount("shm", path, "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC|unix.MS_NODEV, data); err != nil {
		return fmt.Errorf("mount %s: %w", path, err)
	}
	return nil
}

// unmountShm is safe to repeat.
func unmountShm(dir string) error { return unmountAll(filepath.Join(dir, shmDir)) }

// unmountOwn takes away all that is mounted in a container's folder. It is safe
// to repeat.
func unmountOwn(dir string) error {
	errs := []error{unmountShm(dir)}
	entries, err := os.ReadDir(filepath.Join(dir, subpathDir))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	for _, e := range entries {
		errs = append(errs, unmountAll(filepath.Join(dir, subpathDir, e.Name())))
	}
	return errors.Join(errs...)
}

// unmountAll takes away what is mounted at path, also what a life that ended
// badly left below.
func unmountAll(path string) error {
	for {
		switch err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err {
		case nil:
		case unix.EINVAL, unix.ENOENT, unix.ENOTDIR: // nothing is mounted there
			return nil
		default:
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
}
