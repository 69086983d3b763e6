package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	goruntime "runtime"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/safepath"
)

// mountDir is below Config.Root: the place where private mounts are made. It
// stays empty in the daemon's own mount namespace.
const mountDir = ".mnt"

// rootOptions say how withRootfs shows a root file system.
type rootOptions struct {
	// readOnly shows the writable layer without using it as one, so that the
	// container may be started at the same time.
	readOnly bool
	binds    []rootBind
}

// rootBind is a path of the host over a path of the root. sub, if any, is
// resolved inside source.
type rootBind struct {
	source, sub, dest string
	readOnly          bool
}

// open gives a handle that belongs to the calling thread's mount namespace.
func (b *rootBind) open() (*os.File, error) {
	if b.sub != "" {
		return openSubpath(b.source, b.sub)
	}
	return os.OpenFile(b.source, unix.O_PATH, 0)
}

func (b *rootBind) isDir() (bool, error) {
	h, err := b.open()
	if err != nil {
		return false, err
	}
	fi, err := h.Stat()
	return err == nil && fi.IsDir(), errors.Join(err, h.Close())
}

// withRootfs runs f on the root file system of a container that has no task.
// The mounts are in a mount namespace of their own that ends with f: nobody
// else sees them and a crash leaves none behind. Unless readOnly is set the
// caller holds the container's operation lock.
func (s *Service) withRootfs(ctx context.Context, r *record, o rootOptions, f func(root *safepath.Root) error) error {
	mounts, err := s.deps.Images.SnapshotMounts(ctx, r.ID)
	if err != nil {
		return err
	}
	target := filepath.Join(s.cfg.Root, mountDir)
	if err := os.MkdirAll(target, 0o700); err != nil {
		return err
	}
	if o.readOnly {
		skeleton, clean, err := makeSkeleton(s.cfg.Root, o.binds)
		if err != nil {
			return err
		}
		defer clean()
		mounts = readOnlyView(mounts, skeleton)
	}
	return inPrivateNamespace(func() (err error) {
		if err := mountAll(mounts, target); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, unmountTree(target)) }()
		root, err := safepath.OpenRoot(target)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, root.Close()) }()
		for _, b := range o.binds {
			if err := bindInRoot(root, b, o.readOnly); err != nil {
				return fmt.Errorf("mount %s over %s: %w", b.source, b.dest, err)
			}
		}
		return f(root)
	})
}

// inPrivateNamespace runs f on a thread with a mount namespace of its own,
// which receives what the daemon's namespace mounts and gives nothing back.
// Goroutines that f starts run elsewhere; descriptors are everybody's.
func inPrivateNamespace(f func() error) error {
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the runtime ends the thread with the goroutine, and
		// the namespace ends with the thread.
		goruntime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			done <- fmt.Errorf("private mount namespace: %w", err)
			return
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
			done <- fmt.Errorf("private mount namespace: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}

// bindInRoot mounts b at its resolved place; a missing place is made.
func bindInRoot(root *safepath.Root, b rootBind, readOnly bool) error {
	source, err := b.open()
	if err != nil {
		return err
	}
	defer source.Close() // a handle: closing it cannot fail
	fi, err := source.Stat()
	if err != nil {
		return err
	}
	at, err := root.OpenPath(b.dest)
	if errors.Is(err, unix.ENOENT) && !readOnly {
		if fi.IsDir() {
			err = root.MkdirAll(b.dest, 0o755)
		} else if err = root.MkdirAll(path.Dir(b.dest), 0o755); err == nil {
			var file *os.File
			if file, err = root.Create(b.dest, 0o644); err == nil {
				err = file.Close()
			}
		}
		if err == nil {
			at, err = root.OpenPath(b.dest)
		}
	}
	if err != nil {
		return err
	}
	defer at.Close() // a handle: closing it cannot fail
	if err := unix.Mount(safepath.FDPath(source), safepath.FDPath(at), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	if !b.readOnly {
		return nil
	}
	// The handle is below the new mount: look the place up again.
	top, err := root.OpenPath(b.dest)
	if err != nil {
		return err
	}
	defer top.Close() // a handle: closing it cannot fail
	return unix.Mount("", safepath.FDPath(top), "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
}

// makeSkeleton makes a folder with the destinations of binds, to lie under all
// layers of a read-only view, where nothing can be made.
func makeSkeleton(dir string, binds []rootBind) (string, func(), error) {
	if len(binds) == 0 {
		return "", func() {}, nil
	}
	tmp, err := os.MkdirTemp(dir, ".skel-")
	if err != nil {
		return "", nil, err
	}
	clean := func() {
		// Left-overs are cleared by Restore as well.
		_ = os.RemoveAll(tmp)
	}
	for _, b := range binds {
		folder, err := b.isDir()
		if err == nil && !folder {
			err = os.MkdirAll(filepath.Join(tmp, path.Dir(b.dest)), 0o755)
			if err == nil {
				err = os.WriteFile(filepath.Join(tmp, b.dest), nil, 0o644)
			}
		} else if err == nil {
			err = os.MkdirAll(filepath.Join(tmp, b.dest), 0o755)
		}
		if err != nil {
			clean()
			return "", nil, err
		}
	}
	return tmp, clean, nil
}

// readOnlyView turns a writable overlay into one whose upper folder is a lower
// one, over skeleton if there is one; other mounts become read-only.
func readOnlyView(mounts []mount.Mount, skeleton string) []mount.Mount {
	var out []mount.Mount
	for _, m := range mounts {
		n := m
		n.Options = nil
		var upper, lower string
		for _, o := range m.Options {
			switch k, v, _ := strings.Cut(o, "="); {
			case k == "upperdir":
				upper = v
			case k == "lowerdir":
				lower = v
			case k == "workdir" || o == "rw" || o == "ro" || k == "index":
			default:
				n.Options = append(n.Options, o)
			}
		}
		n.Options = append(n.Options, "ro")
		if m.Type == "overlay" {
			layers := []string{lower}
			if upper != "" {
				layers = []string{upper, lower}
			}
			if skeleton != "" {
				layers = append(layers, skeleton)
			}
			n.Options = append(n.Options, "lowerdir="+strings.Join(layers, ":"))
		}
		out = append(out, n)
	}
	return out
}

// mountAll makes mounts on target in the calling thread. containerd's own
// function may change threads, and with it the mount namespace.
func mountAll(mounts []mount.Mount, target string) error {
	for _, m := range mounts {
		at := target
		if m.Target != "" {
			at = filepath.Join(target, m.Target)
		}
		flags, data := mountFlags(m.Options)
		text := strings.Join(data, ",")
		if m.Type == "overlay" && len(text) >= os.Getpagesize()-1 {
			short, err := enterLayers(data)
			if err != nil {
				return err
			}
			text = strings.Join(short, ",")
		}
		fstype, first := m.Type, flags
		if flags&unix.MS_BIND != 0 { // a bind takes read-only in a second step
			fstype, first = "", flags&^unix.MS_RDONLY
		}
		if err := unix.Mount(m.Source, at, fstype, first, text); err != nil {
			return fmt.Errorf("mount %s at %s: %w", m.Type, at, err)
		}
		if flags&unix.MS_BIND != 0 && flags&unix.MS_RDONLY != 0 {
			if err := unix.Mount("", at, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
				return fmt.Errorf("mount %s read-only: %w", at, err)
			}
		}
	}
	return nil
}

// enterLayers shortens overlay options by going to the folder that all layers
// have in common. The thread has its working directory to itself.
func enterLayers(data []string) ([]string, error) {
	common := ""
	each(data, func(p string) string {
		if common == "" {
			common = path.Dir(p)
		}
		for common != "/" && !strings.HasPrefix(p, common+"/") {
			common = path.Dir(common)
		}
		return p
	})
	if err := unix.Chdir(common); err != nil {
		return nil, err
	}
	return each(data, func(p string) string { return strings.TrimPrefix(strings.TrimPrefix(p, common), "/") }), nil
}

func each(data []string, f func(string) string) []string {
	out := make([]string, len(data))
	for i, o := range data {
		k, v, _ := strings.Cut(o, "=")
		switch k {
		case "lowerdir", "upperdir", "workdir":
			parts := strings.Split(v, ":")
			for j, p := range parts {
				parts[j] = f(p)
			}
			out[i] = k + "=" + strings.Join(parts, ":")
		default:
			out[i] = o
		}
	}
	return out
}

func mountFlags(options []string) (flags uintptr, data []string) {
	known := map[string]uintptr{
		"ro": unix.MS_RDONLY, "bind": unix.MS_BIND, "rbind": unix.MS_BIND | unix.MS_REC, "nosuid": unix.MS_NOSUID,
		"nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC, "noatime": unix.MS_NOATIME, "nodiratime": unix.MS_NODIRATIME,
		"relatime": unix.MS_RELATIME, "strictatime": unix.MS_STRICTATIME, "sync": unix.MS_SYNCHRONOUS,
	}
	for _, o := range options {
		if f, ok := known[o]; ok {
			flags |= f
		} else if o != "rw" && o != "" {
			data = append(data, o)
		}
	}
	return flags, data
}

// unmountTree takes away what is mounted at and below target. The flush of a
// writable layer is done when it returns, unless something still has it open.
func unmountTree(target string) error {
	err := unix.Unmount(target, unix.UMOUNT_NOFOLLOW)
	if err == unix.EBUSY {
		err = unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	}
	if err != nil && err != unix.EINVAL {
		return fmt.Errorf("unmount %s: %w", target, err)
	}
	return nil
}
