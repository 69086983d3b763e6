package network

import (
	"log/slog"

	"github.com/cleatlabs/cleat/engine/network/kernel"
)

// spare keeps one namespace ready, because making one is most of the time that
// Open takes. It has nothing but a loopback and is held by a descriptor only,
// so that a crash leaves nothing of it.
type spare struct {
	home   *kernel.Namespace
	log    *slog.Logger
	ready  chan *kernel.Fresh // of one
	refill chan struct{}      // of one
	stop   chan struct{}
	done   chan struct{}
}

// newSpare starts the goroutine that makes the namespaces; close ends it.
func newSpare(home *kernel.Namespace, log *slog.Logger) *spare {
	p := &spare{
		home: home, log: log, ready: make(chan *kernel.Fresh, 1), refill: make(chan struct{}, 1),
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	go p.loop()
	p.more()
	return p
}

// take returns a namespace; a nil spare always makes one.
func (p *spare) take(home *kernel.Namespace) (*kernel.Fresh, error) {
	if p == nil {
		return kernel.NewNamespace(home)
	}
	select {
	case f := <-p.ready:
		return f, nil
	default:
		return kernel.NewNamespace(home)
	}
}

// more asks for a namespace to be made if none is ready. It is called when the
// hurry is over: the kernel makes namespaces and interfaces one at a time.
func (p *spare) more() {
	if p == nil {
		return
	}
	select {
	case p.refill <- struct{}{}:
	default: // asked already
	}
}

func (p *spare) loop() {
	defer close(p.done)
	for {
		select {
		case <-p.stop:
			return
		case <-p.refill:
		}
		if len(p.ready) > 0 {
			continue
		}
		f, err := kernel.NewNamespace(p.home)
		if err != nil {
			p.log.Debug("no spare network namespace", "error", err)
			continue
		}
		p.ready <- f // only this goroutine sends, and there was room
	}
}

// close ends the goroutine, waits for it, and lets the namespace go.
func (p *spare) close() error {
	if p == nil {
		return nil
	}
	close(p.stop)
	<-p.done
	select {
	case f := <-p.ready:
		return f.Close()
	default:
		return nil
	}
}
