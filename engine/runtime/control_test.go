package runtime_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cleatlabs/cleat/engine/runtime"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

// exec makes and attaches an exec of args.
func (h *host) exec(task runtime.Task, id string, terminal bool, args ...string) (runtime.Process, *terminal) {
	h.t.Helper()
	p, err := task.Exec(h.t.Context(), runtime.ExecRequest{ID: id, OpenStdin: true, Process: specs.Process{
		Args: args, Cwd: "/", Env: []string{"PATH=/bin"}, Terminal: terminal,
	}})
	if err != nil {
		h.t.Fatal(err)
	}
	o := runtime.AttachOptions{Stdin: true, Stdout: true, Stderr: true}
	if terminal {
		return p, h.attachRaw(p, o)
	}
	return p, h.attach(p, o)
}

// idle is a container that waits for ever.
func (h *host) idle() runtime.Task {
	h.t.Helper()
	task := h.create(h.request("sleep", "100000"))
	h.start(task)
	return task
}

func TestExitCodes(t *testing.T) {
	h := newHost(t)
	for script, code := range map[string]int{
		"exit 0": 0, "exit 255": 255, "kill -9 $$": 137 - 137, "exit 42": 42,
	} {
		if _, _, e := h.output(h.request("sh", "-c", script)); e.Code != code || e.Lost || e.OOMKilled {
			t.Errorf("%s: %+v", script, e)
		}
	}
}

func TestSignals(t *testing.T) {
	h := newHost(t)
	r := h.request("sh", "-c", "trap 'echo usr1' USR1; trap 'exit 33' TERM; echo ready; while :; do sleep 0.01; done")
	task := h.create(r)
	a := h.attach(task, runtime.AttachOptions{Stdout: true})
	h.start(task)
	a.expect("ready")
	for _, sig := range []syscall.Signal{syscall.SIGUSR1, syscall.SIGTERM} {
		if err := task.Signal(t.Context(), sig); err != nil {
			t.Fatal(err)
		}
		if sig == syscall.SIGUSR1 {
			a.expect("usr1")
		}
	}
	if e := h.wait(task); e.Code != 33 {
		t.Errorf("%+v", e)
	}
	if err := task.Signal(t.Context(), syscall.SIGTERM); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("signal after the end: %v", err)
	}

	killed := h.idle()
	if err := killed.Signal(t.Context(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if e := h.wait(killed); e.Code != 137 {
		t.Errorf("%+v", e)
	}
}

func TestExecs(t *testing.T) {
	h := newHost(t)
	task := h.idle()

	p, a := h.exec(task, "plain", false, "sh", "-c", "echo out; echo err >&2; exit 6")
	h.start(p)
	if got := a.rest(); !strings.Contains(got, "out\n") || !strings.Contains(got, "err\n") {
		t.Errorf("output %q", got)
	}
	if e := h.wait(p); e.Code != 6 {
		t.Errorf("%+v", e)
	}
	if err := p.Start(t.Context()); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("second start: %v", err)
	}

	p, a = h.exec(task, "tty", true, "sh", "-c", "tty; stty size; read x; stty size")
	if err := p.Resize(t.Context(), runtime.Size{Width: 77, Height: 22}); err != nil {
		t.Fatal(err)
	}
	h.start(p)
	a.expect("/dev/pts/")
	a.expect("22 77")
	if err := p.Resize(t.Context(), runtime.Size{Width: 78, Height: 23}); err != nil {
		t.Fatal(err)
	}
	a.send("\n")
	a.expect("23 78")
	h.wait(p)

	for command, want := range map[string]struct {
		class error
		code  int
	}{
		"none": {errdefs.ErrNotFound, 127}, "/none": {errdefs.ErrNotFound, 127}, "/etc": {errdefs.ErrPermissionDenied, 126},
	} {
		p, a := h.exec(task, "bad-"+strings.Trim(command, "/")+fmt.Sprint(len(command)), false, command)
		if err := p.Start(t.Context()); !errors.Is(err, want.class) {
			t.Errorf("%s: %v", command, err)
		}
		if e := h.wait(p); e.Code != want.code {
			t.Errorf("%s: %+v", command, e)
		}
		if got := a.rest(); got != "" {
			t.Errorf("%s: %q", command, got)
		}
	}

	// A descendant that holds the streams does not hold up the exec's end.
	p, a = h.exec(task, "background", false, "sh", "-c", "sleep 1000 & echo done")
	h.start(p)
	if e := h.wait(p); e.Code != 0 {
		t.Errorf("%+v", e)
	}
	if got := a.rest(); got != "done\n" {
		t.Errorf("%q", got)
	}

	p, _ = h.exec(task, "killed", false, "sleep", "1000")
	h.start(p)
	if p.Pid() == 0 {
		t.Error("no pid")
	}
	if err := p.Signal(t.Context(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if e := h.wait(p); e.Code != 143 {
		t.Errorf("%+v", e)
	}

	// The end of the container ends its execs.
	p, _ = h.exec(task, "with", false, "sleep", "1000")
	h.start(p)
	if err := task.Signal(t.Context(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if e := h.wait(p); e.Code != 137 {
		t.Errorf("%+v", e)
	}
	h.wait(task)
	if _, err := task.Exec(t.Context(), runtime.ExecRequest{ID: "late", Process: specs.Process{Args: []string{"true"}, Cwd: "/"}}); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("exec in an ended container: %v", err)
	}
}

// TestExecAfterRestart: the daemon's next life finds execs, running and ended.
func TestExecAfterRestart(t *testing.T) {
	h := newHost(t)
	task := h.idle()
	ended, _ := h.exec(task, "ended", false, "sh", "-c", "exit 11")
	h.start(ended)
	h.wait(ended)
	running, _ := h.exec(task, "running", false, "sh", "-c", "read x; exit 12")
	h.start(running)
	if err := h.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	next := h.daemon()
	found, err := next.Load(t.Context(), task.ID())
	if err != nil {
		t.Fatal(err)
	}
	e, err := found.LoadExec(t.Context(), "ended")
	if err != nil {
		t.Fatal(err)
	}
	if e := h.wait(e); e.Code != 11 {
		t.Errorf("%+v", e)
	}
	r, err := found.LoadExec(t.Context(), "running")
	if err != nil || r.Pid() != running.Pid() {
		t.Fatalf("%v, pid %d", err, r.Pid())
	}
	a := h.attach(r, runtime.AttachOptions{Stdin: true})
	a.send("x\n")
	if e := h.wait(r); e.Code != 12 {
		t.Errorf("%+v", e)
	}
	if _, err := found.LoadExec(t.Context(), "none"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("%v", err)
	}
}

func TestPauseAndResume(t *testing.T) {
	h := newHost(t)
	r := h.request("sh", "-c", "while read l; do echo $l; done")
	r.OpenStdin = true
	task := h.create(r)
	a := h.attach(task, runtime.AttachOptions{Stdin: true, Stdout: true})
	h.start(task)
	a.send("one\n")
	a.expect("one")
	if err := task.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.send("two\n")
	p, _ := h.exec(task, "e", false, "true")
	if err := p.Start(t.Context()); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("exec in a paused container: %v", err)
	}
	if err := task.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.expect("two")
	if err := task.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	// A paused container can be killed, and deleted.
	if err := task.Signal(t.Context(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if e := h.wait(task); e.Code != 137 {
		t.Errorf("%+v", e)
	}
	paused := h.idle()
	if err := paused.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := paused.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestUpdateStatsPids(t *testing.T) {
	h := newHost(t)
	r := h.request("sleep", "100000")
	limit, pids := int64(64<<20), int64(50)
	r.Spec.Linux.Resources = &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: &limit}, Pids: &specs.LinuxPids{Limit: &pids},
	}
	task := h.create(r)
	h.start(task)
	check := func(memory, processes uint64) {
		t.Helper()
		s, err := task.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if s.MemoryStats.Usage.Limit != memory || s.MemoryStats.Usage.Usage == 0 ||
			s.PidsStats.Limit != processes || s.PidsStats.Current == 0 || s.CpuStats.CpuUsage.TotalUsage == 0 {
			t.Errorf("stats: memory %+v, pids %+v, cpu %+v", s.MemoryStats.Usage, s.PidsStats, s.CpuStats.CpuUsage)
		}
	}
	check(64<<20, 50)
	more, shares := int64(96<<20), uint64(512)
	if err := task.Update(t.Context(), &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: &more}, CPU: &specs.LinuxCPU{Shares: &shares},
	}); err != nil {
		t.Fatal(err)
	}
	check(96<<20, 50)
	list, err := task.Pids(t.Context())
	if err != nil || len(list) != 1 || list[0] != task.Pid() {
		t.Errorf("%v, %v; init is %d", list, err, task.Pid())
	}
	// Execs still work after an update.
	p, _ := h.exec(task, "e", false, "true")
	h.start(p)
	if e := h.wait(p); e.Code != 0 {
		t.Errorf("%+v", e)
	}
	entries, err := os.ReadDir(task.Root() + "/bin")
	if err != nil || len(entries) == 0 {
		t.Errorf("the root is not reachable: %v", err)
	}
}

func TestOutOfMemory(t *testing.T) {
	h := newHost(t)
	r := h.request("sh", "-c", "x=a; while :; do x=$x$x; done")
	limit := int64(16 << 20)
	r.Spec.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &limit}}
	if _, _, e := h.output(r); !e.OOMKilled || e.Code != 137 {
		t.Errorf("%+v", e)
	}
}

// TestLimitsThatCannotBeGranted: without CAP_SYS_RESOURCE they are lowered.
func TestLimitsThatCannotBeGranted(t *testing.T) {
	h := newHost(t)
	r := h.request("sh", "-c", "ulimit -Hn; cat /proc/self/oom_score_adj")
	adj := -900
	r.Spec.Process.OOMScoreAdj = &adj
	r.Spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: 1 << 29, Soft: 1 << 29}, {Type: "RLIMIT_CORE", Hard: 5, Soft: 5}}
	out, _, e := h.output(r)
	if e.Code != 0 || len(strings.Fields(out)) != 2 {
		t.Errorf("%q, %+v", out, e)
	}
}

// TestHostPids: in the host's PID namespace, init's end ends the others too.
func TestHostPids(t *testing.T) {
	h := newHost(t)
	r := h.request("sh", "-c", "sleep 100000 & sleep 100000 & echo $! ; exit 4")
	r.Spec.Linux.Namespaces = r.Spec.Linux.Namespaces[1:]
	out, _, e := h.output(r)
	if e.Code != 4 {
		t.Errorf("%+v", e)
	}
	if _, err := os.Stat("/proc/" + strings.TrimSpace(out)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("process %q is left: %v", out, err)
	}
}

// TestSharedMounts: the root is mounted where the daemon sees it, until Delete.
func TestSharedMounts(t *testing.T) {
	h := newHost(t)
	r := h.request("sleep", "100000")
	r.SharedMounts = true
	task := h.create(r)
	h.start(task)
	if _, err := os.Stat(h.cfg.Run + "/" + r.ID + "/rootfs/bin/busybox"); err != nil {
		t.Error(err)
	}
	if err := task.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestSeccompIsOn: the profile is in force for init and execs, whether it was
// compiled for this container or taken from the cache.
func TestSeccompIsOn(t *testing.T) {
	h := newHost(t)
	for _, nnp := range []bool{false, true} {
		for range 3 {
			r := h.request("sh", "-c", "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status; ls /proc/1/fd; mkdir /tmp/d; echo $?")
			dockerLike(t, &r)
			r.Spec.Linux.Seccomp.Syscalls = append(r.Spec.Linux.Seccomp.Syscalls, specs.LinuxSyscall{
				Names: []string{"mkdir", "mkdirat"}, Action: specs.ActErrno, ErrnoRet: errno(syscall.EXDEV),
			})
			for i, s := range r.Spec.Linux.Seccomp.Syscalls[0].Names {
				if s == "mkdir" || s == "mkdirat" {
					r.Spec.Linux.Seccomp.Syscalls[0].Names[i] = "read"
				}
			}
			r.Spec.Process.NoNewPrivileges = nnp
			out, errs, _ := h.output(r)
			want := "NoNewPrivs:\t0\nSeccomp:\t2\n0\n1\n2\n1\n"
			if nnp {
				want = "NoNewPrivs:\t1\nSeccomp:\t2\n0\n1\n2\n1\n"
			}
			if out != want || !strings.Contains(errs, "Invalid cross-device link") {
				t.Errorf("%q, %q", out, errs)
			}
		}
	}
	cached, err := os.ReadDir(h.cfg.Run + "/.seccomp")
	if err != nil || len(cached) != 1 {
		t.Errorf("cache: %v, %v", cached, err)
	}
	r := h.request("sleep", "100000")
	dockerLike(t, &r)
	task := h.create(r)
	h.start(task)
	for i := range 2 {
		p, a := h.exec(task, fmt.Sprint(i), false, "sh", "-c", "grep ^Seccomp: /proc/self/status; ls /proc/self/fd")
		h.start(p)
		if got := a.rest(); got != "Seccomp:\t2\n0\n1\n2\n3\n" { // 3 is ls reading the folder
			t.Errorf("exec: %q", got)
		}
	}
}

func errno(e syscall.Errno) *uint { n := uint(e); return &n }

// TestUserNamespace: root inside is nobody outside, streams included.
func TestUserNamespace(t *testing.T) {
	h := newHost(t)
	dir := h.cfg.Run
	for range 2 { // the test's own folders; the engine's are passable
		if err := os.Chmod(dir, 0o711); err != nil {
			t.Fatal(err)
		}
		dir = filepath.Dir(dir)
	}
	for _, tty := range []bool{false, true} {
		r := h.request("sh", "-c", "id -u; head -n1 /proc/self/uid_map; echo x >/dev/stdout")
		dockerLike(t, &r)
		r.Spec.Process.Terminal = tty
		ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
		r.Spec.Linux.UIDMappings, r.Spec.Linux.GIDMappings = ids, ids
		r.Spec.Linux.Namespaces = append(r.Spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		out, errs, e := h.output(r)
		if f := strings.Fields(out); e.Code != 0 || len(f) != 5 || f[0] != "0" || f[2] != "100000" || f[4] != "x" {
			t.Errorf("%q, %q, %+v", out, errs, e)
		}
	}
}

// TestManyLayers: an overlay's options may be longer than mount(2) takes.
func TestManyLayers(t *testing.T) {
	h := newHost(t)
	base := filepath.Join(filepath.Dir(h.rootfs), "layers")
	for _, place := range []string{"snapshot", strings.Repeat("n", 100)} { // the second is too long even relative to base
		var lower []string
		for i := range 100 {
			dir := filepath.Join(base, fmt.Sprintf("%s-%d", place, i), "fs")
			if err := os.MkdirAll(filepath.Join(dir, fmt.Sprint("of-", i)), 0o755); err != nil {
				t.Fatal(err)
			}
			lower = append(lower, dir)
		}
		r := h.request("sh", "-c", "ls -d /of-* | wc -l")
		o := r.Rootfs[0].Options
		o[0] = "lowerdir=" + strings.Join(append(lower, h.rootfs), ":")
		out, errs, e := h.output(r)
		if strings.TrimSpace(out) != "100" {
			t.Errorf("%q, %q, %+v", out, errs, e)
		}
	}
}
