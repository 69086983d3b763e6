package snapshot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ioctls of btrfs (linux/btrfs.h). All take the parent directory but the flags,
// which take the subvolume itself.
const (
	iocSubvolCreate   = 0x5000940e // _IOW(0x94, 14, volArgs)
	iocSnapDestroy    = 0x5000940f // _IOW(0x94, 15, volArgs)
	iocSnapCreateV2   = 0x50009417 // _IOW(0x94, 23, volArgsV2)
	iocSubvolGetFlags = 0x80089419 // _IOR(0x94, 25, u64)
	iocSubvolSetFlags = 0x4008941a // _IOW(0x94, 26, u64)

	subvolReadOnly = 1 << 1
)

type volArgs struct {
	fd   int64
	name [4088]byte
}

type volArgsV2 struct {
	fd      int64
	transid uint64
	flags   uint64
	unused  [4]uint64
	name    [4040]byte
}

func createSubvolume(path string) error {
	return inParent("create", path, func(dir *os.File, name string) error {
		var a volArgs
		copy(a.name[:len(a.name)-1], name)
		return ioctl(dir, iocSubvolCreate, unsafe.Pointer(&a))
	})
}

// snapshotSubvolume makes path a writable snapshot of source.
func snapshotSubvolume(path, source string) error {
	src, err := os.Open(source)
	if err != nil {
		return err
	}
	defer src.Close()
	return inParent("snapshot", path, func(dir *os.File, name string) error {
		a := volArgsV2{fd: int64(src.Fd())}
		copy(a.name[:len(a.name)-1], name)
		err := ioctl(dir, iocSnapCreateV2, unsafe.Pointer(&a))
		runtime.KeepAlive(src)
		return err
	})
}

// deleteSubvolume deletes path. A subvolume that a container has made inside
// it is in the way of deletion as a whole; then everything is removed file by file.
func deleteSubvolume(path string) error {
	if _, err := os.Lstat(path); err != nil {
		return err
	}
	err := inParent("delete", path, func(dir *os.File, name string) error {
		var a volArgs
		copy(a.name[:len(a.name)-1], name)
		return ioctl(dir, iocSnapDestroy, unsafe.Pointer(&a))
	})
	if err == nil {
		return nil
	}
	if roErr := setReadOnly(path, false); roErr != nil {
		return errors.Join(err, roErr)
	}
	if rmErr := os.RemoveAll(path); rmErr != nil {
		return errors.Join(err, rmErr)
	}
	return nil
}

func setReadOnly(path string, on bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var flags uint64
	if err := ioctl(f, iocSubvolGetFlags, unsafe.Pointer(&flags)); err != nil {
		return fmt.Errorf("read flags of subvolume %s: %w", path, err)
	}
	flags &^= subvolReadOnly
	if on {
		flags |= subvolReadOnly
	}
	if err := ioctl(f, iocSubvolSetFlags, unsafe.Pointer(&flags)); err != nil {
		return fmt.Errorf("set flags of subvolume %s: %w", path, err)
	}
	return nil
}

func inParent(what, path string, fn func(dir *os.File, name string) error) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := fn(dir, filepath.Base(path)); err != nil {
		return fmt.Errorf("%s subvolume %s: %w", what, path, err)
	}
	return nil
}

func ioctl(f *os.File, request uintptr, arg unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(arg))
	runtime.KeepAlive(f)
	if errno != 0 {
		return errno
	}
	return nil
}
