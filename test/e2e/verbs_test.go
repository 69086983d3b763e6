package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cleatlabs/cleat/test/lab"
)

// TestVerbs runs each script of testdata/verbs with the real docker command
// and with cleat, against one daemon, and looks after each that no container
// is left.
func TestVerbs(t *testing.T) {
	d := lab.StartDaemon(t, "--config", withRuntime(t))
	d.Cleat("load", "-q", "-i", lab.Busybox(t))
	for _, cli := range []string{"docker", "cleat"} {
		t.Run(cli, func(t *testing.T) { runScripts(t, d, cli, "testdata/verbs") })
	}
}

// withRuntime is a configuration that knows Debian's runc as "another".
func withRuntime(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("runc")
	if err != nil {
		t.Fatal("runc is not installed: use `make test`")
	}
	file := filepath.Join(t.TempDir(), "cleatd.yaml")
	if err := os.WriteFile(file, []byte("container: {runtimes: {another: {path: "+path+"}}}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestCleat runs the scripts of what only cleat has.
func TestCleat(t *testing.T) {
	d := lab.StartDaemon(t)
	d.Cleat("load", "-q", "-i", lab.Busybox(t))
	runScripts(t, d, "cleat", "testdata/cleat")
}

func runScripts(t *testing.T, d *lab.Daemon, cli, dir string) {
	scripts, err := filepath.Glob(filepath.Join(dir, "*.txtar"))
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts in %s: %v", dir, err)
	}
	for _, script := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(script), ".txtar"), func(t *testing.T) {
			testscript.RunT(sequential{t}, testscript.Params{
				Files: []string{script},
				Setup: func(env *testscript.Env) error {
					env.Setenv("CLI", cli)
					env.Setenv("DOCKER_HOST", d.Socket())
					env.Setenv("CLEAT_HOST", d.Socket())
					env.Setenv("HOME", env.WorkDir)
					env.Setenv("PATH", d.Bin+":"+env.Getenv("PATH"))
					return nil
				},
				Cmds: map[string]func(*testscript.TestScript, bool, []string){
					"exits": exits, "waitfor": waitFor,
				},
			})
			if left := d.Cleat("ps", "-aq"); left != "" {
				t.Errorf("containers left: %s", d.Cleat("ps", "-a"))
				d.Cleat(append([]string{"rm", "-f"}, strings.Fields(left)...)...)
			}
			// A script that failed must not fail those after it.
			d.Cleat("network", "prune", "-f")
			d.Cleat("volume", "prune", "-af")
		})
	}
}

// sequential keeps testscript from running scripts in parallel: they share a
// daemon, and some look at all of its containers.
type sequential struct{ *testing.T }

func (s sequential) Parallel() {}
func (s sequential) Run(_ string, f func(testscript.T)) {
	f(s)
}
func (s sequential) Verbose() bool { return testing.Verbose() }

// exits runs a command that must end with the given code: exits 125 cmd...
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits code command...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// waitFor repeats a command until its output matches: waitfor regexp cmd...
func waitFor(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: waitfor regexp command...")
	}
	re, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	var last error
	for range 300 {
		last = ts.Exec(args[1], args[2:]...)
		if last == nil && re.MatchString(ts.ReadFile("stdout")) {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	ts.Fatalf("no match for %s: %v", args[0], last)
}
