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

// finish clears away what ran and decides what comes next. The end is on disk
// before the task goes, and with it the shim's own note of the exit code: a
// daemon that dies in between finds what was decided.
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
	c.mu.Lock()
	end := c.planFinish(exit, ran)
	c.mu.Unlock()
	s.clearAway(ctx, c, r, &end)
	if end = s.settleEnd(c, exit, ran, end); end.removing {
		if err := s.removeLocked(ctx, c, true); err != nil {
			s.log.Error("could not remove a container at its end", "container", c.id, "error", err)
		}
	}
	unlock()
	if end.restart {
		s.spawn(func() { s.restartLater(c, end.delay, end.again) })
	}
}

// finishing is the end of a container as it will be recorded.
type finishing struct {
	ending
	exit     runtime.Exit
	what     intent
	removing bool
	again    chan struct{} // while it waits to be started again
}

// planFinish decides by what is known now. It needs c.mu.
func (c *instance) planFinish(exit runtime.Exit, ran time.Duration) finishing {
	e := planEnding(c.rec.HostConfig.RestartPolicy, exit.Code, c.rec.RestartCount, c.rec.Failures, ran, c.intent)
	return finishing{
		ending: e, exit: exit, what: c.intent,
		removing: c.rec.HostConfig.AutoRemove && !e.restart && c.intent != intentRestart,
	}
}

// durability: the end of an auto-remove container needs no record, because
// Restore removes one without a task; before a restart the next start writes again.
func (f *finishing) durability() durability {
	switch {
	case f.removing:
		return inMemory
	case f.restart || f.what == intentRestart:
		return volatile
	}
	return durable
}

func (f *finishing) apply(r *record) {
	r.State = container.StateExited
	if f.restart {
		r.State = container.StateRestarting
	}
	r.Failures = f.failures
	r.ExitCode, r.OOMKilled, r.FinishedAt = f.exit.Code, f.exit.OOMKilled, f.exit.At.UTC()
	r.Error = ""
	if f.exit.Lost {
		r.Error = "the container's shim was killed, and the container with it"
	}
	r.ManuallyStopped = f.what == intentStop
	r.Live, r.Ports, r.Health = nil, nil, ""
}

// settleEnd makes the end visible. A stop that came meanwhile is heeded: its
// caller waits for done and must find the container stopped.
func (s *Service) settleEnd(c *instance, exit runtime.Exit, ran time.Duration, end finishing) finishing {
	c.mu.Lock()
	changed := c.intent != end.what
	if changed {
		end = c.planFinish(exit, ran)
	}
	r := c.run
	end.apply(&c.rec)
	c.run = nil
	if end.restart {
		end.again = make(chan struct{})
		c.backoff = end.again
	}
	c.mu.Unlock()
	if changed {
		if err := c.change(end.durability(), func(*record) {}); err != nil {
			s.log.Error("could not record the end of a container", "container", c.id, "error", err)
		}
	}
	c.mu.Lock()
	c.wake(false)
	c.mu.Unlock()
	close(r.done)
	return end
}

// clearAway records the end and removes task, network and mounts of a run, side
// by side where the order does not matter. What fails is logged; Restore and rm
// try again.
func (s *Service) clearAway(ctx context.Context, c *instance, r *run, end *finishing) {
	rec := c.snapshot()
	var g errgroup.Group
	if sandboxed(rec.HostConfig.NetworkMode) {
		g.Go(func() error { return s.deps.Networks.Close(ctx, c.id) })
	}
	g.Go(func() error {
		ended := rec
		end.apply(&ended)
		if d := end.durability(); d != inMemory {
			if err := writeRecord(c.dir, &ended, d); err != nil {
				s.log.Error("could not record the end of a container", "container", c.id, "error", err)
			}
		}
		return errors.Join(r.task.Delete(ctx), s.unmountVolumes(ctx, c, &rec), unmountOwn(c.dir))
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
