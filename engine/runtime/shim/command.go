package shim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/engine/runtime/cgroup"
	"github.com/cleatlabs/cleat/engine/runtime/wire"
)

// command drives another OCI runtime program, such as crun or runc, by the
// command line that runc made the custom. The run folder is the bundle.
type command struct {
	req  *wire.Create
	reap *reaper
	// hide is a mount that the runtime must not see, or "".
	hide string
	// rootUID and rootGID own the pipes, for containers with a user namespace.
	rootUID, rootGID int
}

func newCommand(req *wire.Create, reap *reaper) *command {
	c := &command{req: req, reap: reap}
	if filepath.Base(req.Runtime) == "crun" && cgroups.IsCgroup2HybridMode() {
		// It refuses machines with both versions of control groups, unless it
		// sees only the first.
		c.hide = filepath.Join(cgroup.Mountpoint, "unified")
	}
	for _, m := range req.Spec.Linux.UIDMappings {
		if m.ContainerID == 0 {
			c.rootUID = int(m.HostID)
		}
	}
	for _, m := range req.Spec.Linux.GIDMappings {
		if m.ContainerID == 0 {
			c.rootGID = int(m.HostID)
		}
	}
	return c
}

func (c *command) create(io *stdio) (int, error) {
	if err := c.writeJSON("config.json", c.bundleSpec()); err != nil {
		return 0, err
	}
	var pid int
	err := c.apart(!c.req.SharedMounts, func() error {
		if err := mountAll(c.req.Spec.Root.Path, c.req.Rootfs); err != nil {
			return err
		}
		var err error
		pid, err = c.launch(c.req.OpenStdin, io, "init", "create", "--bundle", c.req.Dir)
		return err
	})
	if err != nil {
		err = errors.Join(err, c.destroy())
	}
	return pid, err
}

// oldestSpec is the version that bundles are declared to follow: runtimes
// refuse versions that are newer than they are, and we use nothing newer.
const oldestSpec = "1.0.2"

// bundleSpec is the spec with the terminal's size in it.
func (c *command) bundleSpec() *specs.Spec {
	spec := *c.req.Spec
	spec.Version = oldestSpec
	process := *spec.Process
	if size := c.req.ConsoleSize; size != (wire.Size{}) {
		process.ConsoleSize = &specs.Box{Width: uint(size.Width), Height: uint(size.Height)}
	}
	spec.Process = &process
	return &spec
}

func (c *command) start() error { return c.run("start", c.req.ID) }

func (c *command) exec(id string, p *specs.Process, openStdin bool, io *stdio) (int, error) {
	process := *p
	io.mu.Lock()
	if io.size != (wire.Size{}) {
		process.ConsoleSize = &specs.Box{Width: uint(io.size.Width), Height: uint(io.size.Height)}
	}
	io.mu.Unlock()
	name := "exec-" + id + ".json"
	if err := c.writeJSON(name, &process); err != nil {
		return 0, err
	}
	file := filepath.Join(c.req.Dir, name)
	defer os.Remove(file)
	var pid int
	err := c.apart(c.hide != "", func() error {
		var err error
		pid, err = c.launch(openStdin, io, "exec-"+id, "exec", "--detach", "--process", file)
		return err
	})
	return pid, err
}

func (c *command) pause() error  { return c.run("pause", c.req.ID) }
func (c *command) resume() error { return c.run("resume", c.req.ID) }

// apart runs f on a thread of its own, as isolated does, with hide hidden.
func (c *command) apart(private bool, f func() error) error {
	return isolated(private, func() error {
		if private && c.hide != "" {
			if err := unix.Unmount(c.hide, unix.MNT_DETACH); err != nil {
				return fmt.Errorf("hide %s: %w", c.hide, err)
			}
		}
		return f()
	})
}

func (c *command) update(r *specs.LinuxResources) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	cmd := c.cmd("", "update", "--resources", "-", c.req.ID)
	cmd.Stdin = bytes.NewReader(data)
	return c.apart(c.hide != "", func() error { return c.finish(cmd, "update", "") })
}

func (c *command) destroy() error {
	var err error
	if _, serr := os.Stat(filepath.Join(c.stateDir(), c.req.ID)); serr == nil {
		err = c.run("delete", "--force", c.req.ID)
	}
	if c.req.SharedMounts {
		err = errors.Join(err, unmountAll(c.req.Spec.Root.Path, c.req.Rootfs))
	}
	return errors.Join(err, os.RemoveAll(c.stateDir()))
}

func (c *command) stateDir() string { return filepath.Join(c.req.Dir, wire.StateDir) }

// launch runs a verb that leaves a process behind, whose pid the runtime
// writes into a file. The process becomes our child when the runtime ends,
// for the shim is a subreaper.
func (c *command) launch(openStdin bool, io *stdio, name, verb string, args ...string) (int, error) {
	defer io.closeChild()
	pidFile := filepath.Join(c.req.Dir, name+".pid")
	logFile := filepath.Join(c.req.Dir, name+".log")
	defer os.Remove(pidFile)
	defer os.Remove(logFile)
	args = append([]string{verb}, args...)
	args = append(args, "--pid-file", pidFile)

	var console *net.UnixListener
	if io.terminal {
		dir, err := os.MkdirTemp("", "cleat-console-")
		if err != nil {
			return 0, err
		}
		defer os.RemoveAll(dir)
		socket := filepath.Join(dir, "tty")
		if console, err = net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"}); err != nil {
			return 0, err
		}
		defer console.Close()
		args = append(args, "--console-socket", socket)
	} else if err := io.newPipes(openStdin, c.rootUID, c.rootGID); err != nil {
		return 0, err
	}
	cmd := c.cmd(logFile, append(args, c.req.ID)...)
	if !io.terminal {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = io.child[0], io.child[1], io.child[2]
	}
	if err := c.finish(cmd, verb, logFile); err != nil {
		return 0, err
	}
	if console != nil {
		// The runtime has connected and sent before it ended.
		conn, err := console.AcceptUnix()
		if err != nil {
			return 0, err
		}
		defer conn.Close()
		master, err := receiveFile(conn)
		if err != nil {
			return 0, err
		}
		if err := io.setMaster(master); err != nil {
			return 0, err
		}
	}
	data, err := os.ReadFile(pidFile)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(data)))
}

func (c *command) run(args ...string) error {
	return c.apart(c.hide != "", func() error { return c.finish(c.cmd("", args...), args[0], "") })
}

// cmd prepares a call. Errors go to logFile, or else to standard error.
func (c *command) cmd(logFile string, args ...string) *exec.Cmd {
	all := append([]string{}, c.req.RuntimeArgs...)
	all = append(all, "--root", c.stateDir())
	if logFile != "" {
		all = append(all, "--log", logFile, "--log-format", "json")
	}
	cmd := exec.Command(c.req.Runtime, append(all, args...)...)
	cmd.Dir = c.req.Dir
	// GOMAXPROCS and the like are for the shim, not for the runtime.
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	return cmd
}

// finish runs cmd and turns a failure into what the runtime said.
func (c *command) finish(cmd *exec.Cmd, verb, logFile string) error {
	var stderr bytes.Buffer
	if cmd.Stderr == nil && logFile == "" {
		cmd.Stderr = &stderr
	}
	err := c.reap.guarded(cmd.Run)
	if err == nil {
		return nil
	}
	said := strings.TrimSpace(stderr.String())
	if logFile != "" {
		said = lastError(logFile)
	}
	if said == "" {
		return fmt.Errorf("%s %s: %w", filepath.Base(c.req.Runtime), verb, err)
	}
	return fmt.Errorf("%s %s failed: %s", filepath.Base(c.req.Runtime), verb, said)
}

// lastError finds the last message of level error in a log of JSON lines.
func lastError(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	said := ""
	for line := range bytes.Lines(data) {
		var e struct{ Level, Msg string }
		if json.Unmarshal(line, &e) == nil && e.Level == "error" {
			said = e.Msg
		}
	}
	return said
}

func (c *command) writeJSON(name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(c.req.Dir, name), data, 0o600)
}
