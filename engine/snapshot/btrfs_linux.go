package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/continuity/fs"
)

// btrfs keeps every snapshot as a subvolume Root/snapshots/ID. Records are
// containerd's (storage.MetaStore); subvolumes without a record are deleted by
// Cleanup. containerd's own driver needs cgo, hence this one.
type btrfs struct {
	root string
	ms   *storage.MetaStore
}

func openBtrfs(root string) (snapshots.Snapshotter, error) {
	magic, err := fsMagic(root)
	if err != nil {
		return nil, err
	}
	if magic != magicBtrfs {
		return nil, fmt.Errorf("%s is not on a btrfs file system", root)
	}
	if err := os.MkdirAll(filepath.Join(root, "snapshots"), 0o700); err != nil {
		return nil, err
	}
	ms, err := openMetadata(root)
	if err != nil {
		return nil, err
	}
	b := &btrfs{root: root, ms: ms}
	if err := b.Cleanup(context.Background()); err != nil {
		return nil, errors.Join(err, ms.Close())
	}
	return b, nil
}

func (b *btrfs) path(id string) string { return filepath.Join(b.root, "snapshots", id) }

func (b *btrfs) Stat(ctx context.Context, key string) (info snapshots.Info, err error) {
	err = b.ms.WithTransaction(ctx, false, func(ctx context.Context) error {
		_, info, _, err = storage.GetInfo(ctx, key)
		return err
	})
	return info, err
}

func (b *btrfs) Update(ctx context.Context, info snapshots.Info, fields ...string) (out snapshots.Info, err error) {
	err = b.ms.WithTransaction(ctx, true, func(ctx context.Context) error {
		out, err = storage.UpdateInfo(ctx, info, fields...)
		return err
	})
	return out, err
}

func (b *btrfs) Usage(ctx context.Context, key string) (snapshots.Usage, error) {
	var id, parent string
	var info snapshots.Info
	var usage snapshots.Usage
	err := b.ms.WithTransaction(ctx, false, func(ctx context.Context) (err error) {
		id, info, usage, err = storage.GetInfo(ctx, key)
		if err != nil || info.Parent == "" {
			return err
		}
		parent, _, _, err = storage.GetInfo(ctx, info.Parent)
		return err
	})
	if err != nil || info.Kind != snapshots.KindActive {
		return usage, err
	}
	return b.measure(ctx, id, parent)
}

// measure walks what differs from the parent; extents shared with it cost nothing.
func (b *btrfs) measure(ctx context.Context, id, parent string) (snapshots.Usage, error) {
	var u fs.Usage
	var err error
	if parent == "" {
		u, err = fs.DiskUsage(ctx, b.path(id))
	} else {
		u, err = fs.DiffUsage(ctx, b.path(parent), b.path(id))
	}
	return snapshots.Usage(u), err
}

func (b *btrfs) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	return b.create(ctx, snapshots.KindActive, key, parent, opts)
}

func (b *btrfs) View(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	return b.create(ctx, snapshots.KindView, key, parent, opts)
}

func (b *btrfs) create(ctx context.Context, kind snapshots.Kind, key, parent string, opts []snapshots.Opt) ([]mount.Mount, error) {
	var s storage.Snapshot
	made := ""
	err := b.ms.WithTransaction(ctx, true, func(ctx context.Context) (err error) {
		s, err = storage.CreateSnapshot(ctx, kind, key, parent, opts...)
		if err != nil {
			return err
		}
		if kind == snapshots.KindView && len(s.ParentIDs) > 0 {
			return nil // the parent itself is shown, read-only
		}
		target := b.path(s.ID)
		// An ID comes again when an earlier transaction did not commit.
		if err := deleteSubvolume(target); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if len(s.ParentIDs) == 0 {
			err = createSubvolume(target)
		} else {
			err = snapshotSubvolume(target, b.path(s.ParentIDs[0]))
		}
		if err == nil {
			made = target
		}
		return err
	})
	if err != nil {
		if made != "" {
			err = errors.Join(err, deleteSubvolume(made))
		}
		return nil, err
	}
	return b.mounts(s), nil
}

func (b *btrfs) mounts(s storage.Snapshot) []mount.Mount {
	id, flag := s.ID, "rw"
	if s.Kind == snapshots.KindView {
		flag = "ro"
		if len(s.ParentIDs) > 0 {
			id = s.ParentIDs[0]
		}
	}
	return []mount.Mount{{Type: "bind", Source: b.path(id), Options: []string{"rbind", flag}}}
}

func (b *btrfs) Mounts(ctx context.Context, key string) ([]mount.Mount, error) {
	var s storage.Snapshot
	err := b.ms.WithTransaction(ctx, false, func(ctx context.Context) (err error) {
		s, err = storage.GetSnapshot(ctx, key)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("mounts of snapshot %s: %w", key, err)
	}
	return b.mounts(s), nil
}

func (b *btrfs) Commit(ctx context.Context, name, key string, opts ...snapshots.Opt) error {
	return b.ms.WithTransaction(ctx, true, func(ctx context.Context) error {
		id, info, _, err := storage.GetInfo(ctx, key)
		if err != nil {
			return err
		}
		parent := ""
		if info.Parent != "" {
			if parent, _, _, err = storage.GetInfo(ctx, info.Parent); err != nil {
				return err
			}
		}
		usage, err := b.measure(ctx, id, parent)
		if err != nil {
			return fmt.Errorf("measure snapshot %s: %w", key, err)
		}
		if _, err := storage.CommitActive(ctx, key, name, usage, opts...); err != nil {
			return fmt.Errorf("commit snapshot %s: %w", key, err)
		}
		// Should the transaction fail now, the active snapshot would be
		// read-only; it is then made writable again.
		if err := setReadOnly(b.path(id), true); err != nil {
			return errors.Join(err, setReadOnly(b.path(id), false))
		}
		return nil
	})
}

func (b *btrfs) Remove(ctx context.Context, key string) error {
	return b.ms.WithTransaction(ctx, true, func(ctx context.Context) error {
		if _, _, err := storage.Remove(ctx, key); err != nil {
			return fmt.Errorf("remove snapshot %s: %w", key, err)
		}
		return nil
	})
}

func (b *btrfs) Walk(ctx context.Context, fn snapshots.WalkFunc, filters ...string) error {
	return b.ms.WithTransaction(ctx, false, func(ctx context.Context) error {
		return storage.WalkInfo(ctx, fn, filters...)
	})
}

// Cleanup deletes the subvolumes that no record mentions.
func (b *btrfs) Cleanup(ctx context.Context) error {
	var gone []string
	// The write transaction keeps others from creating one meanwhile.
	err := b.ms.WithTransaction(ctx, true, func(ctx context.Context) error {
		known, err := recordedIDs(ctx)
		if err != nil {
			return err
		}
		found, err := os.ReadDir(filepath.Join(b.root, "snapshots"))
		if err != nil {
			return err
		}
		for _, e := range found {
			if _, ok := known[e.Name()]; !ok {
				gone = append(gone, b.path(e.Name()))
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range gone {
		if err := deleteSubvolume(p); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (b *btrfs) Close() error { return b.ms.Close() }
