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
	// wg counts the goroutines that reap shims. A shim outlives the daemon, so
	// Stop does not wait for those; it waits for spares through their ends.
	wg sync.WaitGroup

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
	r.Spec.Root.Path = filepath.Join(dir, wire.RootfsDir)
	if r.Spec.Linux.CgroupsPath == "" {
		r.Spec.Linux.CgroupsPath = filepath.Join(d.cfg.CgroupParent, r.ID)
	}
	w := &wire.Create{
		Version: wire.Version, ID: r.ID, Dir: dir, Spec: r.Spec, SharedMounts: r.SharedMounts,
		OpenStdin: r.OpenStdin, StdinOnce: r.StdinOnce, ConsoleSize: wire.Size(r.ConsoleSize),
		Log: r.Log, Runtime: r.Runtime, RuntimeArgs: r.RuntimeArgs, StallTimeout: d.cfg.StallTimeout,
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
		if !e.IsDir() {
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
func (d *Driver) Purge(_ context.Context, id string) error {
	if err := checkID(id); err != nil {
		return err
	}
	dir := d.dir(id)
	if _, err := os.Lstat(dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	d.killShim(dir)
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
// now, so the program is checked, through a pidfd that pins the process.
func (d *Driver) killShim(dir string) {
	data, err := os.ReadFile(filepath.Join(dir, wire.PidFile))
	if err != nil {
		return
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid <= 1 {
		return
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !strings.HasPrefix(string(cmdline), d.cfg.ShimPath+"\x00") {
		return
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		return
	}
	// Readable when it has ended; it is ours or init's to reap.
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 5000)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
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
