package runtime_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cleatlabs/cleat/engine/runtime"
)

// TestInitProgram: the shim's program, called docker-init, is a container's
// process 1: it passes signals and exit codes on, and reaps orphans.
func TestInitProgram(t *testing.T) {
	h := newHost(t)
	if err := os.MkdirAll(filepath.Join(h.rootfs, "sbin"), 0o755); err != nil {
		t.Fatal(err)
	}
	request := func(script string) runtime.CreateRequest {
		r := h.request("/sbin/docker-init", "--", "sh", "-c", script)
		r.Spec.Mounts = append(r.Spec.Mounts, specs.Mount{
			Destination: "/sbin/docker-init", Type: "bind", Source: h.cfg.ShimPath, Options: []string{"bind", "ro"},
		})
		return r
	}
	out, _, e := h.output(request("echo $PPID; (sh -c 'exit 0' &); sleep 0.05; ps -o stat | grep -c Z; exit 8"))
	if f := strings.Fields(out); e.Code != 8 || len(f) != 2 || f[0] != "1" || f[1] != "0" {
		t.Errorf("%q, %+v", out, e)
	}
	if _, _, e := h.output(request("kill -TERM $$")); e.Code != 143 {
		t.Errorf("killed by a signal: %+v", e)
	}
	task := h.create(request("trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done"))
	a := h.attach(task, runtime.AttachOptions{Stdout: true})
	h.start(task)
	a.expect("ready")
	if err := task.Signal(t.Context(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if e := h.wait(task); e.Code != 9 {
		t.Errorf("%+v", e)
	}
	if _, _, e := h.output(h.initOf(request, "none")); e.Code != 127 {
		t.Errorf("no such command: %+v", e)
	}
}

// initOf is a request whose init program gets another command.
func (h *host) initOf(request func(string) runtime.CreateRequest, command string) runtime.CreateRequest {
	r := request("")
	r.Spec.Process.Args = []string{"/sbin/docker-init", "--", command}
	return r
}
