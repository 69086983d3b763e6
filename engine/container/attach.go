package container

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/moby/moby/api/types/events"

	"github.com/cleatlabs/cleat/engine/runtime"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

// pendingAttachment is an attachment to a container that does not run yet: it
// becomes a real one when the container starts, before its program does.
type pendingAttachment struct {
	opts runtime.AttachOptions
	drop func() // takes it off the container's list

	ready chan struct{} // closed when real or err is set
	once  sync.Once
	real  runtime.Attachment
	err   error
}

func newPending(opts runtime.AttachOptions) *pendingAttachment {
	return &pendingAttachment{opts: opts, ready: make(chan struct{})}
}

// settle makes the attachment real, or ends it with err. The first call counts.
func (p *pendingAttachment) settle(a runtime.Attachment, err error) (taken bool) {
	p.once.Do(func() {
		p.real, p.err, taken = a, err, true
		close(p.ready)
	})
	return taken
}

func (p *pendingAttachment) Output() io.Reader { return (*pendingOutput)(p) }
func (p *pendingAttachment) Input() io.Writer  { return (*pendingInput)(p) }

func (p *pendingAttachment) CloseInput() error {
	<-p.ready
	if p.err != nil {
		return nil // nobody reads any more
	}
	return p.real.CloseInput()
}

func (p *pendingAttachment) Close() error {
	p.drop()
	if p.settle(nil, io.EOF) || p.real == nil {
		return nil
	}
	return p.real.Close()
}

type pendingOutput pendingAttachment

func (p *pendingOutput) Read(b []byte) (int, error) {
	<-p.ready
	if p.err != nil {
		return 0, p.err
	}
	return p.real.Output().Read(b)
}

type pendingInput pendingAttachment

func (p *pendingInput) Write(b []byte) (int, error) {
	<-p.ready
	if p.err != nil {
		return 0, io.ErrClosedPipe
	}
	return p.real.Input().Write(b)
}

// Attach connects to the container's streams, now or when it starts.
func (s *Service) Attach(ctx context.Context, ref string, o runtime.AttachOptions) (runtime.Attachment, bool, error) {
	c, err := s.lookup(ref)
	if err != nil {
		return nil, false, err
	}
	c.mu.Lock()
	tty := c.rec.Config.Tty
	if _, err := next(c.rec.State, verbAttach, c.id, c.rec.Name); err != nil {
		c.mu.Unlock()
		return nil, false, err
	}
	o.Stdin = o.Stdin && c.rec.Config.OpenStdin
	r := c.run
	if r == nil {
		p := newPending(o)
		p.drop = func() {
			c.mu.Lock()
			delete(c.pending, p)
			c.mu.Unlock()
		}
		c.pending[p] = struct{}{}
		c.mu.Unlock()
		return p, tty, nil
	}
	c.mu.Unlock()
	a, err := r.task.Attach(ctx, o)
	if err != nil {
		return nil, false, err
	}
	s.publish(c, events.ActionAttach, nil)
	return a, tty, nil
}

// connectPending attaches those that wait. A client that cannot be attached
// sees the end of its stream.
func (s *Service) connectPending(ctx context.Context, c *instance, task runtime.Task) {
	for _, p := range c.takePending() {
		a, err := task.Attach(ctx, p.opts)
		if err != nil {
			s.log.Warn("could not attach a waiting client", "container", c.id, "error", err)
			p.settle(nil, io.EOF)
			continue
		}
		if !p.settle(a, nil) {
			// The client has gone meanwhile.
			err = a.Close()
		}
		if err != nil {
			s.log.Debug("close attachment", "container", c.id, "error", err)
		}
		s.publish(c, events.ActionAttach, nil)
	}
}

func (c *instance) takePending() []*pendingAttachment {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []*pendingAttachment
	for p := range c.pending {
		all = append(all, p)
	}
	clear(c.pending)
	return all
}

// endPending ends the wait of those that will never be attached.
func (c *instance) endPending() {
	for _, p := range c.takePending() {
		p.settle(nil, io.EOF)
	}
}

// Resize changes the size of the container's terminal.
func (s *Service) Resize(ctx context.Context, ref string, size runtime.Size) error {
	c, err := s.lookup(ref)
	if err != nil {
		return err
	}
	r, err := c.liveTask(verbUse)
	if err != nil {
		return err
	}
	return r.task.Resize(ctx, size)
}

// Tty says whether the container has a terminal.
func (s *Service) Tty(_ context.Context, ref string) (bool, error) {
	c, err := s.lookup(ref)
	if err != nil {
		return false, err
	}
	return c.snapshot().Config.Tty, nil
}

// startError turns the failure to start a program into Docker's exit code and
// an error that is the request's fault.
func startError(err error) (code int, out error) {
	switch {
	case errors.Is(err, errdefs.ErrNotFound):
		return 127, errdefs.As(errdefs.ErrInvalidArgument, errors.New(err.Error()))
	case errors.Is(err, errdefs.ErrPermissionDenied):
		return 126, errdefs.As(errdefs.ErrInvalidArgument, errors.New(err.Error()))
	default:
		return 128, err
	}
}
