package container

import (
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
func unmountShm(dir string) error {
	err := unix.Unmount(filepath.Join(dir, shmDir), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && err != unix.EINVAL && err != unix.ENOENT {
		return fmt.Errorf("unmount %s: %w", filepath.Join(dir, shmDir), err)
	}
	return nil
}
