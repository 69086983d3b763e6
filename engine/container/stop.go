package container

import (
	"context"
	"errors"
	"strconv"
	"syscall"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/sys/signal"

	"github.com/cleatlabs/cleat/engine/runtime"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

// killPatience is how long a killed container may take to be cleared away
// before the caller is told.
const killPatience = 30 * time.Second

// Stop asks a container to end, and kills it when it does not in time.
func (s *Service) Stop(ctx context.Context, ref string, o StopOptions) error {
	c, err := s.lookup(ref)
	if err != nil {
		return err
	}
	if err := s.stop(ctx, c, o, intentStop); err != nil {
		return err
	}
	s.publish(c, events.ActionStop, nil)
	return nil
}

// stop ends what runs, for the purpose given. It does not hold op, which the
// end itself needs.
func (s *Service) stop(ctx context.Context, c *instance, o StopOptions, what intent) error {
	c.mu.Lock()
	if _, err := next(c.rec.State, verbStop, c.id, c.rec.Name); err != nil {
		c.mu.Unlock()
		return err
	}
	sig, err := stopSignal(o.Signal, c.rec.Config.StopSignal)
	if err != nil {
		c.mu.Unlock()
		return err
	}
	c.intent = what
	r, cfg, waiting := c.run, c.rec.Config, c.rec.State == container.StateRestarting
	frozen := c.rec.State == container.StatePaused
	c.mu.Unlock()
	if waiting || r == nil {
		return s.stopWaiting(ctx, c, what)
	}
	if err := s.signal(ctx, c, r, sig); err != nil && !errors.Is(err, errdefs.ErrNotFound) && !errors.Is(err, errdefs.ErrConflict) {
		return err
	}
	if frozen { // let it act on the signal
		if err := r.task.Resume(ctx); err != nil {
			s.log.Debug("could not thaw a container that is to stop", "container", c.id, "error", err)
		}
	}
	if !s.await(ctx, r, s.stopTimeout(o.Timeout, cfg.StopTimeout)) {
		s.log.Debug("container did not stop in time; it is killed", "container", c.id)
		if err := s.signal(ctx, c, r, syscall.SIGKILL); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			s.log.Warn("could not kill", "container", c.id, "error", err)
		}
		if !s.await(ctx, r, killPatience) {
			return errdefs.Internalf("container %s was killed and does not end", c.id)
		}
	}
	return nil
}

// stopWaiting ends the wait of a container for its restart.
func (s *Service) stopWaiting(ctx context.Context, c *instance, what intent) error {
	unlock, err := c.lock(ctx)
	if err != nil {
		return err
	}
	c.mu.Lock()
	r := c.run
	c.mu.Unlock()
	if r != nil { // it was started just before
		unlock()
		return s.stop(ctx, c, StopOptions{}, what)
	}
	defer unlock()
	c.endBackoff()
	err = c.change(durable, func(rec *record) {
		rec.State, rec.ManuallyStopped = container.StateExited, what == intentStop
	})
	c.mu.Lock()
	c.wake(false)
	c.mu.Unlock()
	return err
}

// await waits for the end of a run; a negative time waits for ever.
func (s *Service) await(ctx context.Context, r *run, d time.Duration) bool {
	var late <-chan time.Time
	if d >= 0 {
		t := s.clock.NewTimer(d)
		defer t.Stop()
		late = t.C()
	}
	select {
	case <-r.done:
		return true
	case <-late:
		return false
	case <-ctx.Done():
		return false
	}
}

// stopTimeout is the request's, the container's or the daemon's, in this order.
func (s *Service) stopTimeout(asked, own *int) time.Duration {
	for _, t := range []*int{asked, own} {
		if t != nil {
			return time.Duration(*t) * time.Second
		}
	}
	return time.Duration(s.cfg.StopTimeout) * time.Second
}

func stopSignal(asked, own string) (syscall.Signal, error) {
	for _, name := range []string{asked, own} {
		if name == "" {
			continue
		}
		sig, err := signal.ParseSignal(name)
		if err != nil {
			return 0, errdefs.Invalidf("invalid signal: %s", name)
		}
		return sig, nil
	}
	return syscall.SIGTERM, nil
}

func (s *Service) signal(ctx context.Context, c *instance, r *run, sig syscall.Signal) error {
	// First, so that nobody hears of the end before what led to it.
	s.publish(c, events.ActionKill, map[string]string{"signal": strconv.Itoa(int(sig))})
	return r.task.Signal(ctx, sig)
}

// Kill sends a signal.
func (s *Service) Kill(ctx context.Context, ref, name string) error {
	c, err := s.lookup(ref)
	if err != nil {
		return err
	}
	sig := syscall.SIGKILL
	if name != "" {
		if sig, err = signal.ParseSignal(name); err != nil {
			return errdefs.Invalidf("invalid signal: %s", name)
		}
	}
	if c.snapshot().State == container.StateRestarting {
		return s.stopWaiting(ctx, c, intentStop)
	}
	r, err := c.liveTask(verbKill)
	if err != nil {
		return err
	}
	own, err := stopSignal("", c.snapshot().Config.StopSignal)
	if err != nil {
		own = syscall.SIGTERM
	}
	if sig == syscall.SIGKILL || sig == own {
		c.mu.Lock()
		c.intent = intentStop
		c.mu.Unlock()
	}
	if err := s.signal(ctx, c, r, sig); err != nil {
		if errors.Is(err, errdefs.ErrNotFound) {
			return refusal(container.StateExited, verbKill, c.id, c.snapshot().Name)
		}
		return err
	}
	if sig == syscall.SIGKILL && !s.await(ctx, r, killPatience) {
		return errdefs.Internalf("container %s was killed and does not end", c.id)
	}
	return nil
}

// Restart stops a container if it runs, and starts it.
func (s *Service) Restart(ctx context.Context, ref string, o StopOptions) error {
	c, err := s.lookup(ref)
	if err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	if err := s.stop(ctx, c, o, intentRestart); err != nil && !errors.Is(err, errdefs.ErrNotModified) {
		return err
	}
	if err := s.Start(ctx, c.id); err != nil && !errors.Is(err, errdefs.ErrNotModified) {
		return err
	}
	s.publish(c, events.ActionRestart, nil)
	return nil
}

// Pause freezes the container's processes.
func (s *Service) Pause(ctx context.Context, ref string) error {
	return s.freeze(ctx, ref, verbPause, events.ActionPause, func(t runtime.Task) error { return t.Pause(ctx) })
}

// Unpause lets them go on.
func (s *Service) Unpause(ctx context.Context, ref string) error {
	return s.freeze(ctx, ref, verbUnpause, events.ActionUnPause, func(t runtime.Task) error { return t.Resume(ctx) })
}

func (s *Service) freeze(ctx context.Context, ref string, v verb, action events.Action, f func(runtime.Task) error) error {
	c, err := s.lookup(ref)
	if err != nil {
		return err
	}
	unlock, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	r, err := c.liveTask(v)
	if err != nil {
		return err
	}
	if err := f(r.task); err != nil {
		return err
	}
	err = c.change(volatile, func(rec *record) {
		if to, err := next(rec.State, v, c.id, rec.Name); err == nil {
			rec.State = to
		}
	})
	if err != nil {
		return err
	}
	s.publish(c, action, nil)
	return nil
}
