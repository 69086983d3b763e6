package container

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/engine/logs"
	"github.com/cleatlabs/cleat/engine/runtime"
	"github.com/cleatlabs/cleat/engine/runtime/cgroup"
	"github.com/cleatlabs/cleat/internal/testx"
)

// realImages gives each container an overlay on one folder with busybox.
type realImages struct {
	*fakeImages
	base, layers string
}

func (i *realImages) SnapshotMounts(_ context.Context, key string) ([]mount.Mount, error) {
	dir := filepath.Join(i.layers, key)
	for _, d := range []string{"u", "w"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	return []mount.Mount{{Type: "overlay", Source: "overlay", Options: []string{
		"workdir=" + dir + "/w", "upperdir=" + dir + "/u", "lowerdir=" + i.base,
	}}}, nil
}

// daemon is a Service with the real runtime; stop ends it and leaves the containers.
type daemon struct {
	*Service
	stop func()
}

type realWorld struct {
	*world
	run, parent string
}

func newRealWorld(t *testing.T) *realWorld {
	w := &realWorld{world: newWorld(t), run: testx.TempRun(t), parent: "/cleat-test-" + testx.SafeName(t)}
	busybox, err := os.ReadFile(testx.Busybox(t))
	must(t, err)
	for _, d := range []string{"bin", "proc", "dev", "sys", "tmp"} {
		must(t, os.MkdirAll(filepath.Join(w.rootfs, d), 0o755))
	}
	must(t, os.WriteFile(filepath.Join(w.rootfs, "bin/busybox"), busybox, 0o755))
	for _, a := range strings.Fields("sh true false echo cat sleep id mount test hostname") {
		must(t, os.Symlink("busybox", filepath.Join(w.rootfs, "bin", a)))
	}
	t.Cleanup(func() {
		group, err := cgroup.Find(w.parent)
		must(t, err)
		must(t, group.Remove())
	})
	return w
}

func (w *realWorld) daemon() *daemon {
	t := w.t
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	driver, err := runtime.New(runtime.Config{
		Run: w.run, ShimPath: testx.BuildBinary(t, "./cmd/cleat-shim", "seccomp,netgo,osusergo", true), CgroupParent: w.parent,
	}, log)
	must(t, err)
	must(t, driver.Start(t.Context()))
	reader := logs.NewReader(log)
	s, err := New(Config{Root: w.root, CgroupParent: w.parent}, Deps{
		Runtime: driver, Images: &realImages{(*fakeImages)(w.world), w.rootfs, filepath.Join(w.root, "..", "layers")},
		Networks: (*fakeNetworks)(w.world), Volumes: (*fakeVolumes)(w.world), Events: w, Logs: reader,
	}, log)
	must(t, err)
	must(t, s.Restore(t.Context()))
	return &daemon{s, func() {
		must(t, s.Shutdown(context.Background()))
		must(t, driver.Stop(context.Background()))
		must(t, reader.Close())
	}}
}

func hostNet(edit func(*CreateOptions)) func(*CreateOptions) {
	return func(o *CreateOptions) {
		o.HostConfig.NetworkMode = "host"
		if edit != nil {
			edit(o)
		}
	}
}

// The whole with real processes, and with a daemon that comes back.
func TestRealContainers(t *testing.T) {
	if testing.Short() {
		t.Skip("starts containers")
	}
	w := newRealWorld(t)
	d := w.daemon()
	ctx := t.Context()

	id := create(t, d.Service, "short", hostNet(nil), "sh", "-c", "echo out; echo err >&2; id -un; exit 3")
	a, _, err := d.Attach(ctx, id, runtime.AttachOptions{Stdout: true, Stderr: true})
	must(t, err)
	exits, err := d.Wait(ctx, id, container.WaitConditionNextExit)
	must(t, err)
	must(t, d.Start(ctx, id))
	var out, errOut bytes.Buffer
	_, err = stdcopy.StdCopy(&out, &errOut, a.Output())
	must(t, err)
	must(t, a.Close())
	if out.String() != "out\nroot\n" || errOut.String() != "err\n" {
		t.Fatalf("%q %q", out.String(), errOut.String())
	}
	if r := <-exits; r.StatusCode != 3 {
		t.Fatalf("%+v", r)
	}
	var lines []string
	must(t, d.Logs(ctx, id, LogsOptions{Stdout: true, Tail: -1}, func(e logs.Entry) error {
		lines = append(lines, string(e.Line))
		return nil
	}))
	if !slices.Equal(lines, []string{"out", "root"}) {
		t.Fatalf("%q", lines)
	}
	must(t, d.Remove(ctx, id, RemoveOptions{}))

	id = create(t, d.Service, "absent", hostNet(nil), "/no/such/program")
	err = d.Start(ctx, id)
	if err == nil || !strings.Contains(err.Error(), "failed to create task for container: ") || stateOf(t, d.Service, id).ExitCode != 127 {
		t.Fatalf("%v, %+v", err, stateOf(t, d.Service, id))
	}
	must(t, d.Remove(ctx, id, RemoveOptions{}))

	testLong(t, w, d)
}

func testLong(t *testing.T, w *realWorld, d *daemon) {
	ctx := t.Context()
	id := create(t, d.Service, "long", hostNet(func(o *CreateOptions) {
		o.Config.Healthcheck = &container.HealthConfig{Test: []string{"CMD-SHELL", "echo fine"}, Interval: 20 * time.Millisecond}
		o.HostConfig.IpcMode = "shareable"
	}), "sleep", "1000")
	must(t, d.Start(ctx, id))
	must(t, d.CopyTo(ctx, id, "/tmp", CopyOptions{}, bytes.NewReader(tarOf(t, file("in", "payload")))))
	if got := execOutput(t, d, id, "cat", "/tmp/in"); got != "payload" {
		t.Fatalf("%q", got)
	}
	if got := execOutput(t, d, id, "sh", "-c", "echo a > /dev/shm/x; mount | cat"); !strings.Contains(got, "/dev/shm") {
		t.Fatalf("%q", got)
	}
	var b bytes.Buffer
	must(t, d.CopyFrom(ctx, id, "/tmp/in", func(container.PathStat) io.Writer { return &b }))
	if h, err := tar.NewReader(&b).Next(); err != nil || h.Name != "in" {
		t.Fatalf("%+v, %v", h, err)
	}
	top, err := d.Top(ctx, id, "")
	must(t, err)
	if len(top.Processes) == 0 || !strings.Contains(strings.Join(top.Processes[0], " "), "sleep 1000") {
		t.Fatalf("%+v", top)
	}
	must(t, d.Stats(ctx, id, false, true, func(r *container.StatsResponse) error {
		if r.MemoryStats.Usage == 0 || r.CPUStats.OnlineCPUs == 0 || r.PidsStats.Current == 0 {
			t.Errorf("%+v", r)
		}
		return nil
	}))
	must(t, d.Pause(ctx, id))
	must(t, d.Unpause(ctx, id))

	// An IPC namespace can be joined, with what is in it.
	join := create(t, d.Service, "join", hostNet(func(o *CreateOptions) { o.HostConfig.IpcMode = container.IpcMode("container:" + id) }), "test", "-e", "/dev/shm/x")
	exits, err := d.Wait(ctx, join, container.WaitConditionNextExit)
	must(t, err)
	must(t, d.Start(ctx, join))
	if r := <-exits; r.StatusCode != 0 {
		t.Fatalf("the shared memory is not shared: %+v", r)
	}
	must(t, d.Remove(ctx, join, RemoveOptions{}))

	d.stop()
	d = w.daemon()
	defer d.stop()
	if st := stateOf(t, d.Service, id); st.Status != container.StateRunning || st.Pid == 0 {
		t.Fatalf("after the daemon's restart: %+v", st)
	}
	testx.Eventually(t, 30*time.Second, func() string {
		if h := stateOf(t, d.Service, id).Health; h.Status != container.Healthy || len(h.Log) == 0 || h.Log[0].Output != "fine\n" {
			return "not healthy"
		}
		return ""
	})
	if got := execOutput(t, d, id, "cat", "/tmp/in"); got != "payload" {
		t.Fatalf("%q", got)
	}
	zero := 0
	must(t, d.Stop(ctx, id, StopOptions{Timeout: &zero}))
	var names []string
	must(t, d.CopyFrom(ctx, id, "/tmp/.", func(container.PathStat) io.Writer { b.Reset(); return &b }))
	for r := tar.NewReader(&b); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		must(t, err)
		names = append(names, h.Name)
	}
	if !slices.Equal(names, []string{"./", "./in"}) {
		t.Fatalf("%v", names)
	}
	must(t, d.Remove(ctx, id, RemoveOptions{}))
}

func execOutput(t *testing.T, d *daemon, id string, cmd ...string) string {
	t.Helper()
	e, err := d.ExecCreate(t.Context(), id, container.ExecCreateRequest{Cmd: cmd, AttachStdout: true, AttachStderr: true})
	must(t, err)
	a, _, err := d.ExecStart(t.Context(), e, container.ExecStartRequest{}, true)
	must(t, err)
	var out bytes.Buffer
	_, err = stdcopy.StdCopy(&out, &out, a.Output())
	must(t, err)
	must(t, a.Close())
	return out.String()
}
