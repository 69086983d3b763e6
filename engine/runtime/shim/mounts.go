package shim

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/engine/runtime/wire"
)

// isolated runs f on a thread of its own and ends the thread afterwards. With
// private, the thread has a mount namespace of its own, a slave of the host's:
// what f mounts is seen by the processes that f starts, and vanishes with the
// last of them. The shim itself stays in the host's namespace, and so pins no
// mount of the host.
func isolated(private bool, f func() error) error {
	result := make(chan error)
	go func() {
		// Never unlocked: the thread must not be used for anything else.
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The main thread would not end, and would keep the namespace.
			// While this goroutine occupies it, another thread is taken.
			result <- isolated(private, f)
			runtime.UnlockOSThread()
			return
		}
		result <- func() error {
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return os.NewSyscallError("unshare", err)
			}
			if private {
				if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
					return os.NewSyscallError("unshare mount namespace", err)
				}
				if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
					return fmt.Errorf("make / a slave: %w", err)
				}
			}
			return f()
		}()
	}()
	return <-result
}

// mountAll mounts the root file system on root. It changes the working
// directory of the calling thread.
func mountAll(root string, mounts []wire.Mount) error {
	for i, m := range mounts {
		if err := mountOne(root, m); err != nil {
			if uerr := unmountAll(root, mounts[:i]); uerr != nil {
				return fmt.Errorf("%w; %w", err, uerr)
			}
			return err
		}
	}
	return nil
}

// unmountAll undoes mountAll; what is not mounted is skipped.
func unmountAll(root string, mounts []wire.Mount) error {
	for i := len(mounts) - 1; i >= 0; i-- {
		target, err := mountTarget(root, mounts[i])
		if err != nil {
			return err
		}
		err = unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmount %s: %w", target, err)
		}
	}
	return nil
}

// mountTarget is where m goes. Targets below the root come from a snapshotter,
// not from an image; one that leaves the root is refused all the same.
func mountTarget(root string, m wire.Mount) (string, error) {
	if m.Target == "" {
		return root, nil
	}
	if !filepath.IsLocal(strings.TrimPrefix(m.Target, "/")) {
		return "", fmt.Errorf("mount target %q is outside of the root", m.Target)
	}
	return filepath.Join(root, m.Target), nil
}

func mountOne(root string, m wire.Mount) error {
	target, err := mountTarget(root, m)
	if err != nil {
		return err
	}
	o := parseMountOptions(m.Options)
	typ := m.Type
	if typ == "bind" || typ == "rbind" {
		o.flags |= unix.MS_BIND
		if typ == "rbind" {
			o.flags |= unix.MS_REC
		}
	}
	fail := func(err error) error { return fmt.Errorf("mount %s (%s) on %s: %w", m.Source, typ, target, err) }
	switch {
	case o.flags&unix.MS_BIND != 0:
		if err := unix.Mount(m.Source, target, "", o.flags&(unix.MS_BIND|unix.MS_REC), ""); err != nil {
			return fail(err)
		}
		if rest := o.flags &^ (unix.MS_BIND | unix.MS_REC); rest != 0 {
			if err := unix.Mount("", target, "", rest|unix.MS_BIND|unix.MS_REMOUNT, ""); err != nil {
				return fail(err)
			}
		}
	default:
		if err := mountFS(typ, m.Source, target, o); err != nil {
			return fail(err)
		}
	}
	if o.propagation != 0 {
		if err := unix.Mount("", target, "", o.propagation, ""); err != nil {
			return fail(err)
		}
	}
	return nil
}

// pageSize is what mount(2) takes as data.
const pageSize = 4096

// mountFS mounts a file system whose options may exceed what mount(2) takes,
// as those of an overlay of many layers do.
func mountFS(typ, source, target string, o mountOptions) error {
	data := strings.Join(o.data, ",")
	if len(data) < pageSize {
		return unix.Mount(source, target, typ, o.flags, data)
	}
	if typ != "overlay" {
		return fmt.Errorf("options of %d bytes are too long", len(data))
	}
	dir, short := shortenLayers(o.data)
	if data = strings.Join(short, ","); dir != "" && len(data) < pageSize {
		if err := unix.Chdir(dir); err != nil {
			return &os.PathError{Op: "chdir", Path: dir, Err: err}
		}
		return unix.Mount(source, target, typ, o.flags, data)
	}
	return mountLayers(source, target, o)
}

// shortenLayers makes the layers of an overlay relative to a common folder.
func shortenLayers(data []string) (dir string, out []string) {
	out = append(out, data...)
	for i, d := range out {
		list, ok := strings.CutPrefix(d, "lowerdir=")
		if !ok || strings.Contains(list, `\`) {
			continue
		}
		layers := strings.Split(list, ":")
		dir = path.Dir(layers[0])
		for _, l := range layers[1:] {
			for !strings.HasPrefix(l, strings.TrimSuffix(dir, "/")+"/") {
				dir = path.Dir(dir)
			}
		}
		if dir == "/" || dir == "." {
			return "", data
		}
		for j := range layers {
			layers[j] = strings.TrimPrefix(layers[j], dir+"/")
		}
		out[i] = "lowerdir=" + strings.Join(layers, ":")
	}
	return dir, out
}

// mountLayers gives the kernel one layer at a time (Linux 6.7 and later).
func mountLayers(source, target string, o mountOptions) error {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigSetString(fs, "source", source); err != nil {
		return os.NewSyscallError("fsconfig source", err)
	}
	for _, d := range o.data {
		key, value, hasValue := strings.Cut(d, "=")
		switch {
		case key == "lowerdir":
			for _, l := range strings.Split(value, ":") {
				if err := unix.FsconfigSetString(fs, "lowerdir+", l); err != nil {
					return fmt.Errorf("add layer %s (the kernel takes options of at most %d bytes): %w", l, pageSize, err)
				}
			}
		case hasValue:
			err = unix.FsconfigSetString(fs, key, value)
		default:
			err = unix.FsconfigSetFlag(fs, key)
		}
		if err != nil {
			return fmt.Errorf("fsconfig %s: %w", key, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return os.NewSyscallError("fsconfig create", err)
	}
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, mountAttrs(o.flags))
	if err != nil {
		return os.NewSyscallError("fsmount", err)
	}
	defer unix.Close(mnt)
	if err := unix.MoveMount(mnt, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return os.NewSyscallError("move_mount", err)
	}
	return nil
}

func mountAttrs(flags uintptr) int {
	attrs := 0
	for _, f := range []struct{ ms, attr int }{
		{unix.MS_RDONLY, unix.MOUNT_ATTR_RDONLY}, {unix.MS_NOSUID, unix.MOUNT_ATTR_NOSUID},
		{unix.MS_NODEV, unix.MOUNT_ATTR_NODEV}, {unix.MS_NOEXEC, unix.MOUNT_ATTR_NOEXEC},
		{unix.MS_NOATIME, unix.MOUNT_ATTR_NOATIME}, {unix.MS_NODIRATIME, unix.MOUNT_ATTR_NODIRATIME},
	} {
		if flags&uintptr(f.ms) != 0 {
			attrs |= f.attr
		}
	}
	return attrs
}

// mountOptions are what mount(2) takes.
type mountOptions struct {
	flags       uintptr
	propagation uintptr
	data        []string
}

// parseMountOptions sorts options, in the words of mount(8), into flags and
// the file system's own data.
func parseMountOptions(options []string) mountOptions {
	var o mountOptions
	for _, opt := range options {
		switch f, ok := mountFlags[opt]; {
		case ok && f.clear:
			o.flags &^= f.flag
		case ok:
			o.flags |= f.flag
		case propagationFlags[opt] != 0:
			o.propagation = propagationFlags[opt]
		case opt != "" && opt != "defaults":
			o.data = append(o.data, opt)
		}
	}
	return o
}

type mountFlag struct {
	clear bool
	flag  uintptr
}

var mountFlags = map[string]mountFlag{
	"ro": {false, unix.MS_RDONLY}, "rw": {true, unix.MS_RDONLY},
	"bind": {false, unix.MS_BIND}, "rbind": {false, unix.MS_BIND | unix.MS_REC},
	"nosuid": {false, unix.MS_NOSUID}, "suid": {true, unix.MS_NOSUID},
	"nodev": {false, unix.MS_NODEV}, "dev": {true, unix.MS_NODEV},
	"noexec": {false, unix.MS_NOEXEC}, "exec": {true, unix.MS_NOEXEC},
	"noatime": {false, unix.MS_NOATIME}, "atime": {true, unix.MS_NOATIME},
	"nodiratime": {false, unix.MS_NODIRATIME}, "diratime": {true, unix.MS_NODIRATIME},
	"relatime": {false, unix.MS_RELATIME}, "norelatime": {true, unix.MS_RELATIME},
	"strictatime": {false, unix.MS_STRICTATIME}, "sync": {false, unix.MS_SYNCHRONOUS},
	"async": {true, unix.MS_SYNCHRONOUS}, "dirsync": {false, unix.MS_DIRSYNC},
}

var propagationFlags = map[string]uintptr{
	"private": unix.MS_PRIVATE, "rprivate": unix.MS_PRIVATE | unix.MS_REC,
	"shared": unix.MS_SHARED, "rshared": unix.MS_SHARED | unix.MS_REC,
	"slave": unix.MS_SLAVE, "rslave": unix.MS_SLAVE | unix.MS_REC,
	"unbindable": unix.MS_UNBINDABLE, "runbindable": unix.MS_UNBINDABLE | unix.MS_REC,
}
