package runtime_test

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cleatlabs/cleat/engine/runtime"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

// TestOtherRuntimes drives OCI runtime programs by their command line.
func TestOtherRuntimes(t *testing.T) {
	for _, name := range []string{"crun", "runc"} {
		t.Run(name, func(t *testing.T) {
			program, err := exec.LookPath(name)
			if err != nil {
				t.Skip(name, "is not installed")
			}
			h := newHost(t)
			request := func(args ...string) runtime.CreateRequest {
				r := h.request(args...)
				r.Runtime = program
				return r
			}
			out, errs, e := h.output(request("sh", "-c", "echo out; echo err >&2; exit 4"))
			if out != "out\n" || errs != "err\n" || e.Code != 4 {
				t.Errorf("%q, %q, %+v", out, errs, e)
			}
			otherTerminal(t, h, request("sh", "-c", "tty; stty size; read x; stty size; exit 5"))
			otherControl(t, h, request("sleep", "100000"))

			r := request("true")
			dockerLike(t, &r)
			if _, _, e := h.output(r); e.Code != 0 {
				t.Errorf("as Docker: %+v", e)
			}

			r = request("none")
			if err := os.MkdirAll(r.Log.Dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if _, err := h.Create(t.Context(), r); !errors.Is(err, errdefs.ErrNotFound) {
				t.Errorf("a command that does not exist: %v", err)
			}
		})
	}
}

func otherTerminal(t *testing.T, h *host, r runtime.CreateRequest) {
	t.Helper()
	r.Spec.Process.Terminal, r.OpenStdin = true, true
	r.ConsoleSize = runtime.Size{Width: 91, Height: 32}
	task := h.create(r)
	a := h.attachRaw(task, runtime.AttachOptions{Stdin: true, Stdout: true})
	h.start(task)
	a.expect("/dev/pts/")
	a.expect("32 91")
	if err := task.Resize(t.Context(), runtime.Size{Width: 100, Height: 33}); err != nil {
		t.Fatal(err)
	}
	a.send("x\n")
	a.expect("33 100")
	if e := h.wait(task); e.Code != 5 {
		t.Errorf("%+v", e)
	}
	if err := task.Delete(t.Context()); err != nil {
		t.Error(err)
	}
}

func otherControl(t *testing.T, h *host, r runtime.CreateRequest) {
	t.Helper()
	limit := int64(64 << 20)
	r.Spec.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}
	task := h.create(r)
	h.start(task)
	p, a := h.exec(task, "e", false, "sh", "-c", "cat; exit 6")
	h.start(p)
	a.send("through")
	if err := a.CloseInput(); err != nil {
		t.Fatal(err)
	}
	if got := a.rest(); got != "through" {
		t.Errorf("%q", got)
	}
	if e := h.wait(p); e.Code != 6 {
		t.Errorf("%+v", e)
	}
	p, a = h.exec(task, "tty", true, "sh", "-c", "tty; exit 7")
	h.start(p)
	if got := a.rest(); !strings.HasPrefix(got, "/dev/pts/") {
		t.Errorf("%q", got)
	}
	if e := h.wait(p); e.Code != 7 {
		t.Errorf("%+v", e)
	}
	p, _ = h.exec(task, "bad", false, "none")
	if err := p.Start(t.Context()); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("%v", err)
	}
	if err := task.Pause(t.Context()); err != nil {
		t.Error(err)
	}
	if err := task.Resume(t.Context()); err != nil {
		t.Error(err)
	}
	more := int64(80 << 20)
	if err := task.Update(t.Context(), &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &more}}); err != nil {
		t.Error(err)
	}
	if s, err := task.Stats(t.Context()); err != nil || s.MemoryStats.Usage.Limit != 80<<20 {
		t.Errorf("%+v, %v", s, err)
	}
	if err := task.Signal(t.Context(), syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	if e := h.wait(task); e.Code != 137 {
		t.Errorf("%+v", e)
	}
	if err := task.Delete(t.Context()); err != nil {
		t.Error(err)
	}
	if err := task.Delete(t.Context()); err != nil {
		t.Error(err)
	}
	var left []string
	for _, l := range h.leftovers() {
		if !strings.HasPrefix(l, "process") { // the spare
			left = append(left, l)
		}
	}
	if len(left) > 0 {
		t.Errorf("left:\n%s", strings.Join(left, "\n"))
	}
}
