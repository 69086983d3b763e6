package shim

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cleatlabs/cleat/engine/logs"
	"github.com/cleatlabs/cleat/engine/runtime/cgroup"
	"github.com/cleatlabs/cleat/engine/runtime/wire"
	"github.com/cleatlabs/cleat/internal/atomicfile"
)

const (
	// keptExecs bounds the ended execs that are remembered: a health check
	// makes a new one every few seconds for years.
	keptExecs = 256
	// defaultStall applies when the daemon names no StallTimeout.
	defaultStall = time.Minute
)

// container is the one container of this shim.
type container struct {
	req    *wire.Create
	launch launcher
	reap   *reaper
	init   *process
	dirs   cgroup.Dirs
	priv   privileges
	now    func() time.Time

	// opMu serialises what changes the container through the launcher.
	opMu   sync.Mutex
	paused bool

	mu     sync.Mutex
	execs  map[string]*process
	order  []string // of execs, oldest first
	exited sync.WaitGroup

	groupMu   sync.Mutex
	groupGone bool
}

// createContainer makes the container of req, with its init waiting.
func createContainer(req *wire.Create, reap *reaper, takeWarnings func() []string) (*container, *wire.Created, error) {
	if req.Spec == nil || req.Spec.Process == nil || req.Spec.Root == nil || req.Spec.Linux == nil {
		return nil, nil, wire.Errorf(wire.Invalid, "incomplete spec")
	}
	dirs, err := cgroup.Find(req.Spec.Linux.CgroupsPath)
	if err != nil {
		return nil, nil, err
	}
	c := &container{req: req, reap: reap, dirs: dirs, priv: ownPrivileges(), now: time.Now,
		execs: make(map[string]*process)}
	warnings := degrade(req.Spec.Process, c.priv)
	if req.Runtime != "" {
		c.launch = newCommand(req, reap)
	} else if c.launch, err = newLibct(req); err != nil {
		return nil, nil, err
	}
	log, err := logs.OpenWriter(req.Log)
	if err != nil {
		return nil, nil, fmt.Errorf("open the log: %w", err)
	}
	c.init = newProc("", &stdio{terminal: req.Spec.Process.Terminal, stdinOnce: req.StdinOnce,
		log: log, stall: c.stall(), now: c.now, size: req.ConsoleSize})

	var ch *child
	err = reap.launching(func() (int, error) {
		pid, err := c.launch.create(c.init.io)
		if err != nil {
			return 0, err
		}
		ch, err = newChild(pid)
		return pid, err
	})
	if err != nil {
		c.init.io.finish()
		// A half-made control group is all that the launcher may have left.
		return nil, nil, errors.Join(classify(err), c.removeGroup())
	}
	c.init.begin(ch, false)
	c.init.io.run()
	c.exited.Add(1)
	go c.awaitInit(ch)
	return c, &wire.Created{InitPid: ch.pid, Warnings: append(warnings, takeWarnings()...)}, nil
}

func (c *container) stall() time.Duration {
	if c.req.StallTimeout > 0 {
		return c.req.StallTimeout
	}
	return defaultStall
}

// awaitInit sees the container's end. The order matters: everything logged,
// then the exit code durable, then told.
func (c *container) awaitInit(ch *child) {
	defer c.exited.Done()
	code, err := ch.wait()
	at := c.now()
	if err != nil {
		code = 255 // cannot happen: nobody else reaps our children
	}
	exit := wire.Exit{Code: code, At: at, OOMKilled: c.dirs.OOMKills() > 0}
	c.reap.forget(ch.pid)
	if !privatePids(c.req.Spec) {
		// Init's end does not end the others: we do.
		if err := c.dirs.Kill(); err != nil {
			c.fail(err)
		}
	}
	c.init.io.finish()
	if n := c.init.io.logFailed.Load(); n > 0 {
		c.fail(fmt.Errorf("%d log entries could not be written", n))
	}
	if err := atomicfile.WriteJSON(filepath.Join(c.req.Dir, wire.ExitFile), exit, 0o600); err != nil {
		c.fail(err)
	}
	c.init.end(exit)
	c.reap.collect()
	// Ahead of Delete, while the daemon does other things.
	if err := c.removeGroup(); err != nil {
		c.fail(err)
	}
}

// removeGroup kills what is left and removes the control groups, once.
func (c *container) removeGroup() (err error) {
	c.groupMu.Lock()
	defer c.groupMu.Unlock()
	if c.groupGone {
		return nil
	}
	defer func() { c.groupGone = err == nil }()
	if err := c.dirs.Remove(); err == nil {
		return nil
	}
	if err := c.dirs.Kill(); err != nil {
		return err
	}
	c.reap.collect()
	return c.dirs.Remove()
}

// fail writes down what nobody asked for, and so nobody is told.
func (c *container) fail(err error) {
	f, oerr := os.OpenFile(filepath.Join(c.req.Dir, wire.CrashFile), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if oerr != nil {
		return // there is no other place
	}
	defer f.Close()
	fmt.Fprintln(f, c.now().UTC().Format(time.RFC3339Nano), err)
}

// privatePids says whether the container has a PID namespace of its own, so
// that the end of its init is the end of all its processes.
func privatePids(spec *specs.Spec) bool {
	for _, ns := range spec.Linux.Namespaces {
		if ns.Type == specs.PIDNamespace {
			return ns.Path == ""
		}
	}
	return false
}

// find gives a process by exec ID, "" for init.
func (c *container) find(id string) (*process, error) {
	if id == "" {
		return c.init, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.execs[id]
	if p == nil {
		return nil, wire.Errorf(wire.NotFound, "No such exec instance: %s", id)
	}
	return p, nil
}

func (c *container) start(id string) (*wire.Started, error) {
	p, err := c.find(id)
	if err != nil {
		return nil, err
	}
	p.startMu.Lock()
	defer p.startMu.Unlock()
	s := p.state()
	switch {
	case s.Started && id == "":
		return nil, wire.Errorf(wire.Conflict, "container is already started")
	case s.Started:
		return nil, wire.Errorf(wire.Conflict, "exec process is already started")
	case c.init.ended():
		return nil, wire.Errorf(wire.Conflict, "container is not running")
	}
	if id != "" {
		return c.startExec(p)
	}
	if err := c.launch.start(); err != nil {
		return nil, classify(err)
	}
	p.setStarted()
	return &wire.Started{Pid: p.state().Pid}, nil
}

func (c *container) startExec(p *process) (*wire.Started, error) {
	c.opMu.Lock()
	paused := c.paused
	c.opMu.Unlock()
	if paused {
		return nil, wire.Errorf(wire.Conflict, "container is paused")
	}
	warnings := degrade(p.spec, c.priv)
	var ch *child
	err := c.reap.launching(func() (int, error) {
		pid, err := c.launch.exec(p.id, p.spec, p.open, p.io)
		if err != nil {
			return 0, err
		}
		ch, err = newChild(pid)
		return pid, err
	})
	if err != nil {
		p.io.finish()
		p.setStarted()
		err = classify(err)
		p.end(wire.Exit{Code: startFailureCode(err), At: c.now()})
		return nil, err
	}
	p.begin(ch, true)
	p.io.run()
	c.exited.Add(1)
	go c.awaitExec(p, ch)
	return &wire.Started{Pid: ch.pid, Warnings: warnings}, nil
}

// startFailureCode is the exit code that shells and Docker give a command
// that could not be run.
func startFailureCode(err error) int {
	switch wire.FromError(err).Class {
	case wire.NotFound:
		return 127
	case wire.PermissionDenied:
		return 126
	default:
		return 128
	}
}

func (c *container) awaitExec(p *process, ch *child) {
	defer c.exited.Done()
	code, err := ch.wait()
	at := c.now()
	if err != nil {
		code = 255
	}
	c.reap.forget(ch.pid)
	p.io.finish()
	p.end(wire.Exit{Code: code, At: at})
	c.trim()
}

// trim forgets the oldest ended execs beyond keptExecs.
func (c *container) trim() {
	c.mu.Lock()
	defer c.mu.Unlock()
	excess := len(c.order) - keptExecs
	kept := c.order[:0]
	for _, id := range c.order {
		if excess > 0 && c.execs[id].ended() {
			delete(c.execs, id)
			excess--
			continue
		}
		kept = append(kept, id)
	}
	c.order = kept
}

func (c *container) exec(r *wire.Exec) error {
	if r.ID == "" || r.ID != filepath.Base(r.ID) {
		return wire.Errorf(wire.Invalid, "invalid exec ID %q", r.ID)
	}
	if r.Process == nil || len(r.Process.Args) == 0 {
		return wire.Errorf(wire.Invalid, "No exec command specified")
	}
	if c.init.ended() {
		return wire.Errorf(wire.Conflict, "container is not running")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.execs[r.ID] != nil {
		return wire.Errorf(wire.Conflict, "exec %s exists already", r.ID)
	}
	p := newProc(r.ID, &stdio{terminal: r.Process.Terminal, stdinOnce: true,
		stall: c.stall(), now: c.now, size: r.ConsoleSize})
	p.spec, p.open = r.Process, r.OpenStdin
	c.execs[r.ID] = p
	c.order = append(c.order, r.ID)
	return nil
}

func (c *container) signal(r *wire.Signal) error {
	p, err := c.find(r.Exec)
	if err != nil {
		return err
	}
	sig := syscall.Signal(r.Signal)
	if err := p.signal(sig); err != nil {
		return err
	}
	if sig != syscall.SIGKILL {
		return nil
	}
	if c.isPaused() {
		// On v1 a frozen process does not die.
		return c.freeze(false)
	}
	return nil
}

func (c *container) isPaused() bool {
	c.opMu.Lock()
	defer c.opMu.Unlock()
	return c.paused
}

// freeze pauses or resumes.
func (c *container) freeze(on bool) error {
	c.opMu.Lock()
	defer c.opMu.Unlock()
	if c.paused == on {
		return nil
	}
	f := c.launch.resume
	if on {
		if c.init.ended() {
			return wire.Errorf(wire.Conflict, "container is not running")
		}
		f = c.launch.pause
	}
	if err := f(); err != nil {
		if c.init.ended() {
			return wire.Errorf(wire.Conflict, "container is not running")
		}
		return err
	}
	c.paused = on
	return nil
}

func (c *container) update(r *specs.LinuxResources) error {
	c.opMu.Lock()
	defer c.opMu.Unlock()
	if c.init.ended() {
		return wire.Errorf(wire.Conflict, "container is not running")
	}
	return c.launch.update(r)
}

// delete ends and removes everything. It may be repeated after a failure.
func (c *container) delete() error {
	if !c.init.ended() {
		// ESRCH means that it has just ended by itself.
		if err := c.init.signal(syscall.SIGKILL); err != nil && wire.FromError(err).Class != wire.NotFound {
			return err
		}
		if err := c.dirs.Kill(); err != nil {
			return err
		}
	}
	c.exited.Wait()
	if err := c.removeGroup(); err != nil {
		return err
	}
	c.opMu.Lock()
	defer c.opMu.Unlock()
	return c.launch.destroy()
}

// drained is closed when no client waits for output any more.
func (c *container) drained() <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.init.io.writers.Wait()
		c.mu.Lock()
		var all []*process
		for _, p := range c.execs {
			all = append(all, p)
		}
		c.mu.Unlock()
		for _, p := range all {
			p.io.writers.Wait()
		}
	}()
	return done
}
