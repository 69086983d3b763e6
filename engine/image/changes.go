package image

import (
	"context"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/oci/layer"
)

// Changes compares a writable layer with its parent. Mount points that the
// engine makes in it are left out.
func (s *Service) Changes(ctx context.Context, key string) ([]container.FilesystemChange, error) {
	d, done, err := s.diff(ctx, key)
	if err != nil {
		return nil, err
	}
	defer done()
	out := make([]container.FilesystemChange, 0, len(d.Changes))
	for _, c := range d.Changes {
		out = append(out, container.FilesystemChange{Kind: container.ChangeType(c.Kind), Path: c.Path})
	}
	return out, nil
}

// diff finds the changes of a writable layer; done releases what was needed to read them.
func (s *Service) diff(ctx context.Context, key string) (_ layer.Diff, done func(), _ error) {
	ctx, release, err := s.store.WithLease(s.store.Context(ctx))
	if err != nil {
		return layer.Diff{}, nil, err
	}
	view := ""
	done = func() {
		if view != "" {
			if err := s.sn.Remove(context.WithoutCancel(ctx), view); err != nil {
				s.log.Warn("view of a layer not removed; it goes with the next collection", "key", view, "error", err)
			}
		}
		release()
	}
	info, err := s.sn.Stat(ctx, key)
	if err != nil {
		done()
		return layer.Diff{}, nil, fmt.Errorf("changes of layer %s: %w", key, err)
	}
	upper, err := s.sn.Mounts(ctx, key)
	if err != nil {
		done()
		return layer.Diff{}, nil, fmt.Errorf("changes of layer %s: %w", key, err)
	}
	d, err := layer.Compare(ctx, upper, func() ([]mount.Mount, error) {
		if info.Parent == "" {
			return nil, nil
		}
		name := fmt.Sprintf("diff-%s-%d", key, s.now().UnixNano())
		m, err := s.sn.View(ctx, name, info.Parent)
		if err == nil {
			view = name
		}
		return m, err
	})
	if err != nil {
		done()
		return layer.Diff{}, nil, fmt.Errorf("changes of layer %s: %w", key, err)
	}
	d.Changes = withoutMountPoints(d.Changes)
	return d, done, nil
}

// mountPoints are what the engine makes in a writable layer for its own mounts.
var mountPoints = []string{"/etc/hosts", "/etc/resolv.conf", "/etc/hostname", "/dev", "/proc", "/sys", "/.dockerenv"}

// withoutMountPoints removes empty files and folders made for mounts, what is
// below /dev, /proc and /sys, and an /etc that changed for nothing else.
func withoutMountPoints(all []layer.Change) []layer.Change {
	var out []layer.Change
	hidden := map[string]int{} // by parent
	others := map[string]int{}
	for _, c := range all {
		if isMountPoint(c) {
			hidden[path.Dir(c.Path)]++
			continue
		}
		others[path.Dir(c.Path)]++
		out = append(out, c)
	}
	const etc = "/etc"
	if hidden[etc] == 0 || others[etc] > 0 {
		return out
	}
	kept := out[:0]
	for _, c := range out {
		if c.Path != etc || c.Kind == layer.Deleted || !c.Info.IsDir() {
			kept = append(kept, c)
		}
	}
	return kept
}

func isMountPoint(c layer.Change) bool {
	for _, dir := range []string{"/dev/", "/proc/", "/sys/"} {
		if strings.HasPrefix(c.Path, dir) {
			return c.Kind != layer.Deleted && engineMade(c)
		}
	}
	for _, p := range mountPoints {
		if c.Path == p {
			return c.Kind == layer.Added && engineMade(c) || c.Kind == layer.Modified && c.Info.IsDir()
		}
	}
	return false
}

// engineMade says whether it may be a mount point: an empty file, a folder, or
// what a runtime puts into /dev.
func engineMade(c layer.Change) bool {
	return c.Info.IsDir() || c.Info.Size() == 0 || c.Info.Mode().Type()&(fs.ModeDevice|fs.ModeSymlink) != 0
}
