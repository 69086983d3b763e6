package runtime

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"

	"github.com/cleatlabs/cleat/engine/runtime/wire"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

// process is a container's init (exec is "") or an exec.
type process struct {
	task *task
	exec string

	mu  sync.Mutex
	pid int
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
	var e wire.Exit
	err := p.task.client.Call(ctx, wire.OpWait, p.proc(), &e)
	if !errors.Is(err, wire.ErrClosed) {
		return Exit(e), fromWire(err)
	}
	if p.task.driver.isStopped() {
		return Exit{}, errdefs.Unavailablef("the daemon stops")
	}
	return p.task.lost()
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
