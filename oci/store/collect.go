package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
)

// labelTemporary marks leases of operations that live no longer than the process.
const labelTemporary = "cleat.dev/temporary"

// expiry bounds how long a temporary lease or an interrupted download keeps
// content when nobody comes back for it.
const expiry = 24 * time.Hour

// Collect removes now what nothing refers to, and returns when blobs and
// snapshots are gone from the disk.
func (s *Store) Collect(ctx context.Context) error {
	if _, err := s.db.GarbageCollect(s.Context(ctx)); err != nil {
		return fmt.Errorf("collect garbage: %w", err)
	}
	return nil
}

// CollectSoon asks the background collection to run. It does not block.
func (s *Store) CollectSoon() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

func (s *Store) collectLoop(ctx context.Context) {
	regular := time.NewTicker(collectEvery)
	defer regular.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-regular.C:
		case <-s.kick:
			if !sleep(ctx, collectAfter) {
				return
			}
		}
		began := time.Now()
		if err := s.Collect(ctx); err != nil {
			if ctx.Err() == nil {
				s.log.Warn("garbage collection failed; it is tried again after the next removal", "error", err)
			}
			continue
		}
		s.log.Debug("garbage collected", "took", time.Since(began))
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// WithLease returns a context under which everything created is kept until
// release, or until the process ended and the next Open. Release is safe to
// repeat and works when ctx is done.
func (s *Store) WithLease(ctx context.Context) (context.Context, func(), error) {
	l, err := s.leases.Create(ctx, leases.WithRandomID(), leases.WithExpiration(expiry),
		leases.WithLabel(labelTemporary, "true"))
	if err != nil {
		return nil, nil, fmt.Errorf("create lease: %w", err)
	}
	return leases.WithLease(ctx, l.ID), s.releaser(ctx, l), nil
}

// WithNamedLease is WithLease with a lease that outlives a crash, for work that
// can be resumed: a second call with the same id within a day finds again what
// the first has created. finish(true) ends it, finish(false) leaves it to expire.
func (s *Store) WithNamedLease(ctx context.Context, id string) (_ context.Context, finish func(done bool), _ error) {
	l := leases.Lease{ID: id}
	_, err := s.leases.Create(ctx, leases.WithID(id), leases.WithExpiration(expiry))
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return nil, nil, fmt.Errorf("create lease: %w", err)
	}
	release := s.releaser(ctx, l)
	return leases.WithLease(ctx, id), func(done bool) {
		if done {
			release()
		}
	}, nil
}

func (s *Store) releaser(ctx context.Context, l leases.Lease) func() {
	ctx = context.WithoutCancel(ctx)
	return func() {
		if err := s.leases.Delete(ctx, l); err != nil && !errdefs.IsNotFound(err) {
			s.log.Warn("lease not released; it expires", "lease", l.ID, "error", err)
		}
	}
}

// recover drops what belonged to operations of an earlier process: temporary
// leases and half-unpacked layers. After a crash it also makes the collector
// look at every blob and snapshot for such as no record mentions.
func (s *Store) recover(ctx context.Context) error {
	crashed := true
	if _, err := os.Stat(s.dirty); errors.Is(err, os.ErrNotExist) {
		crashed = false
	} else if err != nil {
		return err
	}
	if err := os.WriteFile(s.dirty, nil, 0o600); err != nil {
		return err
	}
	if !crashed {
		return nil
	}
	s.log.Info("the store was not closed; looking for what was left behind")
	old, err := s.leases.List(ctx, "labels."+quote(labelTemporary)+"==true")
	if err != nil {
		return err
	}
	for _, l := range old {
		if err := s.leases.Delete(ctx, l); err != nil {
			return err
		}
	}
	for name, sn := range s.db.Snapshotters() {
		if err := dropHalfUnpacked(ctx, sn); err != nil {
			return fmt.Errorf("snapshotter %s: %w", name, err)
		}
	}
	if err := dropNamelessIngests(filepath.Join(s.root, "content", "ingest")); err != nil {
		return err
	}
	if err := s.dropOrphanBlobs(ctx); err != nil {
		return err
	}
	return s.Collect(ctx)
}

// dropNamelessIngests removes folders of ingests that were just being made or
// removed: without their name file the content store passes them over.
func dropNamelessIngests(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		ref, err := os.ReadFile(filepath.Join(dir, e.Name(), "ref"))
		if err == nil && len(ref) > 0 {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// dropHalfUnpacked removes layers whose unpacking was cut off, and marks the
// snapshotter so that the next collection compares all of its snapshots with
// the records.
func dropHalfUnpacked(ctx context.Context, sn snapshots.Snapshotter) error {
	const probe = "recovery-probe"
	keys := []string{probe}
	err := sn.Walk(ctx, func(_ context.Context, i snapshots.Info) error {
		if i.Kind == snapshots.KindActive && strings.HasPrefix(i.Name, snapshots.UnpackKeyPrefix) {
			keys = append(keys, i.Name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if _, err := sn.Prepare(ctx, probe, ""); err != nil && !errdefs.IsAlreadyExists(err) {
		return err
	}
	for _, k := range keys {
		if err := sn.Remove(ctx, k); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// dropOrphanBlobs marks the content store in the same way: it ingests and
// deletes one blob.
func (s *Store) dropOrphanBlobs(ctx context.Context) error {
	ctx, release, err := s.WithLease(ctx)
	if err != nil {
		return err
	}
	defer release()
	d, err := s.WriteBlob(ctx, "application/octet-stream", []byte("recovery probe"), nil)
	if err != nil {
		return err
	}
	if err := s.Content().Delete(ctx, d.Digest); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	return nil
}

func quote(s string) string { return `"` + s + `"` }
