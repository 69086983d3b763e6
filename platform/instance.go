package platform

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// instanceLock makes sure that one daemon at a time owns a root. The lock is
// the kernel's, so it ends with the process however that ends.
type instanceLock struct {
	file *os.File
	pid  string
}

const lockName = "cleatd.lock"

// errRunning says that another daemon owns the root.
var errRunning = errors.New("a daemon is running already")

func lockInstance(root, run string) (*instanceLock, error) {
	for _, dir := range []string{root, run} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return nil, err
		}
	}
	f, err := os.OpenFile(filepath.Join(root, lockName), os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w with --root %s", errRunning, root)
		}
		return nil, err
	}
	l := &instanceLock{file: f, pid: filepath.Join(run, "cleatd.pid")}
	if err := os.WriteFile(l.pid, fmt.Appendln(nil, os.Getpid()), 0o644); err != nil {
		return nil, errors.Join(err, l.release())
	}
	return l, nil
}

func (l *instanceLock) release() error {
	return errors.Join(removeIfThere(l.pid), l.file.Close())
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// runningPid returns the process that owns root, or 0. The lock decides; the
// pid file only names.
func runningPid(root, run string) (int, error) {
	f, err := os.OpenFile(filepath.Join(root, lockName), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
		return 0, nil
	} else if !errors.Is(err, syscall.EWOULDBLOCK) {
		return 0, err
	}
	data, err := os.ReadFile(filepath.Join(run, "cleatd.pid"))
	if err != nil {
		return 0, fmt.Errorf("%w with --root %s, but its --run is another: %w", errRunning, root, err)
	}
	return strconv.Atoi(strings.TrimSpace(string(data)))
}

// stopRunning asks the daemon that owns root to stop and waits until it has.
// Containers keep running.
func stopRunning(root, run string, patience time.Duration) error {
	pid, err := runningPid(root, run)
	if err != nil || pid == 0 {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop daemon %d: %w", pid, err)
	}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if p, err := runningPid(root, run); err == nil && p == 0 {
			return nil
		}
	}
	return fmt.Errorf("daemon %d did not stop within %s; see its log, or kill it: containers are not affected", pid, patience)
}
