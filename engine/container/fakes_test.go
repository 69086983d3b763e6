package container

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	apinetwork "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/volume"
	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cleatlabs/cleat/engine/image"
	"github.com/cleatlabs/cleat/engine/logs"
	"github.com/cleatlabs/cleat/engine/network"
	"github.com/cleatlabs/cleat/engine/runtime"
	"github.com/cleatlabs/cleat/internal/clock"
	"github.com/cleatlabs/cleat/internal/errdefs"
	"github.com/cleatlabs/cleat/internal/testx"
)

// world is the machine of a test: what outlives a Service.
type world struct {
	t      testing.TB
	root   string
	rootfs string
	clock  *clock.Fake

	mu      sync.Mutex
	tasks   map[string]*fakeTask
	layers  map[string]bool
	boxes   map[string]bool
	holds   map[string]int
	mounted map[string]int
	events  []string
	seen    chan struct{} // gets a value for each event, if there is room

	// Hooks are called, when set, before the runtime does the thing.
	onCreate func(*specs.Spec)
	onExec   func(containerID string)
	onDelete func(containerID string)
}

func newWorld(t testing.TB) *world {
	testx.Root(t)
	w := &world{
		t: t, root: t.TempDir(), rootfs: t.TempDir(), clock: clock.NewFake(time.Unix(1_800_000_000, 0)),
		tasks: map[string]*fakeTask{}, layers: map[string]bool{}, boxes: map[string]bool{},
		holds: map[string]int{}, mounted: map[string]int{}, seen: make(chan struct{}, 1),
	}
	must(t, os.MkdirAll(filepath.Join(w.rootfs, "etc"), 0o755))
	must(t, os.WriteFile(filepath.Join(w.rootfs, "etc/passwd"), []byte("root:x:0:0::/root:/bin/sh\nbob:x:7:8::/home/bob:/bin/sh\n"), 0o644))
	return w
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// service starts a Service on the world, as a daemon does.
func (w *world) service() *Service {
	w.t.Helper()
	s, err := New(Config{Root: w.root}, Deps{
		Runtime: (*fakeRuntime)(w), Images: (*fakeImages)(w), Networks: (*fakeNetworks)(w), Volumes: (*fakeVolumes)(w),
		Events: w, Logs: fakeLogs{}, Clock: w.clock, Facts: testFacts(),
	}, slog.New(slog.DiscardHandler))
	must(w.t, err)
	must(w.t, s.Restore(context.Background()))
	w.t.Cleanup(func() { must(w.t, s.Shutdown(context.Background())) })
	return s
}

func testFacts() *Facts {
	return &Facts{
		Controllers: map[string]bool{"memory": true, "cpu": true, "cpuset": true, "pids": true, "blkio": true},
		SwapLimit:   true, CanRaiseLimits: true, CPUs: 4, MemoryTotal: 8 << 30, Capabilities: capabilityNames(),
	}
}

func (w *world) Publish(typ events.Type, a events.Action, id string, attrs map[string]string) {
	w.mu.Lock()
	w.events = append(w.events, string(a))
	w.mu.Unlock()
	select {
	case w.seen <- struct{}{}:
	default:
	}
}

func (w *world) eventList() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.events...)
}

func (w *world) task(id string) *fakeTask {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.tasks[id]
}

func (w *world) leftovers() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.tasks) + len(w.layers) + len(w.boxes); n > 0 {
		return fmt.Sprintf("tasks %v layers %v sandboxes %v", w.tasks, w.layers, w.boxes)
	}
	for name, n := range w.mounted {
		if n != 0 {
			return fmt.Sprintf("volume %s is mounted %d times", name, n)
		}
	}
	return ""
}

type fakeRuntime world

func (r *fakeRuntime) Create(_ context.Context, q runtime.CreateRequest) (runtime.Task, error) {
	w := (*world)(r)
	if w.onCreate != nil {
		w.onCreate(q.Spec)
	}
	t := &fakeTask{fakeProcess: newFakeProcess(q.Spec.Process), w: w, id: q.ID, spec: q.Spec}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.tasks[q.ID] != nil {
		return nil, errdefs.Conflictf("exists")
	}
	w.tasks[q.ID] = t
	return t, nil
}

func (r *fakeRuntime) Load(_ context.Context, id string) (runtime.Task, error) {
	if t := (*world)(r).task(id); t != nil {
		return t, nil
	}
	return nil, errdefs.NotFoundf("no shim")
}

func (r *fakeRuntime) List(context.Context) ([]runtime.State, error) {
	w := (*world)(r)
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []runtime.State
	for id, t := range w.tasks {
		st := runtime.State{ID: id, Live: true}
		select {
		case <-t.ended:
			e := t.exit
			st.Exit = &e
		default:
		}
		all = append(all, st)
	}
	return all, nil
}

func (r *fakeRuntime) Purge(_ context.Context, id string) error {
	w := (*world)(r)
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.tasks, id)
	return nil
}

// fakeProcess runs until it is told to end. Programs: "missing" and "noexec"
// cannot be started, "true" and "false" end at once, "deaf" ignores SIGTERM.
type fakeProcess struct {
	spec  *specs.Process
	once  sync.Once
	ended chan struct{}
	exit  runtime.Exit
	outR  *io.PipeReader
	outW  *io.PipeWriter
}

func newFakeProcess(p *specs.Process) *fakeProcess {
	f := &fakeProcess{spec: p, ended: make(chan struct{})}
	f.outR, f.outW = io.Pipe()
	return f
}

func (p *fakeProcess) end(code int, at time.Time) {
	p.once.Do(func() {
		p.exit = runtime.Exit{Code: code, At: at}
		close(p.ended)
		p.outW.Close()
	})
}

func (p *fakeProcess) program() string { return p.spec.Args[0] }
func (p *fakeProcess) Pid() int        { return os.Getpid() }

func (p *fakeProcess) start(now time.Time) error {
	switch p.program() {
	case "missing":
		return errdefs.NotFoundf("exec: \"missing\": executable file not found in $PATH")
	case "noexec":
		return errdefs.Forbiddenf("exec: \"noexec\": permission denied")
	case "true":
		p.end(0, now)
	case "false":
		p.end(1, now)
	}
	return nil
}

func (p *fakeProcess) Attach(context.Context, runtime.AttachOptions) (runtime.Attachment, error) {
	return fakeAttachment{p}, nil
}
func (p *fakeProcess) Resize(context.Context, runtime.Size) error { return nil }
func (p *fakeProcess) Wait(ctx context.Context) (runtime.Exit, error) {
	select {
	case <-p.ended:
		return p.exit, nil
	case <-ctx.Done():
		return runtime.Exit{}, ctx.Err()
	}
}

type fakeAttachment struct{ p *fakeProcess }

func (a fakeAttachment) Output() io.Reader { return a.p.outR }
func (a fakeAttachment) Input() io.Writer  { return io.Discard }
func (a fakeAttachment) CloseInput() error { return nil }
func (a fakeAttachment) Close() error      { return nil }

type fakeTask struct {
	*fakeProcess
	w      *world
	id     string
	spec   *specs.Spec
	frozen atomic.Bool
}

func (t *fakeTask) ID() string                  { return t.id }
func (t *fakeTask) ShimPid() int                { return 1 }
func (t *fakeTask) Root() string                { return t.w.rootfs }
func (t *fakeTask) Start(context.Context) error { return t.start(t.w.clock.Now()) }
func (t *fakeTask) Signal(_ context.Context, sig syscall.Signal) error {
	if sig == syscall.SIGKILL || t.program() != "deaf" {
		t.end(128+int(sig), t.w.clock.Now())
	}
	return nil
}
func (t *fakeTask) SignalAll(ctx context.Context, sig syscall.Signal) error {
	return t.Signal(ctx, sig)
}
func (t *fakeTask) Pause(context.Context) error {
	if t.frozen.Swap(true) {
		return errdefs.Conflictf("already frozen")
	}
	return nil
}
func (t *fakeTask) Resume(context.Context) error {
	if !t.frozen.Swap(false) {
		return errdefs.Conflictf("not frozen")
	}
	return nil
}
func (t *fakeTask) Update(context.Context, *specs.LinuxResources) error { return nil }
func (t *fakeTask) Stats(context.Context) (*cgroups.Stats, error)       { return cgroups.NewStats(), nil }
func (t *fakeTask) Pids(context.Context) ([]int, error)                 { return []int{os.Getpid()}, nil }
func (t *fakeTask) LoadExec(context.Context, string) (runtime.Process, error) {
	return nil, errdefs.NotFoundf("none")
}
func (t *fakeTask) Exec(_ context.Context, q runtime.ExecRequest) (runtime.Process, error) {
	if t.w.onExec != nil {
		t.w.onExec(t.id)
	}
	return &fakeExec{newFakeProcess(&q.Process), t.w}, nil
}
func (t *fakeTask) Delete(context.Context) error {
	if t.w.onDelete != nil {
		t.w.onDelete(t.id)
	}
	t.end(137, t.w.clock.Now())
	t.w.mu.Lock()
	defer t.w.mu.Unlock()
	if t.w.tasks[t.id] == t {
		delete(t.w.tasks, t.id)
	}
	return nil
}

type fakeExec struct {
	*fakeProcess
	w *world
}

func (e *fakeExec) Start(context.Context) error { return e.start(e.w.clock.Now()) }
func (e *fakeExec) Signal(_ context.Context, sig syscall.Signal) error {
	e.end(128+int(sig), e.w.clock.Now())
	return nil
}

type fakeImages world

func (i *fakeImages) Get(_ context.Context, ref string, _ *ocispec.Platform) (*image.Image, error) {
	if ref == "" || ref == "absent" {
		return nil, errdefs.NotFoundf("No such image: %s", ref)
	}
	img := &image.Image{ID: digest.FromString("demo"), ChainID: digest.FromString("chain")}
	img.Config.Config.Cmd = []string{"sleep"}
	img.Config.Platform = ocispec.Platform{OS: "linux", Architecture: "amd64"}
	return img, nil
}
func (i *fakeImages) Commit(context.Context, image.CommitOptions) (digest.Digest, error) {
	return digest.FromString("committed"), nil
}
func (i *fakeImages) PrepareSnapshot(_ context.Context, key string, _ *image.Image) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.layers[key] = true
	return nil
}
func (i *fakeImages) SnapshotMounts(context.Context, string) ([]mount.Mount, error) {
	return []mount.Mount{{Type: "bind", Source: i.rootfs, Options: []string{"rbind", "rw"}}}, nil
}
func (i *fakeImages) RemoveSnapshot(_ context.Context, key string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.layers, key)
	return nil
}
func (i *fakeImages) SnapshotUsage(context.Context, string) (snapshots.Usage, int64, error) {
	return snapshots.Usage{Size: 7}, 77, nil
}
func (i *fakeImages) SnapshotKeys(context.Context) ([]string, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	var keys []string
	for k := range i.layers {
		keys = append(keys, k)
	}
	return keys, nil
}
func (i *fakeImages) Changes(context.Context, string) ([]container.FilesystemChange, error) {
	return nil, nil
}
func (i *fakeImages) Snapshotter() string { return "fake" }

type fakeNetworks world

func (n *fakeNetworks) Open(_ context.Context, r network.SandboxRequest) (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.boxes[r.ID] = true
	return "/run/netns/" + r.ID, nil
}
func (n *fakeNetworks) Setup(_ context.Context, r network.SandboxRequest) (*network.Sandbox, error) {
	if _, bad := r.Endpoints["broken"]; bad {
		return nil, errdefs.Unavailablef("no addresses left")
	}
	return &network.Sandbox{ID: r.ID, Endpoints: r.Endpoints, Hosts: []byte("127.0.0.1 localhost\n"), ResolvConf: []byte("nameserver 127.0.0.11\n")}, nil
}
func (n *fakeNetworks) Close(_ context.Context, id string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.boxes, id)
	return nil
}
func (n *fakeNetworks) Connect(_ context.Context, id, ref string, e *apinetwork.EndpointSettings) (*network.Sandbox, error) {
	return &network.Sandbox{ID: id, Endpoints: map[string]*apinetwork.EndpointSettings{ref: e}}, nil
}
func (n *fakeNetworks) Disconnect(_ context.Context, id, _ string, _ bool) (*network.Sandbox, error) {
	return &network.Sandbox{ID: id, Endpoints: map[string]*apinetwork.EndpointSettings{}}, nil
}
func (n *fakeNetworks) Rename(context.Context, string, string) error { return nil }
func (n *fakeNetworks) Restore(_ context.Context, keep []string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.boxes)
	for _, id := range keep {
		n.boxes[id] = true
	}
	return nil
}
func (n *fakeNetworks) Validate(context.Context, map[string]*apinetwork.EndpointSettings) error {
	return nil
}
func (n *fakeNetworks) Inspect(_ context.Context, ref string) (apinetwork.Inspect, error) {
	return apinetwork.Inspect{Network: apinetwork.Network{Name: ref, ID: digest.FromString(ref).Encoded()}}, nil
}

type fakeVolumes world

func (v *fakeVolumes) dir(name string) string { return filepath.Join(v.rootfs, "..", "vol-"+name) }
func (v *fakeVolumes) Create(_ context.Context, r volume.CreateRequest) (volume.Volume, error) {
	return volume.Volume{Name: r.Name, Driver: "local", Mountpoint: v.dir(r.Name)}, os.MkdirAll(v.dir(r.Name), 0o755)
}
func (v *fakeVolumes) Inspect(_ context.Context, name string) (volume.Volume, error) {
	return volume.Volume{Name: name}, nil
}
func (v *fakeVolumes) Remove(_ context.Context, name string, _ bool) error {
	return os.RemoveAll(v.dir(name))
}
func (v *fakeVolumes) Mount(_ context.Context, name, _ string) (string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mounted[name]++
	return v.dir(name), nil
}
func (v *fakeVolumes) Unmount(_ context.Context, name, _ string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mounted[name] = max(0, v.mounted[name]-1)
	return nil
}
func (v *fakeVolumes) Hold(name, user string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.holds[name+"/"+user] = 1
}
func (v *fakeVolumes) Release(name, user string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.holds, name+"/"+user)
}

type fakeLogs struct{}

func (fakeLogs) Read(context.Context, logs.Config, logs.ReadOptions, func(logs.Entry) error) error {
	return nil
}
