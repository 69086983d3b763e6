package container

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/cleatlabs/cleat/engine/filter"
	"github.com/cleatlabs/cleat/engine/image"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

// Remove removes a container, with Force also one that runs.
func (s *Service) Remove(ctx context.Context, ref string, o RemoveOptions) error {
	if o.Link {
		return errdefs.Invalidf("legacy links between containers do not exist in this engine: nothing to remove")
	}
	c, err := s.lookup(ref)
	if err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	for {
		r, err := s.removeIdle(ctx, c, o)
		if err != nil || r == nil {
			return err
		}
		// It runs, and is forced: end it and try again.
		if err := s.signal(ctx, c, r, syscall.SIGKILL); err != nil {
			s.log.Debug("SIGKILL not delivered", "container", c.id, "error", err)
		}
		if !s.await(ctx, r, killPatience) {
			return errdefs.Conflictf("cannot remove container %q: could not kill: it does not end", "/"+c.snapshot().Name)
		}
	}
}

// removeIdle removes c unless it has a life that must be ended first.
func (s *Service) removeIdle(ctx context.Context, c *instance, o RemoveOptions) (*run, error) {
	unlock, err := c.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	select {
	case <-c.gone:
		return nil, nil // it was an auto-remove container, or somebody was faster
	default:
	}
	v := verbRemove
	if o.Force {
		v = verbForceRemove
	}
	if err := c.check(v); err != nil {
		return nil, err
	}
	c.mu.Lock()
	r := c.run
	if r != nil {
		c.intent = intentStop
	}
	c.mu.Unlock()
	if r != nil {
		return r, nil
	}
	return nil, s.removeLocked(ctx, c, o.Volumes)
}

// removeLocked takes away everything of a container without a life. The caller
// holds op. It is safe to repeat; what fails leaves the container dead.
func (s *Service) removeLocked(ctx context.Context, c *instance, volumes bool) error {
	c.endBackoff()
	rec := c.snapshot()
	keep := volatile
	if rec.HostConfig.AutoRemove {
		keep = inMemory // half removed it has no layer or no task: Restore removes the rest
	}
	if err := c.change(keep, func(n *record) { n.State = container.StateRemoving }); err != nil {
		return err
	}
	if err := s.removeParts(ctx, c, &rec, volumes); err != nil {
		err = fmt.Errorf("container %s: %w", c.id, err)
		failed := c.change(volatile, func(n *record) { n.State, n.Error = container.StateDead, err.Error() })
		return errors.Join(err, failed)
	}
	s.forget(c, rec.Name)
	s.publish(c, events.ActionDestroy, nil)
	c.mu.Lock()
	c.wake(true)
	close(c.gone)
	c.mu.Unlock()
	c.endPending()
	return nil
}

func (s *Service) removeParts(ctx context.Context, c *instance, rec *record, volumes bool) error {
	if err := s.purge(ctx, c, rec); err != nil {
		return err
	}
	var g errgroup.Group
	g.Go(func() error { return ignoreNotFound(s.deps.Images.RemoveSnapshot(ctx, c.id)) })
	g.Go(func() error { return s.removeVolumes(ctx, rec, volumes) })
	if err := g.Wait(); err != nil {
		return err
	}
	return s.removeDir(c.id)
}

// purge takes away what a life of a container that ended badly may have left.
func (s *Service) purge(ctx context.Context, c *instance, rec *record) error {
	err := s.deps.Runtime.Purge(ctx, c.id)
	if sandboxed(rec.HostConfig.NetworkMode) {
		err = errors.Join(err, s.deps.Networks.Close(ctx, c.id))
	}
	return errors.Join(err, s.unmountVolumes(ctx, c, rec), unmountOwn(c.dir))
}

// removeVolumes lets go of the volumes and removes those that are the container's own.
func (s *Service) removeVolumes(ctx context.Context, rec *record, own bool) error {
	var errs []error
	for _, m := range rec.Mounts {
		if m.Type != mount.TypeVolume {
			continue
		}
		s.deps.Volumes.Release(m.Name, rec.ID)
		if !own || !m.Anonymous {
			continue
		}
		err := ignoreNotFound(s.deps.Volumes.Remove(ctx, m.Name, false))
		if !errors.Is(err, errdefs.ErrConflict) { // another container uses it
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Prune removes the containers that do not run.
func (s *Service) Prune(ctx context.Context, f filter.Args) (container.PruneReport, error) {
	var report container.PruneReport
	if err := f.Validate("until", "label", "label!"); err != nil {
		return report, err
	}
	until, err := parseUntil(f, s.clock.Now())
	if err != nil {
		return report, err
	}
	for _, c := range s.all() {
		if ctx.Err() != nil {
			return report, errdefs.As(errdefs.ErrUnavailable, ctx.Err())
		}
		rec := c.snapshot()
		if active(rec.State) || rec.State == container.StateRemoving || !until.IsZero() && rec.Created.After(until) ||
			!f.Labels("label", rec.Config.Labels) || !f.NotLabels("label!", rec.Config.Labels) {
			continue
		}
		usage, _, usageErr := s.deps.Images.SnapshotUsage(ctx, c.id)
		if err := s.Remove(ctx, c.id, RemoveOptions{}); err != nil {
			if !errors.Is(err, errdefs.ErrConflict) && !errors.Is(err, errdefs.ErrNotFound) { // started or removed meanwhile
				s.log.Warn("a container could not be pruned", "container", c.id, "error", err)
			}
			continue
		}
		report.ContainersDeleted = append(report.ContainersDeleted, c.id)
		if usageErr == nil {
			report.SpaceReclaimed += uint64(max(0, usage.Size))
		}
	}
	s.deps.Events.Publish(events.ContainerEventType, events.ActionPrune, "", map[string]string{
		"reclaimed": strconv.FormatUint(report.SpaceReclaimed, 10),
	})
	return report, nil
}

// parseUntil reads the filter: a moment, or how long ago.
func parseUntil(f filter.Args, now time.Time) (time.Time, error) {
	values := f["until"]
	switch len(values) {
	case 0:
		return time.Time{}, nil
	case 1:
	default:
		return time.Time{}, errdefs.Invalidf("more than one until filter specified")
	}
	v := values[0]
	if d, err := time.ParseDuration(v); err == nil {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, v, time.Local); err == nil {
			return t, nil
		}
	}
	seconds, fraction, _ := strings.Cut(v, ".")
	sec, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return time.Time{}, errdefs.Invalidf("invalid until filter: %q", v)
	}
	nano := int64(0)
	if fraction != "" {
		if nano, err = strconv.ParseInt((fraction + "000000000")[:9], 10, 64); err != nil {
			return time.Time{}, errdefs.Invalidf("invalid until filter: %q", v)
		}
	}
	return time.Unix(sec, nano), nil
}

// UsesOfImage lists the containers made from the image.
func (s *Service) UsesOfImage(id digest.Digest) []image.Use {
	var uses []image.Use
	for _, c := range s.all() {
		rec := c.snapshot()
		if rec.Image == id || rec.Manifest != nil && rec.Manifest.Digest == id {
			uses = append(uses, image.Use{ContainerID: c.id, Running: active(rec.State)})
		}
	}
	slices.SortFunc(uses, func(a, b image.Use) int { return strings.Compare(a.ContainerID, b.ContainerID) })
	return uses
}
