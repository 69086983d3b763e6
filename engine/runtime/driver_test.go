package runtime_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cleatlabs/cleat/engine/logs"
	"github.com/cleatlabs/cleat/engine/runtime"
	"github.com/cleatlabs/cleat/engine/runtime/cgroup"
	"github.com/cleatlabs/cleat/internal/errdefs"
	"github.com/cleatlabs/cleat/internal/testx"
)

// host is a driver and what its containers share.
type host struct {
	*runtime.Driver
	t      testing.TB
	cfg    runtime.Config
	rootfs string
	parent string
	n      int
}

func newHost(t testing.TB) *host {
	t.Helper()
	testx.Root(t)
	dir := testx.TempRun(t)
	h := &host{t: t, rootfs: filepath.Join(dir, "image"), parent: "/cleat-test-" + filepath.Base(dir)}
	busybox, err := os.ReadFile(testx.Busybox(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"bin", "proc", "dev", "sys", "tmp", "etc"} {
		if err := os.MkdirAll(filepath.Join(h.rootfs, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(h.rootfs, "bin/busybox"), busybox, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, a := range strings.Fields("sh true tr printf dd mkdir kill ps mount umount touch wc sed env ulimit echo cat sleep ls tty stty id readlink head grep") {
		if err := os.Symlink("busybox", filepath.Join(h.rootfs, "bin", a)); err != nil {
			t.Fatal(err)
		}
	}
	h.cfg = runtime.Config{
		Run:          filepath.Join(dir, "run"),
		ShimPath:     shimProgram(t),
		CgroupParent: h.parent,
	}
	h.Driver = h.daemon()
	t.Cleanup(func() {
		group, err := cgroup.Find(h.parent)
		if err == nil {
			err = group.Remove()
		}
		if err != nil {
			t.Error(err)
		}
	})
	return h
}

// daemon is a driver on the same run folder: the next life of the daemon.
func (h *host) daemon() *runtime.Driver {
	h.t.Helper()
	d, err := runtime.New(h.cfg, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		h.t.Fatal(err)
	}
	if err := d.Start(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		if err := d.Stop(context.Background()); err != nil {
			h.t.Error(err)
		}
	})
	return d
}

// request is a container with an overlay of its own on the shared root.
func (h *host) request(args ...string) runtime.CreateRequest {
	h.t.Helper()
	h.n++
	id := fmt.Sprintf("c%d", h.n)
	upper := filepath.Join(filepath.Dir(h.rootfs), id)
	for _, d := range []string{"u", "w"} {
		if err := os.MkdirAll(filepath.Join(upper, d), 0o755); err != nil {
			h.t.Fatal(err)
		}
	}
	caps := []string{"CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID"}
	return runtime.CreateRequest{
		ID: id,
		Spec: &specs.Spec{
			Version: specs.Version,
			Process: &specs.Process{
				Args: args, Cwd: "/", Env: []string{"PATH=/bin"},
				Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
			},
			Root:     &specs.Root{},
			Hostname: id,
			Mounts: []specs.Mount{
				{Destination: "/proc", Type: "proc", Source: "proc"},
				{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755"}},
				{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "ptmxmode=0666", "mode=0620"}},
			},
			Linux: &specs.Linux{
				Namespaces: []specs.LinuxNamespace{
					{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace},
					{Type: specs.UTSNamespace}, {Type: specs.NetworkNamespace},
				},
				Resources:   &specs.LinuxResources{},
				MaskedPaths: []string{"/proc/kcore"},
			},
		},
		Rootfs: []mount.Mount{{Type: "overlay", Source: "overlay", Options: []string{
			"lowerdir=" + h.rootfs, "upperdir=" + upper + "/u", "workdir=" + upper + "/w",
		}}},
		Log: logs.Config{Driver: "local", Dir: filepath.Join(upper, "log")},
	}
}

func (h *host) create(r runtime.CreateRequest) runtime.Task {
	h.t.Helper()
	if err := os.MkdirAll(r.Log.Dir, 0o755); err != nil {
		h.t.Fatal(err)
	}
	task, err := h.Create(h.t.Context(), r)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		if err := h.Purge(context.Background(), r.ID); err != nil {
			h.t.Error(err)
		}
	})
	return task
}

// output runs a container to its end and returns what it wrote.
func (h *host) output(r runtime.CreateRequest) (stdout, stderr string, exit runtime.Exit) {
	h.t.Helper()
	task := h.create(r)
	a, err := task.Attach(h.t.Context(), runtime.AttachOptions{Stdout: true, Stderr: true})
	if err != nil {
		h.t.Fatal(err)
	}
	defer a.Close()
	if err := task.Start(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	var out, errs strings.Builder
	if r.Spec.Process.Terminal {
		_, err = io.Copy(&out, a.Output())
	} else {
		_, err = stdcopy.StdCopy(&out, &errs, a.Output())
	}
	if err != nil {
		h.t.Fatal(err)
	}
	if exit, err = task.Wait(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	if err := task.Delete(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	return out.String(), errs.String(), exit
}

func TestStreamsAndExitCode(t *testing.T) {
	h := newHost(t)
	out, errs, exit := h.output(h.request("sh", "-c", "echo out; echo err >&2; exit 7"))
	if out != "out\n" || errs != "err\n" || exit.Code != 7 {
		t.Errorf("got %q, %q, %+v", out, errs, exit)
	}
	r := h.request("sh", "-c", "tty; exit 9")
	r.Spec.Process.Terminal = true
	out, _, exit = h.output(r)
	if !strings.HasPrefix(out, "/dev/pts/") || exit.Code != 9 {
		t.Errorf("with a terminal: %q, %+v", out, exit)
	}
}

// TestNoDescriptorLeaks: the container sees its three streams and no more.
func TestNoDescriptorLeaks(t *testing.T) {
	h := newHost(t)
	out, _, _ := h.output(h.request("sh", "-c", "ls /proc/1/fd; readlink /proc/1/exe"))
	if out != "0\n1\n2\n/bin/busybox\n" {
		t.Errorf("descriptors and program of init:\n%s", out)
	}
}

func TestCommandThatCannotRun(t *testing.T) {
	h := newHost(t)
	for command, class := range map[string]error{"/none": errdefs.ErrNotFound, "none": errdefs.ErrNotFound, "/etc": errdefs.ErrPermissionDenied} {
		r := h.request(command)
		if err := os.MkdirAll(r.Log.Dir, 0o755); err != nil {
			t.Fatal(err)
		}
		task, err := h.Create(t.Context(), r)
		if err == nil {
			err = task.Start(t.Context())
			if derr := task.Delete(t.Context()); derr != nil {
				t.Error(derr)
			}
		}
		if !errors.Is(err, class) {
			t.Errorf("%s: %v, want class %v", command, err, class)
		}
	}
}

func TestExec(t *testing.T) {
	h := newHost(t)
	task := h.create(h.request("sleep", "1000"))
	if err := task.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	p, err := task.Exec(t.Context(), runtime.ExecRequest{ID: "e1", OpenStdin: true, Process: specs.Process{
		Args: []string{"sh", "-c", "cat; exit 3"}, Cwd: "/", Env: []string{"PATH=/bin"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	a, err := p.Attach(t.Context(), runtime.AttachOptions{Stdin: true, Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(a.Input(), "in and out"); err != nil {
		t.Fatal(err)
	}
	if err := a.CloseInput(); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if _, err := stdcopy.StdCopy(&out, io.Discard, a.Output()); err != nil {
		t.Fatal(err)
	}
	exit, err := p.Wait(t.Context())
	if err != nil || out.String() != "in and out" || exit.Code != 3 {
		t.Errorf("%q, %+v, %v", out.String(), exit, err)
	}
	stats, err := task.Stats(t.Context())
	if err != nil || stats.MemoryStats.Usage.Usage == 0 {
		t.Errorf("stats: %+v, %v", stats, err)
	}
}

// TestDaemonReplaced: the next life of the daemon finds the container and its
// whole log, and controls it.
func TestDaemonReplaced(t *testing.T) {
	h := newHost(t)
	r := h.request("sh", "-c", "echo before; cat; echo after; exit 5")
	r.OpenStdin = true
	task := h.create(r)
	a := h.attach(task, runtime.AttachOptions{Stdout: true})
	if err := task.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.expect("before")
	if err := h.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	next := h.daemon()
	states, err := next.List(t.Context())
	if err != nil || len(states) != 1 || !states[0].Live {
		t.Fatalf("%+v, %v", states, err)
	}
	found, err := next.Load(t.Context(), r.ID)
	if err != nil {
		t.Fatal(err)
	}
	if found.Pid() != task.Pid() || found.ShimPid() != task.ShimPid() {
		t.Errorf("pids changed")
	}
	if err := found.Signal(t.Context(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := found.SignalAll(t.Context(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	exit, err := found.Wait(t.Context())
	if err != nil || exit.Code != 137 || exit.Lost {
		t.Errorf("%+v, %v", exit, err)
	}
	var lines []string
	reader := logs.NewReader(slog.New(slog.NewTextHandler(io.Discard, nil)))
	defer reader.Close()
	if err := reader.Read(t.Context(), r.Log, logs.ReadOptions{Tail: -1, Stdout: true, Stderr: true}, func(e logs.Entry) error {
		lines = append(lines, string(e.Line))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if strings.Join(lines, ",") != "before" {
		t.Errorf("log: %q", lines)
	}
	if err := found.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestShimKilled(t *testing.T) {
	h := newHost(t)
	task := h.create(h.request("sleep", "1000"))
	if err := task.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(task.ShimPid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	exit, err := task.Wait(t.Context())
	if err != nil || exit.Code != 137 || !exit.Lost {
		t.Errorf("%+v, %v", exit, err)
	}
	if err := task.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(h.cfg.Run); err != nil || len(left) != 0 {
		t.Errorf("left in the run folder: %v, %v", left, err)
	}
}

func TestManyAtOnce(t *testing.T) {
	h := newHost(t)
	var reqs []runtime.CreateRequest
	for range 50 {
		r := h.request("true")
		if err := os.MkdirAll(r.Log.Dir, 0o755); err != nil {
			t.Fatal(err)
		}
		reqs = append(reqs, r)
	}
	var wg sync.WaitGroup
	for _, r := range reqs {
		wg.Go(func() {
			task, err := h.Create(t.Context(), r)
			if err != nil {
				t.Error(err)
				return
			}
			if err := task.Start(t.Context()); err != nil {
				t.Error(err)
			}
			if e, err := task.Wait(t.Context()); err != nil || e.Code != 0 {
				t.Error(e, err)
			}
			if err := task.Delete(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}
