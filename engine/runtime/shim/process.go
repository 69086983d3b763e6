package shim

import (
	"sync"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cleatlabs/cleat/engine/runtime/wire"
)

// process is the container's init or an exec.
type process struct {
	id   string // "" is init
	io   *stdio
	spec *specs.Process // of an exec
	open bool           // stdin, of an exec

	startMu sync.Mutex // one start at a time

	mu      sync.Mutex
	child   *child
	started bool
	exit    *wire.Exit
	done    chan struct{} // closed when exit is set
}

func newProc(id string, io *stdio) *process {
	return &process{id: id, io: io, done: make(chan struct{})}
}

// begin records that the process exists.
func (p *process) begin(c *child, started bool) {
	p.mu.Lock()
	p.child, p.started = c, started
	p.mu.Unlock()
}

func (p *process) setStarted() {
	p.mu.Lock()
	p.started = true
	p.mu.Unlock()
}

// end tells everybody who waits.
func (p *process) end(e wire.Exit) {
	p.mu.Lock()
	p.exit = &e
	p.mu.Unlock()
	close(p.done)
}

func (p *process) state() wire.ProcState {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := wire.ProcState{Started: p.started, Exit: p.exit}
	if p.child != nil && p.started {
		s.Pid = p.child.pid
	}
	return s
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *process) signal(sig syscall.Signal) error {
	p.mu.Lock()
	c := p.child
	p.mu.Unlock()
	if c == nil {
		return wire.Errorf(wire.Conflict, "process is not running")
	}
	err := c.signal(sig)
	if err == syscall.ESRCH {
		return wire.Errorf(wire.NotFound, "process already finished")
	}
	return err
}
