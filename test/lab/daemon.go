package lab

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// programs builds cleat, cleatd and cleat-shim once per test run and returns
// the folder that has them.
var programs = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "cleat-bin")
	if err != nil {
		return "", err
	}
	gomod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", err
	}
	top := filepath.Dir(strings.TrimSpace(string(gomod)))
	builds := []struct {
		name string
		args []string
		cgo  string
	}{
		{"cleat", nil, "0"},
		{"cleatd", nil, "0"},
		{"cleat-shim", []string{"-tags", "seccomp netgo osusergo", "-ldflags", "-s -w -linkmode external -extldflags -static"}, "1"},
	}
	for _, b := range builds {
		args := append([]string{"build", "-o", filepath.Join(dir, b.name)}, b.args...)
		cmd := exec.Command("go", append(args, "./cmd/"+b.name)...)
		cmd.Dir = top
		cmd.Env = append(os.Environ(), "CGO_ENABLED="+b.cgo)
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build %s: %w\n%s", b.name, err, out)
		}
	}
	return dir, nil
})

// Daemon is a running cleatd with a root of its own.
type Daemon struct {
	t         testing.TB
	Bin       string
	Root, Run string
	flags     []string
	cmd       *exec.Cmd
	log       bytes.Buffer
}

// StartDaemon starts a daemon that ends, with everything it made, with the test.
func StartDaemon(t testing.TB, flags ...string) *Daemon {
	t.Helper()
	bin, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	base, err := os.MkdirTemp("", "cl")
	if err != nil {
		t.Fatal(err)
	}
	d := &Daemon{t: t, Bin: bin, Root: filepath.Join(base, "root"), Run: filepath.Join(base, "run"), flags: flags}
	t.Cleanup(func() {
		d.Kill()
		out, err := exec.Command(filepath.Join(bin, "cleatd"), "reset", "--yes", "--root", d.Root, "--run", d.Run).CombinedOutput()
		if err != nil {
			t.Errorf("reset: %v\n%s", err, out)
		}
		if t.Failed() {
			t.Logf("daemon's log:\n%s", tail(d.log.String(), 80))
		}
		if err := os.RemoveAll(base); err != nil {
			t.Error(err)
		}
	})
	d.Start()
	return d
}

func tail(s string, n int) string {
	lines := strings.Split(s, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

func (d *Daemon) Socket() string { return "unix://" + filepath.Join(d.Run, "engine.sock") }

// Start launches the daemon and returns when it answers.
func (d *Daemon) Start() {
	d.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		d.t.Fatal(err)
	}
	defer r.Close()
	args := append([]string{"--root", d.Root, "--run", d.Run, "--log-level", "debug"}, d.flags...)
	d.cmd = exec.Command(filepath.Join(d.Bin, "cleatd"), args...)
	d.cmd.Stderr = &d.log
	d.cmd.ExtraFiles = []*os.File{w}
	d.cmd.Env = append(os.Environ(), "CLEATD_READY_FD=3")
	err = d.cmd.Start()
	w.Close()
	if err != nil {
		d.t.Fatal(err)
	}
	var said bytes.Buffer
	if _, err := said.ReadFrom(r); err != nil || strings.TrimSpace(said.String()) != "ready" {
		d.t.Fatalf("daemon did not start: %q %v\n%s", said.String(), err, d.log.String())
	}
}

// Kill ends the daemon as a crash would. Containers are not touched.
func (d *Daemon) Kill() {
	if d.cmd == nil || d.cmd.Process == nil {
		return
	}
	d.cmd.Process.Kill()
	d.cmd.Wait()
	d.cmd = nil
}

// Stop ends the daemon in good order.
func (d *Daemon) Stop() {
	d.t.Helper()
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		d.t.Fatal(err)
	}
	if err := d.cmd.Wait(); err != nil {
		d.t.Fatalf("daemon's end: %v\n%s", err, d.log.String())
	}
	d.cmd = nil
}

// Client runs a client program against the daemon and returns its output.
func (d *Daemon) Client(name string, args ...string) (string, error) {
	if own := filepath.Join(d.Bin, name); !strings.Contains(name, "/") && exists(own) {
		name = own
	}
	cmd := exec.Command(name, args...)
	cmd.Env = d.Env()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, errs.String())
	}
	return strings.TrimRight(out.String(), "\n"), nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Cleat runs our command line and fails the test when it fails.
func (d *Daemon) Cleat(args ...string) string {
	d.t.Helper()
	out, err := d.Client(filepath.Join(d.Bin, "cleat"), args...)
	if err != nil {
		d.t.Fatal(err)
	}
	return out
}

func (d *Daemon) Env() []string {
	return append(os.Environ(), "DOCKER_HOST="+d.Socket(), "CLEAT_HOST="+d.Socket(), "PATH="+d.Bin+":"+os.Getenv("PATH"))
}

// Eventually polls until ok, and fails the test after a generous time.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for range 600 {
		if ok() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("did not happen: %s", what)
}

// Pid is the daemon's process.
func (d *Daemon) Pid() int { return d.cmd.Process.Pid }
