package container

import (
	"context"

	"github.com/cleatlabs/cleat/engine/logs"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

// Logs reads what the container wrote.
func (s *Service) Logs(ctx context.Context, ref string, o LogsOptions, emit func(logs.Entry) error) error {
	c, err := s.lookup(ref)
	if err != nil {
		return err
	}
	rec := c.snapshot()
	if rec.HostConfig.LogConfig.Type == "none" {
		return errdefs.NotImplementedf("configured logging driver does not support reading")
	}
	read := logs.ReadOptions{
		Since: o.Since, Until: o.Until, Tail: o.Tail, Stdout: o.Stdout, Stderr: o.Stderr, Follow: o.Follow,
	}
	if o.Follow {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel() // ends the goroutine of logEnd
		read.Done = s.logEnd(ctx, c)
	}
	return s.deps.Logs.Read(ctx, c.logConfig(&rec), read, emit)
}

// logEnd gives the channel that closes when the container's output is complete:
// at once for one that does not run. Restarts end a follower, as in Docker,
// only when the container is gone for good.
func (s *Service) logEnd(ctx context.Context, c *instance) <-chan struct{} {
	done := make(chan struct{})
	watch := func() {
		defer close(done)
		for {
			c.mu.Lock()
			r, st, again := c.run, c.rec.State, c.backoff
			c.mu.Unlock()
			switch {
			case r != nil:
				select {
				case <-r.done:
				case <-ctx.Done():
					return
				}
			case active(st) && again != nil:
				select {
				case <-again:
				case <-s.clock.After(lastDelay / 100):
				case <-ctx.Done():
					return
				}
			case active(st):
				if s.clock.Sleep(ctx, firstDelay) != nil {
					return
				}
			default:
				return
			}
		}
	}
	c.mu.Lock()
	idle := c.run == nil && !active(c.rec.State)
	c.mu.Unlock()
	if idle || !s.spawn(watch) {
		close(done)
	}
	return done
}
