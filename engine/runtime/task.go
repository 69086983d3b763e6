package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cleatlabs/cleat/engine/runtime/cgroup"
	"github.com/cleatlabs/cleat/engine/runtime/wire"
	"github.com/cleatlabs/cleat/internal/atomicfile"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

// task is a container as its shim shows it.
type task struct {
	*process
	driver  *Driver
	id      string
	dir     string
	client  *wire.Client
	shimPid int
	group   string // cgroups path
	dirs    cgroup.Dirs

	// deleting says that the connection ends because we want it to.
	deleting atomic.Bool
}

var _ Task = (*task)(nil)

func (d *Driver) newTask(id string, client *wire.Client, shimPid, initPid int, group string) (*task, error) {
	dirs, err := cgroup.Find(group)
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	t := &task{driver: d, id: id, dir: d.dir(id), client: client, shimPid: shimPid, group: group, dirs: dirs}
	t.process = newProcess(t, "", initPid)
	d.mu.Lock()
	d.tasks[t] = struct{}{}
	d.mu.Unlock()
	// So that the shim's death is noticed even when nobody waits.
	t.await()
	return t, nil
}

func (t *task) ID() string   { return t.id }
func (t *task) ShimPid() int { return t.shimPid }
func (t *task) Root() string { return fmt.Sprintf("/proc/%d/root", t.Pid()) }

// call asks the shim. When the shim is gone, the error is class Conflict with
// Docker's words, for the container ended with it.
func (t *task) call(ctx context.Context, op string, in, out any) error {
	err := t.client.Call(ctx, op, in, out)
	if errors.Is(err, wire.ErrClosed) {
		return errdefs.Conflictf("container %s is not running: its shim is gone", t.id)
	}
	return fromWire(err)
}

func (t *task) Pause(ctx context.Context) error  { return t.call(ctx, wire.OpPause, nil, nil) }
func (t *task) Resume(ctx context.Context) error { return t.call(ctx, wire.OpResume, nil, nil) }

func (t *task) Update(ctx context.Context, r *specs.LinuxResources) error {
	return t.call(ctx, wire.OpUpdate, r, nil)
}

func (t *task) Pids(context.Context) ([]int, error) { return t.dirs.Pids() }

func (t *task) Stats(context.Context) (*cgroups.Stats, error) { return t.dirs.Stats(t.group) }

// SignalAll signals what is there at this moment.
func (t *task) SignalAll(_ context.Context, sig syscall.Signal) error {
	if sig == syscall.SIGKILL {
		return t.dirs.Kill()
	}
	pids, err := t.dirs.Pids()
	if err != nil {
		return err
	}
	var errs []error
	for _, pid := range pids {
		if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			errs = append(errs, fmt.Errorf("signal process %d: %w", pid, err))
		}
	}
	return errors.Join(errs...)
}

func (t *task) Exec(ctx context.Context, r ExecRequest) (Process, error) {
	err := t.call(ctx, wire.OpExec, wire.Exec{
		ID: r.ID, Process: &r.Process, OpenStdin: r.OpenStdin, ConsoleSize: wire.Size(r.ConsoleSize),
	}, nil)
	if err != nil {
		return nil, err
	}
	return newProcess(t, r.ID, 0), nil
}

func (t *task) LoadExec(ctx context.Context, id string) (Process, error) {
	var st wire.ProcState
	if err := t.call(ctx, wire.OpProcess, wire.Proc{Exec: id}, &st); err != nil {
		return nil, err
	}
	return newProcess(t, id, st.Pid), nil
}

// Delete kills what is left and removes everything. A shim that does not
// answer any more is removed by force.
func (t *task) Delete(ctx context.Context) error {
	if _, err := os.Lstat(t.dir); errors.Is(err, os.ErrNotExist) {
		return nil // repeated
	}
	shim, heldErr := openPidfd(t.shimPid)
	if heldErr == nil {
		defer shim.close()
	}
	err := t.client.Call(ctx, wire.OpDelete, nil, nil)
	t.deleting.Store(err == nil)
	t.driver.forget(t)
	if cerr := t.client.Close(); cerr != nil {
		t.driver.log.Debug("close connection to shim", "container", t.id, "error", cerr)
	}
	// Whoever waits gets the exit from the folder, if not from the shim.
	<-t.over
	if err != nil {
		if !errors.Is(err, wire.ErrClosed) {
			t.driver.log.Warn("the shim could not remove its container; removing it by force", "container", t.id, "error", err)
		}
		return t.driver.Purge(ctx, t.id)
	}
	if err := removeFolder(t.dir, nil); err != nil {
		return err
	}
	if heldErr != nil {
		return nil // it has ended already
	}
	// It ends at once, or stays some seconds for a client that still reads
	// the last output; nothing of the container is left either way.
	ctx, cancel := context.WithTimeout(ctx, lastOutput)
	defer cancel()
	if err := shim.ended(ctx); err != nil {
		t.driver.log.Debug("the shim stays for a client that does not read", "container", t.id)
	}
	return nil
}

// lastOutput is how long Delete waits for a shim whose clients still read.
const lastOutput = time.Second

func (d *Driver) forget(t *task) {
	d.mu.Lock()
	delete(d.tasks, t)
	d.mu.Unlock()
}

// lost is the end of a container whose shim died: what still runs is killed,
// because nobody holds its streams or sees its end, and the exit is recorded.
func (t *task) lost() (Exit, error) {
	// The shim may have written the exit just before it ended.
	if e, err := readExit(t.dir); err == nil {
		return *e, nil
	}
	err := t.dirs.Kill()
	exit := Exit{Code: 137, At: time.Now(), Lost: true}
	if werr := atomicfile.WriteJSON(filepath.Join(t.dir, wire.ExitFile), wire.Exit(exit), 0o600); werr != nil &&
		!errors.Is(werr, os.ErrNotExist) { // purged meanwhile
		t.driver.log.Warn("could not record the end of a container without shim", "container", t.id, "error", werr)
	}
	return exit, err
}
