package robustness

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cleatlabs/cleat/test/lab"
)

func TestMain(m *testing.M) { os.Exit(lab.Enter(m.Run)) }

// start gives a daemon with the busybox image and the state of the machine
// after one container has come and gone.
func start(t *testing.T) (*lab.Daemon, lab.State) {
	t.Helper()
	d := lab.StartDaemon(t)
	d.Cleat("load", "-q", "-i", lab.Busybox(t))
	d.Cleat("run", "--rm", "busybox", "true")
	settle(t, d)
	return d, lab.Observe(t, d.Root, d.Run)
}

// settle waits until clean-up in the background is done.
func settle(t *testing.T, d *lab.Daemon) {
	t.Helper()
	lab.Eventually(t, "all containers are gone", func() bool {
		return d.Cleat("ps", "-aq") == ""
	})
}

// churning says of a path whether the daemon's own bookkeeping changes it:
// databases grow, the log rotates, content is shared.
func churning(line string) bool {
	for _, part := range []string{"/content/", "metadata.db", ".log", "/ingest", "cleatd.pid", "engine.sock"} {
		if strings.Contains(line, part) {
			return true
		}
	}
	return false
}

func mustBeAsBefore(t *testing.T, d *lab.Daemon, before lab.State) {
	t.Helper()
	var left []string
	for range 100 {
		if left = lab.Observe(t, d.Root, d.Run).Left(before, churning); len(left) == 0 {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("left behind:\n  %s", strings.Join(left, "\n  "))
}

// TestDaemonKilledAnywhere kills the daemon at many points of create, start
// and rm, starts it again, removes what is there, and compares.
func TestDaemonKilledAnywhere(t *testing.T) {
	d, before := start(t)
	steps := 40
	if testing.Short() {
		steps = 8
	}
	for i := range steps {
		delay := time.Duration(i) * 2 * time.Millisecond
		var wg sync.WaitGroup
		wg.Go(func() {
			// Each of these may fail: the daemon dies under it.
			name := fmt.Sprintf("victim%d", i)
			_, _ = d.Client("cleat", "run", "-d", "--name", name, "-p", "0:80", "-v", "/anonymous", "busybox", "sleep", "1000")
			_, _ = d.Client("cleat", "rm", "-f", "-v", name)
		})
		time.Sleep(delay)
		d.Kill()
		wg.Wait()
		d.Start()
		if left := strings.Fields(d.Cleat("ps", "-aq")); len(left) > 0 {
			d.Cleat(append([]string{"rm", "-f", "-v"}, left...)...)
		}
		d.Cleat("volume", "prune", "-af")
		mustBeAsBefore(t, d, before)
		if t.Failed() {
			t.Fatalf("after a kill at %s", delay)
		}
	}
	if got := d.Cleat("run", "--rm", "busybox", "echo", "well"); got != "well" {
		t.Fatalf("afterwards: %q", got)
	}
}

// TestContainersOutliveTheDaemon checks all that must go on after kill -9.
func TestContainersOutliveTheDaemon(t *testing.T) {
	d, before := start(t)
	d.Cleat("run", "-d", "--name", "counter", "-i", "busybox", "sh", "-c", "i=0; while true; do i=$((i+1)); echo $i; sleep 0.01; done")
	d.Cleat("run", "-d", "--name", "web", "-p", "127.0.0.1:18099:80", "busybox", "httpd", "-f", "-p", "80", "-h", "/etc")
	d.Cleat("run", "-d", "--name", "phoenix", "--restart", "always", "busybox", "sh", "-c", "sleep 0.3; exit 1")
	d.Cleat("run", "-d", "--name", "well", "--health-cmd", "true", "--health-interval", "1s", "busybox", "sleep", "1000")
	pid := d.Cleat("inspect", "-f", "{{.State.Pid}}", "counter")

	for range 3 {
		d.Kill()
		time.Sleep(500 * time.Millisecond)
		d.Start()
	}
	if got := d.Cleat("inspect", "-f", "{{.State.Pid}}", "counter"); got != pid {
		t.Errorf("counter was restarted: pid %s, was %s", got, pid)
	}
	for i, line := range strings.Fields(d.Cleat("logs", "counter")) {
		if n, err := strconv.Atoi(line); err != nil || n != i+1 {
			t.Fatalf("the log has a hole at line %d: %q", i+1, line)
		}
	}
	if got := d.Cleat("exec", "counter", "echo", "exec works"); got != "exec works" {
		t.Errorf("exec: %q", got)
	}
	if _, err := lab.Fetch("http://127.0.0.1:18099/passwd"); err != nil {
		t.Errorf("published port: %v", err)
	}
	lab.Eventually(t, "the restart policy goes on", func() bool {
		n, err := strconv.Atoi(d.Cleat("inspect", "-f", "{{.RestartCount}}", "phoenix"))
		return err == nil && n >= 2
	})
	lab.Eventually(t, "the health check goes on", func() bool {
		return d.Cleat("inspect", "-f", "{{.State.Health.Status}}", "well") == "healthy"
	})
	d.Cleat("stop", "-t", "0", "counter", "phoenix")
	d.Cleat("rm", "-f", "counter", "web", "phoenix", "well")
	mustBeAsBefore(t, d, before)
}

// TestShimKilled: the death of a shim is noticed and reported; nothing hangs.
func TestShimKilled(t *testing.T) {
	d, before := start(t)
	id := d.Cleat("run", "-d", "--name", "orphan", "busybox", "sleep", "1000")
	data, err := os.ReadFile(filepath.Join(d.Run, "containers", id, "shim.pid"))
	if err != nil {
		t.Fatal(err)
	}
	shim, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	init, err := strconv.Atoi(d.Cleat("inspect", "-f", "{{.State.Pid}}", "orphan"))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(shim, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if got := d.Cleat("wait", "orphan"); got != "137" {
		t.Errorf("exit code %s, want 137", got)
	}
	if runs(init) {
		t.Errorf("the container's init %d still runs", init)
	}
	d.Cleat("start", "orphan")
	d.Cleat("rm", "-f", "orphan")
	mustBeAsBefore(t, d, before)
}

// runs says whether a process exists and is more than a zombie, which is its
// new parent's to bury.
func runs(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, ok := strings.Cut(string(stat), ") ")
	return ok && !strings.HasPrefix(rest, "Z")
}
