package runtime_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cleatlabs/cleat/engine/runtime"
	"github.com/cleatlabs/cleat/engine/runtime/cgroup"
	"github.com/cleatlabs/cleat/internal/errdefs"
	"github.com/cleatlabs/cleat/internal/testx"
)

const helperEnv = "CLEAT_TEST_DAEMON"

// helperTask is what a daemon in a process of its own is to do.
type helperTask struct {
	Config  runtime.Config
	Request runtime.CreateRequest
}

// daemonHelper is that process: it creates and starts a container and says
// how far it is. It is false in the test itself.
func daemonHelper() bool {
	file := os.Getenv(helperEnv)
	if file == "" {
		return false
	}
	fail := func(err error) {
		if err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
	}
	data, err := os.ReadFile(file)
	fail(err)
	var job helperTask
	fail(json.Unmarshal(data, &job))
	d, err := runtime.New(job.Config, slog.New(slog.DiscardHandler))
	fail(err)
	fail(d.Start(context.Background()))
	fmt.Println("creating")
	task, err := d.Create(context.Background(), job.Request)
	fail(err)
	fmt.Println("created")
	fail(task.Start(context.Background()))
	fmt.Println("started")
	select {}
}

// helper starts such a daemon.
func (h *host) helper(r runtime.CreateRequest) (cmd *exec.Cmd, said *bufio.Reader) {
	h.t.Helper()
	if err := os.MkdirAll(r.Log.Dir, 0o755); err != nil {
		h.t.Fatal(err)
	}
	data, err := json.Marshal(helperTask{Config: h.cfg, Request: r})
	if err != nil {
		h.t.Fatal(err)
	}
	file := filepath.Join(h.t.TempDir(), "task.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		h.t.Fatal(err)
	}
	cmd = exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), helperEnv+"="+file)
	out, err := cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	return cmd, bufio.NewReader(out)
}

func expectLine(t testing.TB, r *bufio.Reader, want string) {
	t.Helper()
	line, err := r.ReadString('\n')
	if err != nil || strings.TrimSpace(line) != want {
		t.Fatalf("the daemon said %q, %v", line, err)
	}
}

// TestDaemonKilledWhileCreating: whenever the daemon is killed, what is left
// is found by List and removed by Purge or, once started, runs on.
func TestDaemonKilledWhileCreating(t *testing.T) {
	h := newHost(t)
	if err := h.Stop(t.Context()); err != nil { // its spare would look like a leak
		t.Fatal(err)
	}
	for i := range 12 {
		r := h.request("sleep", "100000")
		cmd, said := h.helper(r)
		expectLine(t, said, "creating")
		// Somewhere in the middle; the last one, after the end of Create.
		time.Sleep(time.Duration(i) * 3 * time.Millisecond)
		if i == 11 {
			expectLine(t, said, "created")
			expectLine(t, said, "started")
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, said); err != nil {
			t.Fatal(err)
		}
		// Killed.
		_ = cmd.Wait()
		d := h.daemon()
		states, err := d.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if i == 11 && (len(states) != 1 || !states[0].Live) {
			t.Errorf("a started container is not found: %+v", states)
		}
		for _, s := range states {
			if s.ID != r.ID {
				t.Errorf("found %+v", s)
			}
			if err := d.Purge(t.Context(), s.ID); err != nil {
				t.Error(err)
			}
		}
		if err := d.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		testx.Eventually(t, 10*time.Second, func() string { return strings.Join(h.leftovers(), "\n") })
	}
}

// leftovers lists what is left of all containers of h.
func (h *host) leftovers() []string {
	h.t.Helper()
	var left []string
	entries, err := os.ReadDir(h.cfg.Run)
	if err != nil {
		return []string{err.Error()}
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			left = append(left, "folder "+e.Name())
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return []string{err.Error()}
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, h.cfg.Run) {
			left = append(left, "mount "+line)
		}
	}
	group, err := cgroup.Find(h.parent)
	if err != nil {
		return []string{err.Error()}
	}
	for _, dir := range group {
		subs, err := filepath.Glob(dir + "/*/cgroup.procs")
		if err != nil {
			return []string{err.Error()}
		}
		for _, s := range subs {
			left = append(left, "group "+s)
		}
	}
	return append(left, h.processes()...)
}

// processes lists the shims of h that live.
func (h *host) processes() []string {
	h.t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		h.t.Fatal(err)
	}
	var found []string
	for _, f := range files {
		// A process may end while we look.
		if data, err := os.ReadFile(f); err == nil && strings.Contains(string(data), h.cfg.Run) {
			found = append(found, "process "+filepath.Dir(f)+" "+strings.ReplaceAll(string(data), "\x00", " "))
		}
	}
	return found
}

// TestNothingIsLeft: after every way to end, the machine is as before, and so
// are this process's descriptors.
func TestNothingIsLeft(t *testing.T) {
	h := newHost(t)
	if err := h.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.cfg.Spares = -1
	h.Driver = h.daemon()
	descriptors := func() int {
		d, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(d)
	}
	round := func() {
		h.output(h.request("true"))
		never := h.create(h.request("true"))
		if err := never.Delete(t.Context()); err != nil {
			t.Error(err)
		}
		running := h.idle()
		p, a := h.exec(running, "e", true, "sleep", "1000")
		h.start(p)
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		if err := running.Delete(t.Context()); err != nil {
			t.Error(err)
		}
		if err := running.Delete(t.Context()); err != nil {
			t.Errorf("repeated: %v", err)
		}
		r := h.request("none")
		if err := os.MkdirAll(r.Log.Dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Create(t.Context(), r); err == nil {
			t.Error("a command that does not exist")
		}
		r = h.request("true")
		r.Rootfs[0].Options = []string{"lowerdir=/none"}
		if _, err := h.Create(t.Context(), r); err == nil {
			t.Error("a root that does not exist")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := h.Create(ctx, h.request("true")); err == nil {
			t.Error("created for a caller that has gone")
		}
	}
	round()
	before := descriptors()
	for range 5 {
		round()
	}
	testx.Eventually(t, 10*time.Second, func() string { return strings.Join(h.leftovers(), "\n") })
	testx.Eventually(t, 10*time.Second, func() string {
		if after := descriptors(); after > before {
			return fmt.Sprintf("%d descriptors before, %d after", before, after)
		}
		return ""
	})
}

func TestShimKilledWithEverything(t *testing.T) {
	h := newHost(t)
	task := h.idle()
	p, a := h.exec(task, "e", false, "sleep", "1000")
	h.start(p)
	init := task.Pid()
	if err := syscall.Kill(task.ShimPid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for _, x := range []runtime.Process{task, p} {
		if e := h.wait(x); e.Code != 137 || !e.Lost {
			t.Errorf("%+v", e)
		}
	}
	a.rest()
	if err := task.Signal(t.Context(), syscall.SIGTERM); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("%v", err)
	}
	testx.Eventually(t, 10*time.Second, func() string {
		if data, err := os.ReadFile("/proc/" + strconv.Itoa(init) + "/status"); err == nil && !strings.Contains(string(data), "Z (zombie)") {
			return "init lives"
		}
		return ""
	})
	states, err := h.List(t.Context())
	if err != nil || len(states) != 1 || states[0].Live || states[0].Exit == nil || !states[0].Exit.Lost {
		t.Errorf("%+v, %v", states, err)
	}
	if err := task.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	testx.Eventually(t, 10*time.Second, func() string {
		var left []string
		for _, l := range h.leftovers() {
			if !strings.HasPrefix(l, "process") { // the spare
				left = append(left, l)
			}
		}
		return strings.Join(left, "\n")
	})
}

// TestShimKilledWhileNobodyLooks: the daemon's next life finds the remains.
func TestShimKilledWhileNobodyLooks(t *testing.T) {
	h := newHost(t)
	task := h.idle()
	if err := h.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := task.Wait(t.Context()); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("wait on a stopped driver: %v", err)
	}
	if err := syscall.Kill(task.ShimPid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	next := h.daemon()
	testx.Eventually(t, 10*time.Second, func() string {
		if _, err := next.Load(t.Context(), task.ID()); !errors.Is(err, errdefs.ErrNotFound) {
			return fmt.Sprint("load: ", err)
		}
		return ""
	})
	for range 2 {
		if err := next.Purge(t.Context(), task.ID()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d/exe", task.Pid())); err == nil {
		t.Error("init lives")
	}
}

// TestExitIsKept: a container that ends while no daemon runs tells its exit.
func TestExitIsKept(t *testing.T) {
	h := newHost(t)
	r := h.request("sh", "-c", "read x; echo late; exit 21")
	r.OpenStdin = true
	task := h.create(r)
	a := h.attach(task, runtime.AttachOptions{Stdin: true, Stdout: true})
	h.start(task)
	if err := h.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.send("x\n")
	if got := a.rest(); got != "late\n" {
		t.Errorf("%q", got)
	}
	next := h.daemon()
	found, err := next.Load(t.Context(), task.ID())
	if err != nil {
		t.Fatal(err)
	}
	if e := h.wait(found); e.Code != 21 {
		t.Errorf("%+v", e)
	}
	states, err := next.List(t.Context())
	if err != nil || len(states) != 1 || states[0].Exit == nil || states[0].Exit.Code != 21 {
		t.Errorf("%+v, %v", states, err)
	}
	if got := h.logged(r); len(got) != 1 || got[0] != "out:late" {
		t.Errorf("%q", got)
	}
	if err := found.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestCanceledWait leaves nothing behind and does not spoil the next.
func TestCanceledWait(t *testing.T) {
	h := newHost(t)
	task := h.idle()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := task.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if err := task.Signal(t.Context(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if e := h.wait(task); e.Code != 137 {
		t.Errorf("%+v", e)
	}
}

// TestPrivateMemory holds a shim to its budget, with others beside it.
func TestPrivateMemory(t *testing.T) {
	h := newHost(t)
	tasks := []runtime.Task{h.idle(), h.idle(), h.idle()}
	testx.Eventually(t, 30*time.Second, func() string {
		if kb := privateKB(t, tasks[0].ShimPid()); kb > 5<<10 {
			return fmt.Sprintf("%d KiB of private memory", kb)
		}
		return ""
	})
	t.Logf("a shim has %d KiB of private memory", privateKB(t, tasks[0].ShimPid()))
}

func privateKB(t testing.TB, pid int) int {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if f[0] == "Private_Clean:" || f[0] == "Private_Dirty:" {
			n, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			total += n
		}
	}
	return total
}
