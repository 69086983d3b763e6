package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// Namespace is an open network namespace, which lives at least as long as it
// is open.
type Namespace struct{ f *os.File }

// Current opens the namespace of the calling thread.
func Current() (*Namespace, error) { return OpenNamespace("/proc/thread-self/ns/net") }

// OpenNamespace opens the namespace at path, or says that path is none.
func OpenNamespace(path string) (*Namespace, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open a network namespace: %w", err)
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return nil, errors.Join(fmt.Errorf("look at %s: %w", path, err), f.Close())
	}
	if st.Type != unix.NSFS_MAGIC {
		return nil, errors.Join(fmt.Errorf("%s is not a network namespace", path), f.Close())
	}
	return &Namespace{f}, nil
}

// FD is the descriptor, valid until Close.
func (n *Namespace) FD() int { return int(n.f.Fd()) }

// Close gives the namespace up.
func (n *Namespace) Close() error { return n.f.Close() }

// Do calls fn on a thread that is in the namespace. Sockets that fn opens stay
// in it. home is where the thread goes back to.
func (n *Namespace) Do(home *Namespace, fn func() error) error {
	return onThread(home, func() error {
		if err := unix.Setns(n.FD(), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter a network namespace: %w", err)
		}
		return fn()
	})
}

// onThread calls fn on a thread of its own and puts the thread back into home;
// when that fails, the thread is not used again.
func onThread(home *Namespace, fn func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := fn()
		if back := unix.Setns(home.FD(), unix.CLONE_NEWNET); back != nil {
			// Still locked: the runtime ends the thread with the goroutine.
			done <- errors.Join(err, fmt.Errorf("leave a network namespace: %w", back))
			return
		}
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}

// Fresh is a new namespace with its loopback up and a socket in it.
type Fresh struct {
	*Namespace
	Conn *Conn
}

// NewNamespace makes a namespace that nothing but its descriptors keeps alive:
// a crash leaves nothing of it.
func NewNamespace(home *Namespace) (*Fresh, error) {
	f := &Fresh{}
	err := onThread(home, func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		if f.Namespace, err = Current(); err != nil {
			return err
		}
		if f.Conn, err = Dial(); err != nil {
			return err
		}
		return f.Conn.Do(LinkUp(loopback))
	})
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Close gives up what is open.
func (f *Fresh) Close() error {
	var errs []error
	if f.Conn != nil {
		errs = append(errs, f.Conn.Close())
	}
	if f.Namespace != nil {
		errs = append(errs, f.Namespace.Close())
	}
	return errors.Join(errs...)
}

// loopback is the index that Linux gives lo in every namespace.
const loopback = 1

// Pin mounts the namespace at path, so that it stays.
func (n *Namespace) Pin(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE|os.O_EXCL|unix.O_CLOEXEC, 0o444)
	if err != nil {
		return fmt.Errorf("pin a network namespace: %w", err)
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", n.FD()), path, "", unix.MS_BIND, ""); err != nil {
		return errors.Join(fmt.Errorf("pin a network namespace at %s: %w", path, err), os.Remove(path))
	}
	return nil
}

// Unpin undoes Pin, in whatever state that was left; it is safe to repeat. The
// kernel takes the namespace and its interfaces down in the background once
// nothing else holds it. Removing the file also detaches the copies of the
// mount that other mount namespaces have.
func Unpin(path string) error {
	for {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err == nil {
			continue // one mount of perhaps several
		}
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			break
		}
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// WriteSysctl writes a value below /proc/sys/net of the calling thread's
// namespace. path is like "ipv4/ip_forward".
func WriteSysctl(path, value string) error {
	if !filepath.IsLocal(path) {
		return fmt.Errorf("sysctl net/%s: not a name", path)
	}
	// No O_CREATE: what does not exist is an error of its own.
	f, err := os.OpenFile("/proc/sys/net/"+path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("sysctl net/%s: %w", path, errors.Unwrap(err))
	}
	_, err = f.WriteString(value)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("sysctl net/%s: %w", path, err)
	}
	return nil
}

// ReadSysctl reads a value below /proc/sys/net of the calling thread's namespace.
func ReadSysctl(path string) (string, error) {
	b, err := os.ReadFile("/proc/sys/net/" + path)
	for len(b) > 0 && b[len(b)-1] == '\n' {
		b = b[:len(b)-1]
	}
	return string(b), err
}
