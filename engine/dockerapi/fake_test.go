package dockerapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	apiimage "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	econtainer "github.com/cleatlabs/cleat/engine/container"
	"github.com/cleatlabs/cleat/engine/dockerapi"
	"github.com/cleatlabs/cleat/engine/events"
	"github.com/cleatlabs/cleat/engine/filter"
	"github.com/cleatlabs/cleat/engine/image"
	"github.com/cleatlabs/cleat/engine/logs"
	"github.com/cleatlabs/cleat/engine/runtime"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

// fakes are backends in memory. Each records what it was asked.
type fakes struct {
	mu    sync.Mutex
	asked []string

	containers fakeContainers
	images     fakeImages
	networks   fakeNetworks
	volumes    fakeVolumes
	system     fakeSystem
	bus        *events.Bus
}

func newFakes() *fakes {
	f := &fakes{bus: events.NewBus(time.Now)}
	f.containers = fakeContainers{f: f, process: newCat(false), waiting: make(chan container.WaitResponse, 1), released: make(chan struct{}), registered: make(chan struct{}, 1)}
	f.images.f, f.networks.f, f.volumes.f, f.system.f = f, f, f, f
	return f
}

func (f *fakes) backends() dockerapi.Backends {
	return dockerapi.Backends{
		Containers: &f.containers, Images: &f.images, Networks: &f.networks,
		Volumes: &f.volumes, System: &f.system, Events: f.bus,
	}
}

// ask records a call as "verb arguments-as-JSON".
func (f *fakes) ask(verb string, args ...any) {
	line := verb
	for _, a := range args {
		b, err := json.Marshal(a)
		if err != nil {
			b = fmt.Appendf(nil, "%v", a)
		}
		line += " " + string(b)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, line)
}

// took returns what was recorded and forgets it.
func (f *fakes) took() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := f.asked
	f.asked = nil
	return out
}

// cat is a process that copies its input to its output, framed unless it has a
// terminal; its end of input ends it.
type cat struct {
	tty    bool
	in     *io.PipeReader
	inW    *io.PipeWriter
	out    *io.PipeReader
	outW   *io.PipeWriter
	ended  chan struct{} // the process has ended
	closed chan struct{} // the attachment was closed
	once   sync.Once
}

func newCat(tty bool) *cat {
	c := &cat{tty: tty, ended: make(chan struct{}), closed: make(chan struct{})}
	c.in, c.inW = io.Pipe()
	c.out, c.outW = io.Pipe()
	return c
}

func (c *cat) run() {
	defer close(c.ended)
	buf := make([]byte, 4096)
	for {
		n, err := c.in.Read(buf)
		if n > 0 && c.print(logs.Stdout, buf[:n]) != nil {
			return
		}
		if err != nil {
			_ = c.outW.Close() // a pipe's Close does not fail
			return
		}
	}
}

func (c *cat) print(stream logs.Stream, b []byte) error {
	if !c.tty {
		head := []byte{byte(stream), 0, 0, 0, 0, 0, byte(len(b) >> 8), byte(len(b))}
		b = append(head, b...)
	}
	_, err := c.outW.Write(b)
	return err
}

func (c *cat) Output() io.Reader { return c.out }
func (c *cat) Input() io.Writer  { return c.inW }
func (c *cat) CloseInput() error { return c.inW.Close() }
func (c *cat) Close() error {
	c.once.Do(func() {
		close(c.closed)
		_ = c.inW.CloseWithError(io.ErrClosedPipe)
		_ = c.out.CloseWithError(io.ErrClosedPipe)
	})
	return nil
}

type fakeContainers struct {
	dockerapi.Containers // panics for what is not overridden
	f                    *fakes

	process    *cat
	waiting    chan container.WaitResponse
	registered chan struct{}
	released   chan struct{} // closed when a wait's context ended
	lines      []logs.Entry
	logsErr    error
	execErr    error
	execInfo   container.ExecInspectResponse
	copyErr    error
	statsErr   error
	failStart  error
	follow     chan struct{} // closed when a following reader's context ended
	blocked    chan struct{} // Stop waits for it if not nil
	stopCtx    context.Context
}

func missing(ref string) error {
	if ref == "missing" {
		return errdefs.WithHint(errdefs.NotFoundf("No such container: missing"), "list them with docker ps -a")
	}
	return nil
}

func (c *fakeContainers) Create(_ context.Context, o econtainer.CreateOptions) (container.CreateResponse, error) {
	c.f.ask("create", o.Name, o.Config.Image, o.HostConfig.NetworkMode, o.Platform)
	return container.CreateResponse{ID: "c0ffee"}, missing(o.Config.Image)
}

func (c *fakeContainers) Start(_ context.Context, ref string) error {
	c.f.ask("start", ref)
	if c.failStart != nil {
		return c.failStart
	}
	return missing(ref)
}

func (c *fakeContainers) Stop(ctx context.Context, ref string, o econtainer.StopOptions) error {
	c.f.ask("stop", ref, o)
	if c.blocked != nil {
		c.stopCtx = ctx
		c.registered <- struct{}{}
		select {
		case <-c.blocked:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return missing(ref)
}

func (c *fakeContainers) Restart(_ context.Context, ref string, o econtainer.StopOptions) error {
	c.f.ask("restart", ref, o)
	return missing(ref)
}

func (c *fakeContainers) Kill(_ context.Context, ref, sig string) error {
	c.f.ask("kill", ref, sig)
	return missing(ref)
}

func (c *fakeContainers) Pause(_ context.Context, ref string) error {
	c.f.ask("pause", ref)
	return errdefs.Conflictf("Container %s is not running", ref)
}

func (c *fakeContainers) Unpause(_ context.Context, ref string) error {
	c.f.ask("unpause", ref)
	return nil
}

func (c *fakeContainers) Wait(ctx context.Context, ref string, cond container.WaitCondition) (<-chan container.WaitResponse, error) {
	c.f.ask("wait", ref, cond)
	if err := missing(ref); err != nil {
		return nil, err
	}
	out := make(chan container.WaitResponse, 1)
	go func() {
		defer close(out)
		select {
		case r := <-c.waiting:
			out <- r
		case <-ctx.Done():
			close(c.released)
		}
	}()
	return out, nil
}

func (c *fakeContainers) Remove(_ context.Context, ref string, o econtainer.RemoveOptions) error {
	c.f.ask("remove", ref, o)
	if ref == "panic" {
		panic("boom")
	}
	return missing(ref)
}

func (c *fakeContainers) Rename(_ context.Context, ref, name string) error {
	c.f.ask("rename", ref, name)
	return nil
}

func (c *fakeContainers) Update(_ context.Context, ref string, u container.UpdateConfig) (container.UpdateResponse, error) {
	c.f.ask("update", ref, u.Memory, u.PidsLimit)
	return container.UpdateResponse{Warnings: []string{"w"}}, nil
}

func (c *fakeContainers) Resize(_ context.Context, ref string, size runtime.Size) error {
	c.f.ask("resize", ref, size)
	return nil
}

func (c *fakeContainers) Attach(_ context.Context, ref string, o runtime.AttachOptions) (runtime.Attachment, bool, error) {
	c.f.ask("attach", ref, o)
	if err := missing(ref); err != nil {
		return nil, false, err
	}
	return c.process, c.process.tty, nil
}

func (c *fakeContainers) Logs(ctx context.Context, ref string, o econtainer.LogsOptions, emit func(logs.Entry) error) error {
	c.f.ask("logs", ref, o.Tail, o.Follow, o.Since.Unix())
	for _, e := range c.lines {
		if e.Stream == logs.Stdout && !o.Stdout || e.Stream == logs.Stderr && !o.Stderr {
			continue
		}
		if err := emit(e); err != nil {
			return err
		}
	}
	if o.Follow && c.follow != nil {
		<-ctx.Done()
		close(c.follow)
		return ctx.Err()
	}
	return c.logsErr
}

func (c *fakeContainers) Tty(_ context.Context, ref string) (bool, error) {
	return c.process.tty, missing(ref)
}

func (c *fakeContainers) Inspect(_ context.Context, ref string, size bool) (*container.InspectResponse, error) {
	c.f.ask("inspect", ref, size)
	if err := missing(ref); err != nil {
		return nil, err
	}
	return &container.InspectResponse{
		ID: "0123456789abcdef0123", Name: "/web", Driver: "overlayfs", State: &container.State{Status: "running"},
		Config: &container.Config{Hostname: "host1", Image: "busybox"}, HostConfig: &container.HostConfig{},
		ImageManifestDescriptor: &ocispec.Descriptor{Size: 1},
		NetworkSettings: &container.NetworkSettings{SandboxID: "s", Networks: map[string]*network.EndpointSettings{
			"bridge": {IPAddress: netip.MustParseAddr("172.17.0.2"), IPPrefixLen: 16, Gateway: netip.MustParseAddr("172.17.0.1"), MacAddress: network.HardwareAddr{2, 0, 0, 0, 0, 1}},
			"mine":   {Aliases: []string{"db"}},
		}},
	}, nil
}

func (c *fakeContainers) List(_ context.Context, o econtainer.ListOptions) ([]container.Summary, error) {
	c.f.ask("list", o)
	return []container.Summary{{ID: "c0ffee", Names: []string{"/web"}, Health: &container.HealthSummary{}}}, nil
}

func (c *fakeContainers) Top(_ context.Context, ref, args string) (container.TopResponse, error) {
	c.f.ask("top", ref, args)
	return container.TopResponse{Titles: []string{"PID"}, Processes: [][]string{{"1"}}}, nil
}

func (c *fakeContainers) Stats(_ context.Context, ref string, stream, oneShot bool, emit func(*container.StatsResponse) error) error {
	c.f.ask("stats", ref, stream, oneShot)
	if err := missing(ref); err != nil {
		return err
	}
	n := 1
	if stream {
		n = 3
	}
	for i := range n {
		if err := emit(&container.StatsResponse{ID: "c0ffee", NumProcs: uint32(i), OSType: "linux"}); err != nil {
			return err
		}
	}
	return c.statsErr
}

func (c *fakeContainers) Changes(context.Context, string) ([]container.FilesystemChange, error) {
	return []container.FilesystemChange{{Kind: container.ChangeAdd, Path: "/new"}}, nil
}

func (c *fakeContainers) Export(_ context.Context, ref string, w io.Writer) error {
	if err := missing(ref); err != nil {
		return err
	}
	_, err := io.WriteString(w, "tar of "+ref)
	if err == nil {
		err = c.copyErr
	}
	return err
}

func (c *fakeContainers) Commit(_ context.Context, ref string, o econtainer.CommitOptions) (string, error) {
	c.f.ask("commit", ref, o.Repo, o.Tag, o.NoPause, o.Config != nil, o.Changes)
	return "sha256:1", nil
}

var aStat = container.PathStat{Name: "f", Size: 3, Mode: 0o644}

func (c *fakeContainers) StatPath(_ context.Context, ref, path string) (container.PathStat, error) {
	c.f.ask("stat", ref, path)
	return aStat, missing(ref)
}

func (c *fakeContainers) CopyFrom(_ context.Context, ref, path string, begin func(container.PathStat) io.Writer) error {
	if err := missing(ref); err != nil {
		return err
	}
	_, err := io.WriteString(begin(aStat), "tar")
	if err == nil {
		err = c.copyErr
	}
	return err
}

func (c *fakeContainers) CopyTo(_ context.Context, ref, path string, o econtainer.CopyOptions, tar io.Reader) error {
	b, err := io.ReadAll(tar)
	c.f.ask("copyto", ref, path, o, string(b))
	return err
}

func (c *fakeContainers) Prune(_ context.Context, a filter.Args) (container.PruneReport, error) {
	c.f.ask("prune", a)
	return container.PruneReport{ContainersDeleted: []string{"x"}, SpaceReclaimed: 7}, nil
}

func (c *fakeContainers) ConnectNetwork(_ context.Context, n, ref string, e *network.EndpointSettings) error {
	c.f.ask("connect", n, ref, e != nil)
	return nil
}

func (c *fakeContainers) DisconnectNetwork(_ context.Context, n, ref string, force bool) error {
	c.f.ask("disconnect", n, ref, force)
	return nil
}

func (c *fakeContainers) ExecCreate(_ context.Context, ref string, r container.ExecCreateRequest) (string, error) {
	c.f.ask("execcreate", ref, r.Cmd, r.Tty)
	return "e1", missing(ref)
}

func (c *fakeContainers) ExecStart(_ context.Context, id string, r container.ExecStartRequest, attach bool) (runtime.Attachment, bool, error) {
	c.f.ask("execstart", id, r.ConsoleSize, attach)
	if c.execErr != nil || !attach {
		return nil, r.Tty, c.execErr
	}
	return c.process, c.process.tty, nil
}

func (c *fakeContainers) ExecInspect(_ context.Context, id string) (*container.ExecInspectResponse, error) {
	if id == "missing" {
		return nil, errdefs.NotFoundf("No such exec instance: missing")
	}
	info := c.execInfo
	info.ID = id
	return &info, nil
}

func (c *fakeContainers) ExecResize(_ context.Context, id string, size runtime.Size) error {
	c.f.ask("execresize", id, size)
	return nil
}

type fakeImages struct {
	f       *fakes
	pullErr error // after a first message
	early   error // before any
}

func (i *fakeImages) work(p image.Progress) error {
	if i.early != nil {
		return i.early
	}
	if p != nil {
		p(jsonstream.Message{ID: "layer", Status: "Downloading", Progress: &jsonstream.Progress{Current: 1, Total: 2}})
		p(jsonstream.Message{Stream: "Loaded image: x\n"})
	}
	return i.pullErr
}

func (i *fakeImages) Pull(_ context.Context, o image.PullOptions) error {
	i.f.ask("pull", o.Ref, o.AllTags, o.Platform, o.Auth)
	return i.work(o.Progress)
}

func (i *fakeImages) Push(_ context.Context, o image.PushOptions) error {
	i.f.ask("push", o.Ref, o.AllTags, o.Platform, o.Auth)
	return i.work(o.Progress)
}

func (i *fakeImages) Tag(_ context.Context, source, target string) error {
	i.f.ask("tag", source, target)
	return nil
}

func (i *fakeImages) Remove(_ context.Context, ref string, o image.RemoveOptions) ([]apiimage.DeleteResponse, error) {
	i.f.ask("rmi", ref, o)
	return []apiimage.DeleteResponse{{Untagged: ref}}, nil
}

func (i *fakeImages) List(_ context.Context, o image.ListOptions) ([]apiimage.Summary, error) {
	i.f.ask("images", o)
	return []apiimage.Summary{{ID: "sha256:1", Size: 9, Containers: 2, Descriptor: &ocispec.Descriptor{}}}, nil
}

func (i *fakeImages) Inspect(_ context.Context, ref string, p *ocispec.Platform, manifests bool) (*apiimage.InspectResponse, error) {
	i.f.ask("imageinspect", ref, p, manifests)
	if ref == "missing" {
		return nil, errdefs.NotFoundf("No such image: missing")
	}
	return &apiimage.InspectResponse{ID: "sha256:1", Size: 9, Descriptor: &ocispec.Descriptor{}}, nil
}

func (i *fakeImages) History(_ context.Context, ref string, p *ocispec.Platform) ([]apiimage.HistoryResponseItem, error) {
	i.f.ask("history", ref, p)
	return []apiimage.HistoryResponseItem{{ID: "sha256:1"}}, nil
}

func (i *fakeImages) Save(_ context.Context, refs []string, p []ocispec.Platform, w io.Writer) error {
	i.f.ask("save", refs, p)
	if i.early != nil {
		return i.early
	}
	_, err := io.WriteString(w, "image tar")
	return err
}

func (i *fakeImages) Load(_ context.Context, tar io.Reader, p []ocispec.Platform, progress image.Progress) error {
	b, err := io.ReadAll(tar)
	i.f.ask("load", string(b), p)
	if err != nil {
		return err
	}
	return i.work(progress)
}

func (i *fakeImages) Import(_ context.Context, tar io.Reader, o image.ImportOptions) (string, error) {
	b, err := io.ReadAll(tar)
	i.f.ask("import", string(b), o.Ref, o.Message, o.Changes, o.Platform)
	return "sha256:2", err
}

func (i *fakeImages) Prune(_ context.Context, a filter.Args) (apiimage.PruneReport, error) {
	i.f.ask("imageprune", a)
	return apiimage.PruneReport{SpaceReclaimed: 5}, nil
}

func (i *fakeImages) Login(_ context.Context, a registry.AuthConfig) (registry.AuthResponse, error) {
	i.f.ask("login", a.Username, a.ServerAddress)
	if a.Password == "wrong" {
		return registry.AuthResponse{}, errdefs.Unauthenticatedf("incorrect username or password")
	}
	return registry.AuthResponse{}, nil
}

func (i *fakeImages) Distribution(_ context.Context, ref string, a *registry.AuthConfig) (registry.DistributionInspect, error) {
	i.f.ask("distribution", ref, a)
	return registry.DistributionInspect{Descriptor: ocispec.Descriptor{Size: 4}}, nil
}

type fakeNetworks struct{ f *fakes }

func (n *fakeNetworks) one() network.Inspect {
	return network.Inspect{Network: network.Network{Name: "mine", ID: "n1", Scope: "local"}, Status: &network.Status{}}
}

func (n *fakeNetworks) Create(_ context.Context, r network.CreateRequest) (network.CreateResponse, error) {
	n.f.ask("netcreate", r.Name, r.EnableIPv4)
	return network.CreateResponse{ID: "n1"}, nil
}

func (n *fakeNetworks) Inspect(_ context.Context, ref string) (network.Inspect, error) {
	if ref == "missing" {
		return network.Inspect{}, errdefs.NotFoundf("network missing not found")
	}
	return n.one(), nil
}

func (n *fakeNetworks) List(_ context.Context, a filter.Args) ([]network.Inspect, error) {
	n.f.ask("nets", a)
	return []network.Inspect{n.one()}, nil
}

func (n *fakeNetworks) Remove(_ context.Context, ref string) error {
	n.f.ask("netrm", ref)
	return errdefs.Forbiddenf("bridge is a pre-defined network and cannot be removed")
}

func (n *fakeNetworks) Prune(_ context.Context, a filter.Args) (network.PruneReport, error) {
	n.f.ask("netprune", a)
	return network.PruneReport{NetworksDeleted: []string{"n"}}, nil
}

type fakeVolumes struct {
	f         *fakes
	exportErr error
}

func (v *fakeVolumes) Create(_ context.Context, r volume.CreateRequest) (volume.Volume, error) {
	v.f.ask("volcreate", r)
	return volume.Volume{Name: r.Name, Driver: "local"}, nil
}

func (v *fakeVolumes) Inspect(_ context.Context, name string) (volume.Volume, error) {
	if name == "missing" {
		return volume.Volume{}, errdefs.NotFoundf("get missing: no such volume")
	}
	return volume.Volume{Name: name}, nil
}

func (v *fakeVolumes) List(_ context.Context, a filter.Args) (volume.ListResponse, error) {
	v.f.ask("volumes", a)
	return volume.ListResponse{}, nil
}

func (v *fakeVolumes) Remove(_ context.Context, name string, force bool) error {
	v.f.ask("volrm", name, force)
	return nil
}

func (v *fakeVolumes) Prune(_ context.Context, a filter.Args) (volume.PruneReport, error) {
	v.f.ask("volprune", a)
	return volume.PruneReport{}, nil
}

func (v *fakeVolumes) Export(_ context.Context, name string, w io.Writer) error {
	_, err := io.WriteString(w, "tar of "+name)
	if err == nil {
		err = v.exportErr
	}
	return err
}

func (v *fakeVolumes) Import(_ context.Context, name string, tar io.Reader) error {
	b, err := io.ReadAll(tar)
	v.f.ask("volimport", name, string(b))
	return err
}

func (v *fakeVolumes) Clone(_ context.Context, source, target string) (volume.Volume, error) {
	v.f.ask("clone", source, target)
	return volume.Volume{Name: target}, nil
}

type fakeSystem struct{ f *fakes }

func (s *fakeSystem) Info(context.Context) (*system.Info, error) {
	return &system.Info{ID: "i", Containers: 3, RuncCommit: system.Commit{ID: "r"}, NRI: &system.NRIInfo{}}, nil
}

func (s *fakeSystem) Version(context.Context) (system.VersionResponse, error) {
	return system.VersionResponse{Version: "1.2.3", Components: []system.ComponentVersion{{Name: "Engine", Details: map[string]string{}}}}, nil
}

func (s *fakeSystem) DiskUsage(_ context.Context, kinds []string, verbose bool) (*dockerapi.DiskUsage, error) {
	s.f.ask("df", kinds, verbose)
	du := &dockerapi.DiskUsage{
		Images:     &apiimage.DiskUsage{TotalCount: 1, TotalSize: 9},
		Containers: &container.DiskUsage{TotalCount: 1, TotalSize: 2},
		Volumes:    &volume.DiskUsage{},
		BuildCache: &build.DiskUsage{},
	}
	if verbose {
		du.Images.Items = []apiimage.Summary{{ID: "sha256:1", Size: 9, Containers: 1}}
		du.Containers.Items = []container.Summary{{ID: "c", SizeRw: 2, State: container.StateRunning}}
	}
	return du, nil
}

func (s *fakeSystem) Doctor(context.Context) (any, error) {
	return map[string]string{"cgroup": "hybrid"}, nil
}

// demux splits framed output.
func demux(t testing.TB, r io.Reader) (out, errOut string) {
	t.Helper()
	var o, e writer
	if _, err := stdcopy.StdCopy(&o, &e, r); err != nil {
		t.Fatalf("demultiplex: %v", err)
	}
	return string(o), string(e)
}

type writer []byte

func (w *writer) Write(b []byte) (int, error) {
	*w = append(*w, b...)
	return len(b), nil
}
