package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	"golang.org/x/sync/errgroup"

	"github.com/cleatlabs/cleat/engine/runtime"
	"github.com/cleatlabs/cleat/internal/atomicfile"
)

// restoreWidth is how many containers are brought together at a time.
const restoreWidth = 16

// fate is what Restore makes of a record.
type fate uint8

const (
	fateKeep  fate = iota // it did not run and does not
	fateAdopt             // it runs on
	fateEnd               // it ended while nobody looked
	fatePurge             // it was being made or removed, or wants removal at its end
	fateClean             // it did not run, but a start had begun
)

// planFate decides by the record, what the runtime found, and whether the
// writable layer exists.
func planFate(r *record, st *runtime.State, layer bool) fate {
	switch {
	case r.State == container.StateRemoving || r.State == container.StateDead || !layer:
		return fatePurge
	case live(r.State) && st != nil && st.Live && st.Exit == nil:
		return fateAdopt
	case live(r.State) && r.HostConfig.AutoRemove:
		return fatePurge
	case live(r.State):
		return fateEnd
	case st != nil:
		return fateClean
	}
	return fateKeep
}

// startsWithDaemon says whether the restart policy wants a container that does
// not run to be started with the daemon. unseen: its end was not seen.
func startsWithDaemon(r *record, unseen bool) bool {
	if r.StartedAt.IsZero() {
		return false
	}
	p := r.HostConfig.RestartPolicy
	switch {
	case p.IsAlways():
		return true
	case p.IsUnlessStopped():
		return !r.ManuallyStopped
	case p.IsOnFailure():
		return unseen && !r.ManuallyStopped && r.ExitCode != 0 && (p.MaximumRetryCount == 0 || r.RestartCount < p.MaximumRetryCount)
	}
	return false
}

// restoring is one Restore.
type restoring struct {
	s      *Service
	states map[string]*runtime.State
	layers map[string]bool

	mu     sync.Mutex
	live   []string    // sandboxes to keep
	again  []*instance // to be started
	purge  []*instance // to be removed when the networks are known
	broken map[string]bool
}

// Restore brings the records and the machine together: it reads the records,
// goes on with the containers that live, records the end of those that do not,
// removes what has no record, and starts what its restart policy wants.
func (s *Service) Restore(ctx context.Context) error {
	if err := os.MkdirAll(s.cfg.Root, 0o711); err != nil {
		return err
	}
	w := &restoring{s: s, states: map[string]*runtime.State{}, layers: map[string]bool{}, broken: map[string]bool{}}
	states, err := s.deps.Runtime.List(ctx)
	if err != nil {
		return fmt.Errorf("restore containers: %w", err)
	}
	for i := range states {
		w.states[states[i].ID] = &states[i]
	}
	keys, err := s.deps.Images.SnapshotKeys(ctx)
	if err != nil {
		return fmt.Errorf("restore containers: %w", err)
	}
	for _, k := range keys {
		w.layers[k] = true
	}
	if err := w.readAll(); err != nil {
		return fmt.Errorf("restore containers: %w", err)
	}
	w.each(s.all(), func(c *instance) { w.settle(ctx, c) })
	if err := s.deps.Networks.Restore(ctx, w.live); err != nil {
		return fmt.Errorf("restore the networks of containers: %w", err)
	}
	w.each(w.purge, func(c *instance) {
		if err := s.removeRestored(ctx, c); err != nil {
			s.log.Error("a container could not be removed", "container", c.id, "error", err)
		}
	})
	w.sweep(ctx)
	w.startAgain()
	return nil
}

func (w *restoring) each(list []*instance, f func(*instance)) {
	var g errgroup.Group
	g.SetLimit(restoreWidth)
	for _, c := range list {
		g.Go(func() error { f(c); return nil })
	}
	_ = g.Wait() // f has reported
}

// readAll reads the records into the index. A folder without one is rubbish; a
// record that cannot be read is left for a person to look at, with what it owns.
func (w *restoring) readAll() error {
	s := w.s
	entries, err := os.ReadDir(s.cfg.Root)
	if err != nil {
		return err
	}
	for _, e := range entries {
		dir := filepath.Join(s.cfg.Root, e.Name())
		switch {
		case e.Name() == mountDir:
			continue
		case strings.HasPrefix(e.Name(), ".skel-"):
			err = os.RemoveAll(dir)
		case !e.IsDir():
			continue
		default:
			err = w.read(dir)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *restoring) read(dir string) error {
	s := w.s
	rec, err := readRecord(dir)
	if errors.Is(err, os.ErrNotExist) {
		return s.removeDir(filepath.Base(dir))
	}
	if err != nil {
		s.log.Error("a container's record cannot be read; it is left alone", "error", err)
		w.broken[filepath.Base(dir)] = true
		return nil
	}
	if err := atomicfile.Clean(dir); err != nil {
		return err
	}
	c := newInstance(dir, *rec)
	name, err := s.reserve(c, rec.Name)
	if err != nil {
		// A rename that was not finished cannot do this; a person can.
		s.log.Error("two containers have one name; one gets another", "container", c.id, "error", err)
		if name, err = s.reserve(c, ""); err != nil {
			return err
		}
	}
	c.rec.Name = name
	s.publishIndex(c)
	for _, m := range rec.Mounts {
		if m.Type == mount.TypeVolume {
			s.deps.Volumes.Hold(m.Name, c.id)
		}
	}
	return nil
}

// settle brings one container together with the machine.
func (w *restoring) settle(ctx context.Context, c *instance) {
	s := w.s
	unlock, err := c.lock(ctx)
	if err != nil {
		return
	}
	defer unlock()
	rec := c.snapshot()
	st := w.states[c.id]
	what := planFate(&rec, st, w.layers[c.id])
	if what == fateAdopt {
		task, err := s.deps.Runtime.Load(ctx, c.id)
		if err == nil {
			w.adopt(ctx, c, &rec, task)
			return
		}
		s.log.Warn("a container seems to live and cannot be reached; it is ended", "container", c.id, "error", err)
		what = fateEnd
		if rec.HostConfig.AutoRemove {
			what = fatePurge
		}
	}
	switch what {
	case fatePurge:
		w.mu.Lock()
		w.purge = append(w.purge, c)
		w.mu.Unlock()
		return
	case fateEnd, fateClean:
		if err := errors.Join(s.deps.Runtime.Purge(ctx, c.id), s.unmountVolumes(ctx, c, &rec), unmountOwn(c.dir)); err != nil {
			s.log.Error("clean-up of a container is incomplete", "container", c.id, "error", err)
		}
		w.end(c, &rec, st, what)
	case fateKeep: // a start may have been cut off before there was a task
		if err := unmountOwn(c.dir); err != nil {
			s.log.Error("clean-up of a container is incomplete", "container", c.id, "error", err)
		}
	}
	rec = c.snapshot()
	if startsWithDaemon(&rec, what == fateEnd) || rec.State == container.StateRestarting {
		w.mu.Lock()
		w.again = append(w.again, c)
		w.mu.Unlock()
	}
}

// adopt goes on with a container that lives. A daemon that died in the middle
// of a pause or a commit may have left it frozen against its record, or thawed:
// the record is what was acknowledged.
func (w *restoring) adopt(ctx context.Context, c *instance, rec *record, task runtime.Task) {
	settle := task.Resume
	if rec.State == container.StatePaused {
		settle = task.Pause
	}
	if err := settle(ctx); err != nil { // as a rule: it is so already
		w.s.log.Debug("freezer left as it is", "container", c.id, "state", rec.State, "reason", err)
	}
	r := w.s.newRun(task, rec.StartedAt)
	c.mu.Lock()
	c.run = r
	c.mu.Unlock()
	w.mu.Lock()
	if sandboxed(rec.HostConfig.NetworkMode) {
		w.live = append(w.live, c.id)
	}
	w.mu.Unlock()
	w.s.follow(c, r)
}

// end records the end of a container that nobody saw, or that a start had begun.
func (w *restoring) end(c *instance, rec *record, st *runtime.State, what fate) {
	s := w.s
	exit := runtime.Exit{Code: 255, At: s.clock.Now()} // the machine went down
	if st != nil && st.Exit != nil {
		exit = *st.Exit
	} else if st != nil {
		exit = runtime.Exit{Code: 137, At: s.clock.Now(), Lost: true}
	}
	err := c.change(durable, func(n *record) {
		n.Touched = true
		if what != fateEnd {
			return
		}
		n.State, n.ExitCode, n.OOMKilled, n.FinishedAt = container.StateExited, exit.Code, exit.OOMKilled, exit.At.UTC()
		n.Live, n.Ports, n.Health = nil, nil, ""
	})
	if err != nil {
		s.log.Error("could not record the end of a container", "container", c.id, "error", err)
	}
	if what == fateEnd {
		s.publish(c, events.ActionDie, exitAttrs(exit.Code, max(0, exit.At.Sub(rec.StartedAt))))
	}
}

func (s *Service) removeRestored(ctx context.Context, c *instance) error {
	unlock, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return s.removeLocked(ctx, c, c.snapshot().HostConfig.AutoRemove)
}

// sweep removes what has no record.
func (w *restoring) sweep(ctx context.Context) {
	s := w.s
	known := func(id string) bool {
		s.mu.RLock()
		defer s.mu.RUnlock()
		return s.byID[id] != nil || w.broken[id]
	}
	for id := range w.states {
		if !known(id) {
			if err := s.deps.Runtime.Purge(ctx, id); err != nil {
				s.log.Error("remains of a container could not be removed", "container", id, "error", err)
			}
		}
	}
	for key := range w.layers {
		if !known(key) {
			if err := ignoreNotFound(s.deps.Images.RemoveSnapshot(ctx, key)); err != nil {
				s.log.Error("the layer of a container could not be removed", "container", key, "error", err)
			}
		}
	}
}

// startAgain starts the containers that shall run, those that join others last.
// The daemon does not wait for them.
func (w *restoring) startAgain() {
	var first, later []*instance
	for _, c := range w.again {
		h := c.snapshot().HostConfig
		if h.NetworkMode.IsContainer() || h.PidMode.IsContainer() || h.IpcMode.IsContainer() {
			later = append(later, c)
		} else {
			first = append(first, c)
		}
	}
	if len(w.again) == 0 {
		return
	}
	w.s.spawn(func() {
		w.each(first, w.startOne)
		w.each(later, w.startOne)
	})
}

func (w *restoring) startOne(c *instance) {
	s := w.s
	unlock, err := c.lock(s.ctx)
	if err != nil {
		return
	}
	defer unlock()
	if s.ctx.Err() != nil || c.check(verbStart) != nil {
		return // the daemon stops, or a user was faster
	}
	if err := s.start(context.WithoutCancel(s.ctx), c); err != nil {
		s.log.Warn("a container could not be started with the daemon", "container", c.id, "error", err)
	}
}
