package runtime

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/cleatlabs/cleat/engine/runtime/wire"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

// process is a container's init (exec is "") or an exec.
type process struct {
	task *task
	exec string

	mu  sync.Mutex
	pid int

	// One request serves every Wait: a canceled one leaves nothing behind in
	// the shim. over is closed when exit and waitErr are set.
	waitOnce sync.Once
	over     chan struct{}
	exit     Exit
	waitErr  error
}

func newProcess(t *task, exec string, pid int) *process {
	return &process{task: t, exec: exec, pid: pid, over: make(chan struct{})}
}

func (p *process) proc() wire.Proc { return wire.Proc{Exec: p.exec} }

func (p *process) Pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pid
}

func (p *process) Start(ctx context.Context) error {
	var started wire.Started
	if err := p.task.call(ctx, wire.OpStart, p.proc(), &started); err != nil {
		return err
	}
	p.mu.Lock()
	p.pid = started.Pid
	p.mu.Unlock()
	return nil
}

func (p *process) Resize(ctx context.Context, size Size) error {
	return p.task.call(ctx, wire.OpResize, wire.Resize{Proc: p.proc(), Size: wire.Size(size)}, nil)
}

func (p *process) Signal(ctx context.Context, sig syscall.Signal) error {
	return p.task.call(ctx, wire.OpSignal, wire.Signal{Proc: p.proc(), Signal: int(sig)}, nil)
}

func (p *process) Wait(ctx context.Context) (Exit, error) {
	p.await()
	select {
	case <-p.over:
		return p.exit, p.waitErr
	case <-ctx.Done():
		return Exit{}, ctx.Err()
	}
}

// await begins to wait for the process.
func (p *process) await() {
	p.waitOnce.Do(func() {
		if !p.task.driver.spawn(func() {
			defer close(p.over)
			p.exit, p.waitErr = p.askExit()
		}) {
			p.waitErr = errdefs.Unavailablef("the daemon stops")
			close(p.over)
		}
	})
}

func (p *process) askExit() (Exit, error) {
	var e wire.Exit
	err := p.task.client.Call(context.Background(), wire.OpWait, p.proc(), &e)
	switch {
	case !errors.Is(err, wire.ErrClosed):
		return Exit(e), fromWire(err)
	case p.task.driver.isStopped():
		return Exit{}, errdefs.Unavailablef("the daemon stops")
	case p.exec != "":
		// It ended with its container, or with the shim.
		return Exit{Code: 137, At: time.Now(), Lost: !p.task.deleting.Load()}, nil
	default:
		return p.task.lost()
	}
}

// spawn runs f unless the driver has stopped, and has Stop wait for it.
func (d *Driver) spawn(f func()) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopped {
		return false
	}
	d.background.Go(f)
	return true
}

func (d *Driver) isStopped() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stopped
}

// Attach opens a connection of its own, whose bytes the shim has framed.
func (p *process) Attach(_ context.Context, o AttachOptions) (Attachment, error) {
	conn, err := wire.Dial(p.task.dir)
	if err != nil {
		return nil, errdefs.Conflictf("container %s is not running: %w", p.task.id, err)
	}
	err = wire.CallOnce(conn, wire.OpAttach, wire.Attach{
		Proc: p.proc(), Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr,
	}, nil)
	if err != nil {
		conn.Close()
		return nil, fromWire(err)
	}
	return attachment{conn}, nil
}

type attachment struct{ conn *net.UnixConn }

func (a attachment) Output() io.Reader { return a.conn }
func (a attachment) Input() io.Writer  { return a.conn }
func (a attachment) CloseInput() error { return a.conn.CloseWrite() }
func (a attachment) Close() error      { return a.conn.Close() }
