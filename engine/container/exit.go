package container

import (
	"context"
	"errors"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	"golang.org/x/sync/errgroup"

	"github.com/cleatlabs/cleat/engine/runtime"
)

// Back-off of restart policies, as Docker's.
const (
	firstDelay = 100 * time.Millisecond
	lastDelay  = time.Minute
	// provenAfter is how long a container must run for its restarts to count
	// from the beginning again.
	provenAfter = 10 * time.Second
)

// ending is what follows the end of a container.
type ending struct {
	restart bool
	delay   time.Duration
	// failures in a row, this one included if there is a restart.
	failures int
}

// planEnding decides whether a container is started again. It is pure.
// restarts counts the policy's starts since the user's, failures those in a row.
func planEnding(policy container.RestartPolicy, code, restarts, failures int, ran time.Duration, what intent) ending {
	if what != intentNone {
		return ending{}
	}
	if ran >= provenAfter {
		failures = 0
	}
	switch policy.Name {
	case container.RestartPolicyAlways, container.RestartPolicyUnlessStopped:
	case container.RestartPolicyOnFailure:
		if code == 0 || policy.MaximumRetryCount > 0 && restarts >= policy.MaximumRetryCount {
			return ending{}
		}
	default:
		return ending{}
	}
	delay := lastDelay
	if failures < 10 {
		delay = min(lastDelay, firstDelay<<failures)
	}
	return ending{restart: true, delay: delay, failures: failures + 1}
}

// watch waits for the end of a run and deals with it.
func (s *Service) watch(c *instance, r *run) {
	exit, err := r.task.Wait(s.ctx)
	if s.ctx.Err() != nil {
		return // the daemon stops; the container does not
	}
	if err != nil {
		s.log.Error("could not learn how a container ended", "container", c.id, "error", err)
		exit = runtime.Exit{Code: 255, At: s.clock.Now()}
	}
	close(r.logged)
	s.finish(c, r, exit)
}

// finish clears away what ran and decides what comes next.
func (s *Service) finish(c *instance, r *run, exit runtime.Exit) {
	ctx := context.Background()
	r.cancel()
	ran := exit.At.Sub(r.started)
	if exit.OOMKilled {
		s.publish(c, events.ActionOOM, nil)
	}
	s.publish(c, events.ActionDie, exitAttrs(exit.Code, ran))
	unlock, err := c.lock(ctx)
	if err != nil {
		s.log.Error("container cannot be locked", "container", c.id, "error", err)
		return
	}
	r.beside.Wait()
	s.clearAway(ctx, c, r)
	c.mu.Lock()
	what, auto := c.intent, c.rec.HostConfig.AutoRemove
	c.mu.Unlock()
	rec := c.snapshot()
	e := planEnding(rec.HostConfig.RestartPolicy, exit.Code, rec.RestartCount, rec.Failures, ran, what)
	removing := auto && !e.restart && what != intentRestart
	s.recordEnd(c, exit, e, what, removing)
	c.mu.Lock()
	c.run = nil
	var again chan struct{}
	if e.restart {
		again = make(chan struct{})
		c.backoff = again
	}
	c.wake(false)
	c.mu.Unlock()
	close(r.done)
	if removing {
		if err := s.removeLocked(ctx, c, true); err != nil {
			s.log.Error("could not remove a container at its end", "container", c.id, "error", err)
		}
	}
	unlock()
	if e.restart {
		s.spawn(func() { s.restartLater(c, e.delay, again) })
	}
}

func (s *Service) recordEnd(c *instance, exit runtime.Exit, e ending, what intent, removing bool) {
	keep := durable
	switch {
	case removing:
		keep = inMemory // an auto-remove container without a task is removed by Restore too
	case e.restart || what == intentRestart:
		keep = volatile // the next start writes again
	}
	err := c.change(keep, func(r *record) {
		r.State = container.StateExited
		if e.restart {
			r.State = container.StateRestarting
		}
		r.Failures = e.failures
		r.ExitCode, r.OOMKilled, r.FinishedAt = exit.Code, exit.OOMKilled, exit.At.UTC()
		r.Error = ""
		if exit.Lost {
			r.Error = "the container's shim was killed, and the container with it"
		}
		r.ManuallyStopped = what == intentStop
		r.Live, r.Ports, r.Health = nil, nil, ""
	})
	if err != nil {
		s.log.Error("could not record the end of a container", "container", c.id, "error", err)
	}
}

// clearAway removes task, network and mounts of a run, side by side. What
// fails is logged; Restore and rm try again.
func (s *Service) clearAway(ctx context.Context, c *instance, r *run) {
	rec := c.snapshot()
	var g errgroup.Group
	if sandboxed(rec.HostConfig.NetworkMode) {
		g.Go(func() error { return s.deps.Networks.Close(ctx, c.id) })
	}
	g.Go(func() error {
		return errors.Join(r.task.Delete(ctx), s.unmountVolumes(ctx, c, &rec), unmountShm(c.dir))
	})
	if err := g.Wait(); err != nil {
		s.log.Error("clean-up of a container is incomplete", "container", c.id, "error", err)
	}
}

func (s *Service) unmountVolumes(ctx context.Context, c *instance, rec *record) error {
	var errs []error
	for _, m := range rec.Mounts {
		if m.Type == mount.TypeVolume {
			errs = append(errs, ignoreNotFound(s.deps.Volumes.Unmount(ctx, m.Name, c.id)))
		}
	}
	return errors.Join(errs...)
}

// restartLater starts the container again after its back-off, unless somebody
// decides otherwise meanwhile.
func (s *Service) restartLater(c *instance, delay time.Duration, again chan struct{}) {
	t := s.clock.NewTimer(delay)
	defer t.Stop()
	select {
	case <-t.C():
	case <-again:
		return // started or stopped by somebody
	case <-s.ctx.Done():
		return
	}
	ctx := context.WithoutCancel(s.ctx)
	unlock, err := c.lock(ctx)
	if err != nil {
		return
	}
	defer unlock()
	c.mu.Lock()
	mine := c.rec.State == container.StateRestarting && c.backoff == again
	if mine {
		c.backoff = nil
		c.rec.RestartCount++
	}
	c.mu.Unlock()
	if !mine || s.ctx.Err() != nil {
		return
	}
	if err := s.start(ctx, c); err != nil {
		s.log.Warn("a container could not be restarted", "container", c.id, "error", err)
	}
}
