package runtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/engine/runtime/cgroup"
	"github.com/cleatlabs/cleat/engine/runtime/wire"
	"github.com/cleatlabs/cleat/internal/atomicfile"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

// Driver makes containers and finds them again. It is safe for concurrent use.
type Driver struct {
	cfg Config
	log *slog.Logger

	spares chan *shimProcess
	// reapers are the goroutines that reap shims. A shim outlives the daemon, so
	// Stop does not wait for those; it waits for spares through their ends.
	reapers sync.WaitGroup
	// background is the filling of spares and the waits for processes; Stop
	// ends and awaits it.
	background sync.WaitGroup

	mu      sync.Mutex
	stopped bool
	filling bool
	tasks   map[*task]struct{}
}

// New returns a driver; it starts nothing.
func New(cfg Config, log *slog.Logger) (*Driver, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("runtime: %w", err)
	}
	return &Driver{cfg: cfg, log: log, spares: make(chan *shimProcess, max(0, cfg.Spares)), tasks: map[*task]struct{}{}}, nil
}

// remains is what Purge must know of a container, written to its run folder
// before anything else is made.
type remains struct {
	CgroupsPath string       `json:"cgroupsPath"`
	Rootfs      []wire.Mount `json:"rootfs,omitempty"`
	Shared      bool         `json:"shared,omitempty"`
	Runtime     string       `json:"runtime,omitempty"`
}

// seccompDir, in the folder of the run folders, keeps compiled profiles. No
// container ID begins with a dot.
const seccompDir = ".seccomp"

func (d *Driver) dir(id string) string { return filepath.Join(d.cfg.Run, id) }

func checkID(id string) error {
	if id == "" || id != filepath.Base(id) || strings.HasPrefix(id, ".") {
		return errdefs.Invalidf("invalid container ID %q", id)
	}
	return nil
}

// Create starts a shim and has it make the container, with its init waiting.
// On an error nothing is left.
func (d *Driver) Create(ctx context.Context, r CreateRequest) (Task, error) {
	if err := checkID(r.ID); err != nil {
		return nil, err
	}
	req, err := d.wireCreate(&r)
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(req.Dir, 0o711); err != nil {
		if errors.Is(err, os.ErrExist) {
			return nil, errdefs.Conflictf("container %s exists in the runtime already", r.ID)
		}
		return nil, err
	}
	d.spawn(cgroup.Warm)
	defer d.refillLater()
	t, err := d.create(ctx, req)
	if err != nil {
		if perr := d.Purge(context.WithoutCancel(ctx), r.ID); perr != nil {
			d.log.Warn("could not remove a half-made container", "container", r.ID, "error", perr)
		}
		return nil, fmt.Errorf("failed to create task for container: %w", fromWire(err))
	}
	return t, nil
}

func (d *Driver) wireCreate(r *CreateRequest) (*wire.Create, error) {
	if r.Spec == nil || r.Spec.Root == nil || r.Spec.Linux == nil || r.Spec.Process == nil {
		return nil, errdefs.Invalidf("incomplete OCI spec for container %s", r.ID)
	}
	dir := d.dir(r.ID)
	spec, root, linux := *r.Spec, *r.Spec.Root, *r.Spec.Linux
	root.Path = filepath.Join(dir, wire.RootfsDir)
	if linux.CgroupsPath == "" {
		linux.CgroupsPath = filepath.Join(d.cfg.CgroupParent, r.ID)
	}
	spec.Root, spec.Linux = &root, &linux
	w := &wire.Create{
		Version: wire.Version, ID: r.ID, Dir: dir, Spec: &spec, SharedMounts: r.SharedMounts,
		OpenStdin: r.OpenStdin, StdinOnce: r.StdinOnce, ConsoleSize: wire.Size(r.ConsoleSize),
		Log: r.Log, Runtime: r.Runtime, RuntimeArgs: r.RuntimeArgs, StallTimeout: d.cfg.StallTimeout,
		SeccompCache: d.dir(seccompDir),
	}
	for _, m := range r.Rootfs {
		w.Rootfs = append(w.Rootfs, wire.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	return w, nil
}

func (d *Driver) create(ctx context.Context, req *wire.Create) (Task, error) {
	if err := os.Mkdir(filepath.Join(req.Dir, wire.RootfsDir), 0o755); err != nil {
		return nil, err
	}
	left := remains{CgroupsPath: req.Spec.Linux.CgroupsPath, Shared: req.SharedMounts, Runtime: req.Runtime}
	if req.SharedMounts {
		left.Rootfs = req.Rootfs
	}
	if err := atomicfile.WriteVolatileJSON(filepath.Join(req.Dir, wire.RequestFile), left, 0o600); err != nil {
		return nil, err
	}
	shim, err := d.take()
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(req.Dir, wire.PidFile), strconv.AppendInt(nil, int64(shim.pid), 10), 0o600); err != nil {
		shim.dismiss()
		return nil, err
	}
	var made wire.Created
	if err := shim.client.Call(ctx, wire.OpCreate, req, &made); err != nil {
		shim.dismiss()
		return nil, err
	}
	for _, w := range made.Warnings {
		d.log.Warn("container runs with less than asked for", "container", req.ID, "warning", w)
	}
	return d.newTask(req.ID, shim.client, shim.pid, made.InitPid, req.Spec.Linux.CgroupsPath)
}

// Load connects to the live shim of a container.
func (d *Driver) Load(ctx context.Context, id string) (Task, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	client, hello, err := d.hello(ctx, id)
	if err != nil {
		return nil, errdefs.NotFoundf("container %s has no live shim: %w", id, err)
	}
	var left remains
	if err := atomicfile.ReadJSON(filepath.Join(d.dir(id), wire.RequestFile), &left); err != nil {
		return nil, errors.Join(err, client.Close())
	}
	return d.newTask(id, client, hello.ShimPid, hello.InitPid, left.CgroupsPath)
}

func (d *Driver) hello(ctx context.Context, id string) (*wire.Client, *wire.Hello, error) {
	conn, err := wire.Dial(d.dir(id))
	if err != nil {
		return nil, nil, err
	}
	client := wire.NewClient(conn)
	var h wire.Hello
	if err := client.Call(ctx, wire.OpHello, nil, &h); err != nil {
		return nil, nil, errors.Join(err, client.Close())
	}
	if h.Version != wire.Version || h.ID != id {
		return nil, nil, errors.Join(fmt.Errorf("the shim speaks version %d of the protocol for container %q", h.Version, h.ID), client.Close())
	}
	return client, &h, nil
}

// List reads the run folder: every container that was made and not deleted.
func (d *Driver) List(ctx context.Context) ([]State, error) {
	entries, err := os.ReadDir(d.cfg.Run)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var states []State
	for _, e := range entries {
		if !e.IsDir() || checkID(e.Name()) != nil {
			continue
		}
		s := State{ID: e.Name()}
		if exit, err := readExit(d.dir(s.ID)); err == nil {
			s.Exit = exit
		}
		if client, _, err := d.hello(ctx, s.ID); err == nil {
			s.Live = true
			if err := client.Close(); err != nil {
				d.log.Debug("close connection to shim", "container", s.ID, "error", err)
			}
		}
		states = append(states, s)
	}
	return states, nil
}

func readExit(dir string) (*Exit, error) {
	var w wire.Exit
	if err := atomicfile.ReadJSON(filepath.Join(dir, wire.ExitFile), &w); err != nil {
		return nil, err
	}
	e := Exit(w)
	return &e, nil
}

// Purge removes what a container left, whatever state it is in: the shim, the
// processes, the control group, the mounts and the run folder.
func (d *Driver) Purge(ctx context.Context, id string) error {
	if err := checkID(id); err != nil {
		return err
	}
	dir := d.dir(id)
	if _, err := os.Lstat(dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err := d.killShim(ctx, dir); err != nil {
		return fmt.Errorf("end the shim of container %s: %w", id, err)
	}
	d.release(id)
	var left remains
	err := atomicfile.ReadJSON(filepath.Join(dir, wire.RequestFile), &left)
	if err != nil {
		// Killed before it was written: then nothing else was made.
		left.CgroupsPath = filepath.Join(d.cfg.CgroupParent, id)
	}
	dirs, err := cgroup.Find(left.CgroupsPath)
	if err != nil {
		return err
	}
	if err := dirs.Kill(); err != nil {
		return err
	}
	if err := dirs.Remove(); err != nil {
		return err
	}
	return removeFolder(dir, left.Rootfs)
}

// release lets go of the tasks of a container whose shim has been ended, and
// waits until nothing is written to its run folder any more.
func (d *Driver) release(id string) {
	d.mu.Lock()
	var of []*task
	for t := range d.tasks {
		if t.id == id {
			of = append(of, t)
			delete(d.tasks, t)
		}
	}
	d.mu.Unlock()
	for _, t := range of {
		// Nothing is owed to a dead shim.
		_ = t.client.Close()
		<-t.over
	}
}

// removeFolder deletes a run folder. Nothing may be mounted in it, or the
// deletion would reach what is mounted: what is left there is detached first.
func removeFolder(dir string, mounts []wire.Mount) error {
	root := filepath.Join(dir, wire.RootfsDir)
	for range len(mounts) + 1 {
		err := unix.Unmount(root, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err == nil {
			continue
		}
		if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmount %s: %w", root, err)
		}
		break
	}
	if err := os.Remove(root); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.RemoveAll(dir)
}

// killShim ends the shim of a run folder. Its pid may be somebody else's by
// now, so the process is checked, through a pidfd that pins it: a shim's first
// argument is the folder of the run folders.
func (d *Driver) killShim(ctx context.Context, dir string) error {
	data, err := os.ReadFile(filepath.Join(dir, wire.PidFile))
	if err != nil {
		return nil // it had not been given the container
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid <= 1 {
		return nil
	}
	held, err := openPidfd(pid)
	if err != nil {
		return nil // it has ended
	}
	defer held.close()
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if args := strings.Split(string(cmdline), "\x00"); err != nil || len(args) < 2 || args[1] != d.cfg.Run {
		return nil
	}
	if err := held.kill(); err != nil {
		return nil // it has ended
	}
	// It is ours or the machine's init's to reap.
	return held.ended(ctx)
}

// fromWire gives an error of the shim the class of internal/errdefs.
func fromWire(err error) error {
	var e *wire.Error
	if !errors.As(err, &e) {
		return err
	}
	class, ok := map[wire.Class]error{
		wire.NotFound: errdefs.ErrNotFound, wire.PermissionDenied: errdefs.ErrPermissionDenied,
		wire.Conflict: errdefs.ErrConflict, wire.Invalid: errdefs.ErrInvalidArgument,
		wire.NotImplemented: errdefs.ErrNotImplemented,
	}[e.Class]
	if !ok {
		return err
	}
	return errdefs.As(class, err)
}
