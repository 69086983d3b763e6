package container

import (
	"context"
	"encoding/json"
	"maps"
	"strconv"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/cleatlabs/cleat/engine/runtime"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

// intent is what the user wants the end of a container to lead to.
type intent uint8

const (
	intentNone    intent = iota // the restart policy decides
	intentStop                  // it shall stay stopped
	intentRestart               // an explicit restart starts it again: keep hands off
)

// instance is a container in memory.
//
// op is the lock of operations that change what runs or is on disk; it is held
// over I/O. mu guards the fields and is held only briefly. Order: op, then mu.
type instance struct {
	id  string
	dir string
	op  chan struct{}

	mu      sync.Mutex
	rec     record
	run     *run // while it has a task
	intent  intent
	health  []*container.HealthcheckResult
	pending map[*pendingAttachment]struct{}
	waiters map[*waiter]struct{}
	// backoff, while restarting, is cut short by closing.
	backoff chan struct{}
	// gone is closed when the container has been removed.
	gone chan struct{}
}

// run is one life of a container, from its start to its end.
type run struct {
	task    runtime.Task
	started time.Time
	// cancel ends what goes on beside it, such as health checks; beside counts them.
	cancel context.CancelFunc
	ctx    context.Context
	beside sync.WaitGroup
	// logged is closed when all output is in the log, done when the end has
	// been dealt with: network, mounts and record.
	logged chan struct{}
	done   chan struct{}
}

func newInstance(dir string, rec record) *instance {
	return &instance{
		id: rec.ID, dir: dir, rec: rec, op: make(chan struct{}, 1),
		pending: map[*pendingAttachment]struct{}{}, waiters: map[*waiter]struct{}{},
		gone: make(chan struct{}),
	}
}

func (s *Service) newRun(task runtime.Task, started time.Time) *run {
	ctx, cancel := context.WithCancel(s.ctx)
	return &run{task: task, started: started, ctx: ctx, cancel: cancel, logged: make(chan struct{}), done: make(chan struct{})}
}

// lock takes the operation lock; the result gives it back.
func (c *instance) lock(ctx context.Context) (unlock func(), err error) {
	select {
	case c.op <- struct{}{}:
	default:
		select {
		case c.op <- struct{}{}:
		case <-ctx.Done():
			return nil, errdefs.As(errdefs.ErrUnavailable, ctx.Err())
		}
	}
	return func() { <-c.op }, nil
}

// snapshot copies the record.
func (c *instance) snapshot() record {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rec
}

// change applies f to the record and makes it durable as asked. The caller
// holds op. When the write fails the record in memory is as before.
func (c *instance) change(d durability, f func(*record)) error {
	c.mu.Lock()
	before := c.rec
	f(&c.rec)
	if d == inMemory {
		c.mu.Unlock()
		return nil
	}
	data, err := json.Marshal(&c.rec)
	d = c.rec.wanted(d)
	c.mu.Unlock()
	if err == nil {
		err = writeRecordBytes(c.dir, data, d)
	}
	if err != nil {
		c.mu.Lock()
		c.rec = before
		c.mu.Unlock()
	}
	return err
}

// check says whether verb v is allowed now.
func (c *instance) check(v verb) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err := next(c.rec.State, v, c.id, c.rec.Name)
	return err
}

// liveTask returns the task if v is allowed and there is one.
func (c *instance) liveTask(v verb) (*run, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := next(c.rec.State, v, c.id, c.rec.Name); err != nil {
		return nil, err
	}
	if c.run == nil {
		return nil, errdefs.Conflictf("container %s is not running", c.id)
	}
	return c.run, nil
}

// publish emits an event of the container with its labels, image and name.
func (s *Service) publish(c *instance, action events.Action, extra map[string]string) {
	r := c.snapshot()
	attrs := make(map[string]string, len(r.Config.Labels)+len(extra)+2)
	maps.Copy(attrs, r.Config.Labels)
	if r.Config.Image != "" {
		attrs["image"] = r.Config.Image
	}
	attrs["name"] = r.Name
	maps.Copy(attrs, extra)
	s.deps.Events.Publish(events.ContainerEventType, action, c.id, attrs)
}

// waiter waits for the end or the removal of a container.
type waiter struct {
	removed bool
	c       chan container.WaitResponse
	stop    func() bool
}

// Wait registers a waiter, see dockerapi.Containers.
func (s *Service) Wait(ctx context.Context, ref string, cond container.WaitCondition) (<-chan container.WaitResponse, error) {
	c, err := s.lookup(ref)
	if err != nil {
		return nil, err
	}
	w := &waiter{c: make(chan container.WaitResponse, 1)}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch cond {
	case "", container.WaitConditionNotRunning:
		if !active(c.rec.State) && c.rec.State != container.StateRemoving {
			w.c <- c.waitResponse()
			return w.c, nil
		}
	case container.WaitConditionNextExit:
	case container.WaitConditionRemoved:
		w.removed = true
	default:
		return nil, errdefs.Invalidf("invalid condition: %q", cond)
	}
	select {
	case <-c.gone: // removed between lookup and here
		w.c <- c.waitResponse()
		return w.c, nil
	default:
	}
	c.waiters[w] = struct{}{}
	w.stop = context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if _, waiting := c.waiters[w]; waiting {
			delete(c.waiters, w)
			close(w.c)
		}
	})
	return w.c, nil
}

// waitResponse needs c.mu.
func (c *instance) waitResponse() container.WaitResponse {
	r := container.WaitResponse{StatusCode: int64(c.rec.ExitCode)}
	if c.rec.Error != "" {
		r.Error = &container.WaitExitError{Message: c.rec.Error}
	}
	return r
}

// wake answers the waiters for the end, and with removed all others too. It
// needs c.mu.
func (c *instance) wake(removed bool) {
	for w := range c.waiters {
		if w.removed && !removed {
			continue
		}
		w.c <- c.waitResponse() // has room for the one answer
		w.stop()
		delete(c.waiters, w)
	}
}

func exitAttrs(code int, took time.Duration) map[string]string {
	return map[string]string{"exitCode": strconv.Itoa(code), "execDuration": strconv.Itoa(int(took.Seconds()))}
}
