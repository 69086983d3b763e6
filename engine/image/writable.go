package image

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	cderrdefs "github.com/containerd/errdefs"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

// leasePrefix begins the ID of the lease that keeps a writable layer and what
// it stands on.
const leasePrefix = "container/"

// PrepareSnapshot makes the writable layer of a container on img. Layer and
// image content are kept, whatever becomes of the image's names, until
// RemoveSnapshot. What a crash in the middle leaves is found by SnapshotKeys.
func (s *Service) PrepareSnapshot(ctx context.Context, key string, img *Image) error {
	ctx = s.store.Context(ctx)
	if img.ChainID != "" {
		if _, err := s.sn.Stat(ctx, img.ChainID.String()); cderrdefs.IsNotFound(err) {
			if err := s.unpackStored(ctx, img.Manifest); err != nil {
				return err
			}
		} else if err != nil {
			return fmt.Errorf("prepare layer %s: %w", key, err)
		}
		if err := s.settled.wait(ctx, img.ChainID); err != nil {
			return fmt.Errorf("prepare layer %s: %w", key, err)
		}
	}
	var lease leases.Lease
	err := s.store.UpdateQuietly(ctx, func(ctx context.Context) (err error) {
		if lease, err = s.store.Leases().Create(ctx, leases.WithID(leasePrefix+key)); err != nil {
			return err
		}
		for _, d := range []string{img.ID.String(), img.Manifest.Digest.String()} {
			if err := s.store.Leases().AddResource(ctx, lease, leases.Resource{ID: d, Type: "content"}); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		// Not in the transaction above: the snapshotter's lock against the
		// collector ends with this call, and by then the record must be
		// committed, or the collector takes the layer for rubbish.
		if _, err = s.sn.Prepare(leases.WithLease(ctx, lease.ID), key, img.ChainID.String()); err != nil {
			err = errors.Join(err, s.store.Leases().Delete(context.WithoutCancel(ctx), lease))
		}
	}
	if err != nil {
		return fmt.Errorf("prepare layer %s: %w", key, err)
	}
	return nil
}

// SnapshotMounts are the mounts of a writable layer.
func (s *Service) SnapshotMounts(ctx context.Context, key string) ([]mount.Mount, error) {
	m, err := s.sn.Mounts(s.store.Context(ctx), key)
	if cderrdefs.IsNotFound(err) {
		return nil, errdefs.NotFoundf("the writable layer of container %s does not exist", key)
	}
	return m, err
}

// RemoveSnapshot gives up a writable layer; its files go with the next
// collection. It is safe to repeat.
func (s *Service) RemoveSnapshot(ctx context.Context, key string) error {
	ctx = s.store.Context(ctx)
	err := s.store.UpdateQuietly(ctx, func(ctx context.Context) error {
		err := s.store.Leases().Delete(ctx, leases.Lease{ID: leasePrefix + key})
		if err != nil && !cderrdefs.IsNotFound(err) {
			return err
		}
		if err := s.sn.Remove(ctx, key); err != nil && !cderrdefs.IsNotFound(err) {
			return err
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("remove layer %s: %w", key, err)
	}
	return nil
}

// SnapshotUsage measures a writable layer and everything below it.
func (s *Service) SnapshotUsage(ctx context.Context, key string) (rw snapshots.Usage, rootfs int64, err error) {
	ctx = s.store.Context(ctx)
	info, err := s.sn.Stat(ctx, key)
	if err != nil {
		return rw, 0, fmt.Errorf("usage of layer %s: %w", key, err)
	}
	if rw, err = s.sn.Usage(ctx, key); err != nil {
		return rw, 0, fmt.Errorf("usage of layer %s: %w", key, err)
	}
	rootfs = rw.Size
	for parent := info.Parent; parent != ""; {
		u, err := s.sn.Usage(ctx, parent)
		if err != nil {
			return rw, 0, fmt.Errorf("usage of layer %s: %w", parent, err)
		}
		rootfs += u.Size
		below, err := s.sn.Stat(ctx, parent)
		if err != nil {
			return rw, 0, fmt.Errorf("usage of layer %s: %w", parent, err)
		}
		parent = below.Parent
	}
	return rw, rootfs, nil
}

// SnapshotKeys lists the writable layers, by their leases.
func (s *Service) SnapshotKeys(ctx context.Context) ([]string, error) {
	all, err := s.store.Leases().List(s.store.Context(ctx))
	if err != nil {
		return nil, fmt.Errorf("list writable layers: %w", err)
	}
	var keys []string
	for _, l := range all {
		if key, ok := strings.CutPrefix(l.ID, leasePrefix); ok {
			keys = append(keys, key)
		}
	}
	return keys, nil
}
