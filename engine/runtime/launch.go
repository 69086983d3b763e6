package runtime

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/engine/runtime/cgroup"
	"github.com/cleatlabs/cleat/engine/runtime/wire"
)

// shimProcess is a started shim: a spare, or the one of a container.
type shimProcess struct {
	pid    int
	client *wire.Client
	// ended is closed when the process was reaped.
	ended chan struct{}
}

// launch starts a shim with a connection to us and nothing else of ours. It
// lives in a session of its own, so that it outlives the daemon.
func (d *Driver) launch() (*shimProcess, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "shim"), os.NewFile(uintptr(fds[1]), "daemon")
	defer ours.Close()
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(d.cfg.ShimPath, d.cfg.Run)
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{theirs}
	// The limit is for the stages of a container's start, which inherit it; the
	// shim raises its own.
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "GOMAXPROCS=1"}
	fd := -1
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, PidFD: &fd}
	if err := cmd.Start(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("start the shim: %w", err)
	}
	s := &shimProcess{pid: cmd.Process.Pid, client: wire.NewClient(conn), ended: make(chan struct{})}
	held, err := newPidfd(fd)
	if err != nil {
		s.dismiss()
		return nil, err
	}
	// The pidfd stands for the process from here on.
	if err := cmd.Process.Release(); err != nil {
		d.log.Debug("release the shim's process", "error", err)
	}
	d.reapers.Go(func() {
		defer close(s.ended)
		defer held.close()
		// Its exit status says nothing that its socket has not said.
		err := held.ended(context.Background())
		if err = errors.Join(err, held.reap()); err != nil {
			d.log.Warn("could not reap a shim", "pid", s.pid, "error", err)
		}
	})
	return s, nil
}

// take gives a spare shim, or a fresh one.
func (d *Driver) take() (*shimProcess, error) {
	for {
		select {
		case s := <-d.spares:
			select {
			case <-s.client.Done():
				continue // it died while it waited
			default:
				return s, nil
			}
		default:
			return d.launch()
		}
	}
}

// refill starts a spare in the background, if one is missing.
func (d *Driver) refill() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopped || d.filling || len(d.spares) == cap(d.spares) {
		return
	}
	d.filling = true
	d.background.Go(func() {
		s, err := d.launch()
		d.mu.Lock()
		defer d.mu.Unlock()
		d.filling = false
		if err != nil {
			d.log.Warn("could not start a spare shim", "error", err)
			return
		}
		if !d.stopped {
			select {
			case d.spares <- s:
				return
			default:
			}
		}
		s.dismiss()
	})
}

// refillDelay is how long the next spare waits, so that it does not take the
// processor from the container that is being started just now.
const refillDelay = 15 * time.Millisecond

func (d *Driver) refillLater() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopped || d.filling || len(d.spares) == cap(d.spares) {
		return
	}
	time.AfterFunc(refillDelay, d.refill)
}

// dismiss ends a shim that has no container: without us, it has no purpose.
func (s *shimProcess) dismiss() {
	// The connection is gone either way.
	_ = s.client.Close()
}

// Start makes the run folder and the first spare.
func (d *Driver) Start(context.Context) error {
	if err := os.MkdirAll(d.cfg.Run, 0o711); err != nil {
		return err
	}
	// libcontainer wants the root's path without symbolic links.
	run, err := filepath.EvalSymlinks(d.cfg.Run)
	if err != nil {
		return err
	}
	d.cfg.Run = run
	d.refill()
	return nil
}

// Stop ends the spares and lets go of the containers, which run on. What
// waits for one of them gets class Unavailable.
func (d *Driver) Stop(ctx context.Context) error {
	d.mu.Lock()
	d.stopped = true
	tasks := d.tasks
	d.tasks = map[*task]struct{}{}
	d.mu.Unlock()
	for t := range tasks {
		// Nothing is owed to a connection.
		_ = t.client.Close()
	}
	d.background.Wait()
	defer d.removeParent()
	for {
		select {
		case s := <-d.spares:
			s.dismiss()
			select {
			case <-s.ended:
			case <-ctx.Done():
				return ctx.Err()
			}
		default:
			return nil
		}
	}
}

// removeParent removes the containers' common control group when none is left.
func (d *Driver) removeParent() {
	dirs, err := cgroup.Find(d.cfg.CgroupParent)
	if err != nil {
		return
	}
	for _, dir := range dirs {
		// A group with containers in it, or with others of other owners, stays.
		_ = unix.Rmdir(dir)
	}
}

// Name implements lifecycle.Component.
func (d *Driver) Name() string { return "runtime" }
