package container

import (
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/cleatlabs/cleat/engine/runtime"
	"github.com/cleatlabs/cleat/internal/errdefs"
	"github.com/cleatlabs/cleat/internal/safepath"
)

// execSession is an additional process of a container: asked for, running or
// ended. It is kept in memory only; its end is kept for a while, to be asked for.
type execSession struct {
	id  string
	c   *instance
	req container.ExecCreateRequest

	// mu is held only briefly, never over what the shim is asked: it is taken
	// with the index locked.
	mu      sync.Mutex
	begun   bool // ExecStart was called
	running bool
	proc    runtime.Process
	code    *int
	endedAt time.Time
	// ended is closed once the end of a started process is recorded.
	ended chan struct{}
}

// recordedEnd is an attachment whose output ends no sooner than the exit code
// can be asked for: clients ask as soon as they see the end.
type recordedEnd struct {
	runtime.Attachment
	ended, over <-chan struct{}
}

func (a recordedEnd) Output() io.Reader { return endReader{a.Attachment.Output(), a} }

type endReader struct {
	io.Reader
	a recordedEnd
}

func (r endReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		select {
		case <-r.a.ended:
		case <-r.a.over: // the daemon stops
		}
	}
	return n, err
}

// execMemory is how long an ended exec can be inspected.
const execMemory = 5 * time.Minute

// ExecCreate notes a process to be started in a running container.
func (s *Service) ExecCreate(_ context.Context, ref string, r container.ExecCreateRequest) (string, error) {
	c, err := s.lookup(ref)
	if err != nil {
		return "", err
	}
	if len(r.Cmd) == 0 {
		return "", errdefs.Invalidf("No exec command specified")
	}
	if _, err := c.liveTask(verbExec); err != nil {
		return "", err
	}
	r.Cmd, r.Env = slices.Clone(r.Cmd), slices.Clone(r.Env)
	e := &execSession{id: newID(), c: c, req: r, ended: make(chan struct{})}
	now := s.clock.Now()
	s.mu.Lock()
	for id, old := range s.execs {
		if old.forgotten(now) {
			delete(s.execs, id)
		}
	}
	s.execs[e.id] = e
	s.mu.Unlock()
	s.publishExec(e, events.ActionExecCreate, nil)
	return e.id, nil
}

func (e *execSession) forgotten(now time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return !e.endedAt.IsZero() && now.Sub(e.endedAt) > execMemory
}

func (s *Service) publishExec(e *execSession, action events.Action, extra map[string]string) {
	attrs := map[string]string{"execID": e.id}
	for k, v := range extra {
		attrs[k] = v
	}
	if action != events.ActionExecDie {
		action += events.Action(": " + strings.Join(e.req.Cmd, " "))
	}
	s.publish(e.c, action, attrs)
}

func (s *Service) exec(id string) (*execSession, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if e, ok := s.execs[id]; ok {
		return e, nil
	}
	return nil, errdefs.NotFoundf("No such exec instance: %s", id)
}

// execIDs lists the execs of c that have not ended; nil for none, as Docker.
func (s *Service) execIDs(c *instance) []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var ids []string
	for id, e := range s.execs {
		if e.c != c {
			continue
		}
		e.mu.Lock()
		if e.endedAt.IsZero() {
			ids = append(ids, id)
		}
		e.mu.Unlock()
	}
	slices.Sort(ids)
	return ids
}

// ExecStart starts the process, see dockerapi.Containers.
func (s *Service) ExecStart(ctx context.Context, execID string, r container.ExecStartRequest, attach bool) (runtime.Attachment, bool, error) {
	e, err := s.exec(execID)
	if err != nil {
		return nil, false, err
	}
	life, err := e.c.liveTask(verbExec)
	if err != nil {
		return nil, false, err
	}
	if err := e.begin(); err != nil {
		return nil, false, err
	}
	ctx = context.WithoutCancel(ctx)
	size := e.req.ConsoleSize
	if r.ConsoleSize != nil {
		size = r.ConsoleSize
	}
	a, proc, err := s.startExec(ctx, e, life, size, attach)
	if err != nil {
		code, out := startError(err)
		e.mu.Lock()
		e.code, e.endedAt = &code, s.clock.Now()
		e.mu.Unlock()
		return nil, e.req.Tty, out
	}
	e.mu.Lock()
	e.proc, e.running = proc, true
	e.mu.Unlock()
	s.publishExec(e, events.ActionExecStart, nil)
	if !s.spawn(func() { s.awaitExec(e, proc) }) {
		s.log.Debug("the daemon stops while an exec starts", "container", e.c.id)
	}
	if a != nil {
		a = recordedEnd{Attachment: a, ended: e.ended, over: s.ctx.Done()}
	}
	return a, e.req.Tty, nil
}

// begin takes the one start that an exec has.
func (e *execSession) begin() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case !e.begun:
		e.begun = true
		return nil
	case e.endedAt.IsZero():
		return errdefs.Conflictf("exec %s is already running", e.id)
	}
	return errdefs.Conflictf("exec command %s has already run", e.id)
}

// startExec makes, attaches and starts the process.
func (s *Service) startExec(ctx context.Context, e *execSession, life *run, size *[2]uint, attach bool) (runtime.Attachment, runtime.Process, error) {
	proc, err := s.execProcess(ctx, e.c, life, e.id, &e.req, size)
	if err != nil {
		return nil, nil, err
	}
	var a runtime.Attachment
	if attach {
		a, err = proc.Attach(ctx, runtime.AttachOptions{Stdin: e.req.AttachStdin, Stdout: e.req.AttachStdout, Stderr: e.req.AttachStderr})
		if err != nil {
			return nil, nil, err
		}
	}
	if err := proc.Start(ctx); err != nil {
		if a != nil {
			_ = a.Close() // err says more
		}
		return nil, nil, err
	}
	return a, proc, nil
}

func (s *Service) awaitExec(e *execSession, proc runtime.Process) {
	exit, err := proc.Wait(s.ctx)
	if s.ctx.Err() != nil {
		return // the daemon stops
	}
	if err != nil {
		s.log.Debug("the end of an exec was not seen", "container", e.c.id, "exec", e.id, "error", err)
		exit.Code = 137 // its container ended
	}
	e.mu.Lock()
	e.running, e.code, e.endedAt = false, &exit.Code, s.clock.Now()
	e.mu.Unlock()
	close(e.ended)
	s.publishExec(e, events.ActionExecDie, map[string]string{"exitCode": strconv.Itoa(exit.Code)})
}

// execProcess describes a process in the container's terms and hands it to
// the shim; it does not run yet.
func (s *Service) execProcess(ctx context.Context, c *instance, life *run, id string, q *container.ExecCreateRequest, size *[2]uint) (runtime.Process, error) {
	rec := c.snapshot()
	cfg, host := *rec.Config, *rec.HostConfig
	cfg.Entrypoint, cfg.Cmd, cfg.Tty = nil, q.Cmd, q.Tty
	cfg.Env = replaceEnv(cfg.Env, q.Env)
	if q.WorkingDir != "" {
		cfg.WorkingDir = q.WorkingDir
	}
	if q.User != "" {
		cfg.User = q.User
	}
	if q.Privileged {
		host.Privileged = true
	}
	in := &specInput{ID: rec.ID, Config: &cfg, Host: &host, Daemon: &s.cfg, Facts: s.facts}
	files, err := liveAccountFiles(life)
	if err != nil {
		return nil, err
	}
	if in.Account, err = resolveAccount(files, cfg.User, host.GroupAdd); err != nil {
		return nil, err
	}
	if in.Caps, err = planCapabilities(&host, s.facts); err != nil {
		return nil, err
	}
	if in.Sec, err = parseSecurity(host.SecurityOpt, &s.cfg); err != nil {
		return nil, err
	}
	p := planProcess(in)
	req := runtime.ExecRequest{ID: id, Process: *p, OpenStdin: q.AttachStdin}
	if size != nil && q.Tty {
		req.ConsoleSize = runtime.Size{Height: uint16(min(size[0], 65535)), Width: uint16(min(size[1], 65535))}
	}
	return life.task.Exec(ctx, req)
}

// liveAccountFiles reads them where the container's processes see them.
func liveAccountFiles(life *run) (accountFiles, error) {
	root, err := safepath.OpenRoot(life.task.Root())
	if err != nil {
		return accountFiles{}, errdefs.Conflictf("container %s is not running", life.task.ID())
	}
	defer root.Close() // only read
	return readAccountFiles(root)
}

// ExecInspect shows an exec.
func (s *Service) ExecInspect(_ context.Context, execID string) (*container.ExecInspectResponse, error) {
	e, err := s.exec(execID)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	privileged := e.req.Privileged
	out := &container.ExecInspectResponse{
		ID: e.id, Running: e.running, ExitCode: e.code, OpenStdin: e.req.AttachStdin, OpenStdout: e.req.AttachStdout,
		OpenStderr: e.req.AttachStderr, CanRemove: !e.endedAt.IsZero(), ContainerID: e.c.id, DetachKeys: []byte(e.req.DetachKeys),
		ProcessConfig: &container.ExecProcessConfig{
			Tty: e.req.Tty, Entrypoint: e.req.Cmd[0], Arguments: e.req.Cmd[1:], Privileged: &privileged, User: e.req.User,
		},
	}
	if e.running {
		out.Pid = e.proc.Pid()
	}
	return out, nil
}

// ExecResize sets the size of an exec's terminal.
func (s *Service) ExecResize(ctx context.Context, execID string, size runtime.Size) error {
	e, err := s.exec(execID)
	if err != nil {
		return err
	}
	e.mu.Lock()
	proc, running := e.proc, e.running
	e.mu.Unlock()
	if !running {
		return errdefs.Conflictf("exec process is not started")
	}
	return proc.Resize(ctx, size)
}
