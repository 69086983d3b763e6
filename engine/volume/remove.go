package volume

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/moby/api/types/events"

	"github.com/cleatlabs/cleat/internal/atomicfile"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

// Folders in Root that are no volumes; the dot keeps them apart from names.
const (
	scratchNew = ".new-"
	scratchOld = ".old-"
)

func isScratch(name string) bool {
	return strings.HasPrefix(name, scratchNew) || strings.HasPrefix(name, scratchOld) || atomicfile.IsTemp(name)
}

// Remove deletes a volume that nobody uses. With force, one that does not
// exist is no error, and a plugin that fails or is gone does not keep the
// record.
func (s *Service) Remove(ctx context.Context, name string, force bool) error {
	e, err := s.lookup(ctx, name)
	if force && errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	if err != nil {
		return wrap("get", name, err)
	}
	defer e.op.Unlock()
	return s.remove(ctx, e, force)
}

// remove deletes e, whose op is held.
func (s *Service) remove(ctx context.Context, e *entry, force bool) error {
	if users := s.users(e.Name); len(users) > 0 {
		return inUse(e.Name, users)
	}
	if e.Driver != localDriver {
		err := s.removeFromPlugin(ctx, e)
		if err != nil && !force {
			return wrap("remove", e.Name, err)
		}
	}
	dir := filepath.Join(s.cfg.Root, e.Name)
	old := filepath.Join(s.cfg.Root, scratchOld+rand.Text()) // the name may be as long as names can be
	if !e.foreign {
		if err := s.retire(dir, old); err != nil {
			return wrap("remove", e.Name, err)
		}
	}
	s.forget(e)
	s.publish(events.ActionDestroy, e.record, nil)
	if e.foreign {
		return nil
	}
	if err := s.destroy(old); err != nil {
		// The volume is gone as far as anybody can see; Start tries again.
		s.log.Warn("content of a removed volume stays until the next start", "volume", e.Name, "error", err)
	}
	return nil
}

func (s *Service) removeFromPlugin(ctx context.Context, e *entry) error {
	p, err := s.plugins.get(ctx, e.Driver)
	if err != nil {
		return err
	}
	return p.remove(ctx, e.Name)
}

// retire makes the volume disappear durably.
func (s *Service) retire(dir, old string) error {
	if err := unmountAll(filepath.Join(dir, dataDir)); err != nil {
		return err
	}
	if err := os.Rename(dir, old); err != nil {
		return err
	}
	return atomicfile.SyncDir(s.cfg.Root)
}

// destroy deletes a folder, but never through a mount.
func (s *Service) destroy(dir string) error {
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := unmountAll(filepath.Join(dir, dataDir)); err != nil {
		return err
	}
	points, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	if len(points) > 0 {
		return fmt.Errorf("%s is a mount point", points[0])
	}
	return os.RemoveAll(dir)
}
