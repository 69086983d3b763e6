package volume

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/volume"

	"github.com/cleatlabs/cleat/engine/filter"
	"github.com/cleatlabs/cleat/internal/atomicfile"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

// Publisher is engine/events' Bus.
type Publisher interface {
	Publish(typ events.Type, action events.Action, id string, attributes map[string]string)
}

// Service keeps the volumes. It starts no goroutine of its own.
type Service struct {
	cfg     Config
	log     *slog.Logger
	events  Publisher
	now     func() time.Time
	plugins *plugins

	mu    sync.Mutex
	byID  map[string]*entry
	saved mountTable
	holds map[string]map[string]struct{} // volume → users, of volumes known or not
	// persist serialises writing the mount table.
	persist sync.Mutex
}

// entry is one volume.
type entry struct {
	// op serialises mounting, removing and the like; see the package's doc.
	op sync.Mutex
	record
	// known only from a plugin's list, so without a record on disk
	foreign bool
	// gone is set under op when the volume has been removed: who waited for op
	// must look it up again.
	gone bool
	// making is set while Create has not finished; guarded by Service.mu.
	making bool
	// path is where a plugin mounted the volume; written under op and mu.
	path string
}

// New returns a service; Start reads its volumes.
func New(cfg Config, log *slog.Logger, pub Publisher) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Service{
		cfg: cfg, log: log, events: pub, now: time.Now,
		plugins: newPlugins(cfg),
		byID:    make(map[string]*entry),
		saved:   make(mountTable),
		holds:   make(map[string]map[string]struct{}),
	}, nil
}

// Name implements lifecycle.Component.
func (s *Service) Name() string { return "volumes" }

// Start reads the volumes and clears away what a crash left.
func (s *Service) Start(ctx context.Context) error {
	if err := os.MkdirAll(s.cfg.Root, 0o701); err != nil {
		return err
	}
	if err := os.MkdirAll(s.cfg.Run, 0o700); err != nil {
		return err
	}
	if err := atomicfile.Clean(s.cfg.Run); err != nil {
		return err
	}
	entries, err := os.ReadDir(s.cfg.Root)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if isScratch(e.Name()) {
			if err := s.destroy(filepath.Join(s.cfg.Root, e.Name())); err != nil {
				s.log.Warn("a half-removed volume stays for now", "folder", e.Name(), "error", err)
			}
			continue
		}
		if !e.IsDir() || validName(e.Name()) != nil {
			continue
		}
		if err := s.load(e.Name()); err != nil {
			// One bad record must not keep the engine down, and its data is
			// the user's: leave everything in place.
			s.log.Error("a volume cannot be read and is not available", "volume", e.Name(), "error", err)
		}
	}
	return s.restoreMounts()
}

// Stop implements lifecycle.Component. Containers outlive the daemon, and so
// do their mounts.
func (s *Service) Stop(context.Context) error {
	s.plugins.close()
	return nil
}

func (s *Service) load(name string) error {
	dir := filepath.Join(s.cfg.Root, name)
	if err := atomicfile.Clean(dir); err != nil {
		return err
	}
	var r record
	err := atomicfile.ReadJSON(filepath.Join(dir, recordFile), &r)
	if errors.Is(err, fs.ErrNotExist) {
		// Data without a record, as when someone copied a folder here: adopt it
		// as Docker's local driver does.
		fi, serr := os.Lstat(filepath.Join(dir, dataDir))
		if serr != nil || !fi.IsDir() {
			return err
		}
		r = record{Name: name, Driver: localDriver, Created: fi.ModTime().UTC()}
		err = atomicfile.WriteJSON(filepath.Join(dir, recordFile), r, 0o600)
	}
	if err != nil {
		return err
	}
	if r.Name != name || r.Driver == "" {
		return fmt.Errorf("the record in %s is of volume %q, driver %q", dir, r.Name, r.Driver)
	}
	s.byID[name] = &entry{record: r}
	return nil
}

func (s *Service) publish(action events.Action, r record, more map[string]string) {
	attrs := map[string]string{"driver": r.Driver}
	maps.Copy(attrs, more)
	s.events.Publish(events.VolumeEventType, action, r.Name, attrs)
}

func (s *Service) dataPath(name string) string { return filepath.Join(s.cfg.Root, name, dataDir) }

// Create makes a volume, or returns the one of that name if it satisfies r.
func (s *Service) Create(ctx context.Context, req volume.CreateRequest) (volume.Volume, error) {
	r, err := complete(req, s.now())
	if err != nil {
		return volume.Volume{}, wrap("create", cmp.Or(req.Name, r.Name), err)
	}
	return s.create(ctx, r, func(have *entry) error { return conflict(have.record, r) }, nil)
}

// create makes a volume whose content fill writes, or returns the one of that
// name unless refuse objects to it.
func (s *Service) create(ctx context.Context, r record, refuse func(have *entry) error, fill func(dir string) error) (volume.Volume, error) {
	for {
		s.mu.Lock()
		e, exists := s.byID[r.Name]
		if !exists {
			e = &entry{record: r, making: true}
			e.op.Lock() // nobody else has it
			s.byID[r.Name] = e
		}
		s.mu.Unlock()
		if exists {
			e.op.Lock()
			if e.gone {
				e.op.Unlock()
				continue // removed meanwhile: make it anew
			}
			defer e.op.Unlock()
			if err := refuse(e); err != nil {
				return volume.Volume{}, wrap("create", r.Name, err)
			}
			return s.describe(ctx, e)
		}
		defer e.op.Unlock()
		if err := s.make(ctx, e, fill); err != nil {
			s.forget(e)
			return volume.Volume{}, wrap("create", r.Name, err)
		}
		s.mu.Lock()
		e.making = false
		s.mu.Unlock()
		s.publish(events.ActionCreate, e.record, nil)
		return s.describe(ctx, e)
	}
}

// wrap prefixes what was being done to which volume, as Docker does.
func wrap(op, name string, err error) error {
	return errdefs.As(errdefsClass(err), fmt.Errorf("%s %s: %w", op, name, err))
}

// errdefsClass returns the class of err, internal by default.
func errdefsClass(err error) error {
	for _, class := range []error{errdefs.ErrNotFound, errdefs.ErrInvalidArgument, errdefs.ErrConflict,
		errdefs.ErrNotImplemented, errdefs.ErrUnavailable, errdefs.ErrPermissionDenied} {
		if errors.Is(err, class) {
			return class
		}
	}
	return errdefs.ErrInternal
}

// make creates e with its driver and its record. e.op is held.
func (s *Service) make(ctx context.Context, e *entry, fill func(dir string) error) error {
	if e.Driver != localDriver {
		p, err := s.plugins.get(ctx, e.Driver)
		if err != nil {
			return err
		}
		// A volume that the plugin has already, made by somebody else, is
		// taken over; Create is idempotent in the protocol.
		if err := p.create(ctx, e.Name, e.Options); err != nil {
			return err
		}
	}
	return s.commit(e.record, fill)
}

// commit puts the volume's folder in place, filled, with one rename.
func (s *Service) commit(r record, fill func(dir string) error) error {
	tmp, err := os.MkdirTemp(s.cfg.Root, scratchNew)
	if err != nil {
		return err
	}
	err = func() error {
		if err := os.Chmod(tmp, 0o701); err != nil {
			return err
		}
		if r.Driver == localDriver {
			if err := os.Mkdir(filepath.Join(tmp, dataDir), 0o755); err != nil {
				return err
			}
			if err := os.Chmod(filepath.Join(tmp, dataDir), 0o755); err != nil {
				return err // whatever the umask
			}
			if fill != nil {
				if err := fill(filepath.Join(tmp, dataDir)); err != nil {
					return err
				}
			}
		}
		if err := atomicfile.WriteJSON(filepath.Join(tmp, recordFile), r, 0o600); err != nil {
			return err
		}
		// A folder without record, left by a failed load, is in the way on
		// purpose: rename refuses, and its data stays.
		if err := os.Rename(tmp, filepath.Join(s.cfg.Root, r.Name)); err != nil {
			return err
		}
		return atomicfile.SyncDir(s.cfg.Root)
	}()
	if err != nil {
		return errors.Join(err, os.RemoveAll(tmp))
	}
	return nil
}

// forget takes e out of the map; e.op is held.
func (s *Service) forget(e *entry) {
	e.gone = true
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byID[e.Name] == e {
		delete(s.byID, e.Name)
	}
	delete(s.saved, e.Name)
}

// lookup returns the volume with op held, asking the plugins if it is not among
// ours.
func (s *Service) lookup(ctx context.Context, name string) (*entry, error) {
	for {
		s.mu.Lock()
		e := s.byID[name]
		s.mu.Unlock()
		if e == nil {
			r, err := s.plugins.find(ctx, name)
			if err != nil {
				return nil, err
			}
			s.mu.Lock()
			if e = s.byID[name]; e == nil {
				e = &entry{record: r, foreign: true}
				s.byID[name] = e
			}
			s.mu.Unlock()
		}
		e.op.Lock()
		if !e.gone {
			return e, nil
		}
		e.op.Unlock()
	}
}

// describe is inspect; e.op is held.
func (s *Service) describe(ctx context.Context, e *entry) (volume.Volume, error) {
	if e.Driver == localDriver {
		return e.api(s.dataPath(e.Name), localDriver), nil
	}
	p, err := s.plugins.get(ctx, e.Driver)
	if err != nil {
		return volume.Volume{}, err
	}
	got, err := p.inspect(ctx, e.Name)
	if err != nil {
		return volume.Volume{}, err
	}
	v := e.api(cmp.Or(e.path, got.Mountpoint), p.scope(ctx))
	v.Status = got.Status
	if got.CreatedAt != "" {
		v.CreatedAt = got.CreatedAt
	}
	return v, nil
}

// Inspect returns one volume.
func (s *Service) Inspect(ctx context.Context, name string) (volume.Volume, error) {
	e, err := s.lookup(ctx, name)
	if err != nil {
		return volume.Volume{}, wrap("get", name, err)
	}
	defer e.op.Unlock()
	v, err := s.describe(ctx, e)
	if err != nil {
		return volume.Volume{}, wrap("get", name, err)
	}
	return v, nil
}

// List returns the volumes that match; what a plugin cannot tell is a warning.
func (s *Service) List(ctx context.Context, f filter.Args) (volume.ListResponse, error) {
	if err := f.Validate("dangling", "name", "driver", "label"); err != nil {
		return volume.ListResponse{}, err
	}
	all, warnings := s.everything(ctx)
	resp := volume.ListResponse{Volumes: []volume.Volume{}, Warnings: warnings}
	for _, v := range all {
		ok, err := listed(f, v, len(s.users(v.Name)) > 0)
		if err != nil {
			return volume.ListResponse{}, err
		}
		if ok {
			resp.Volumes = append(resp.Volumes, v)
		}
	}
	return resp, nil
}

// everything lists our volumes and those that plugins have besides, by name.
// It takes no entry's op, so that a hanging volume does not hang the list.
func (s *Service) everything(ctx context.Context) ([]volume.Volume, []string) {
	foreign, warnings := s.plugins.list(ctx)
	byName := make(map[string]volume.Volume)
	for _, v := range foreign {
		byName[v.Name] = v
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, e := range s.byID {
		switch theirs, ok := byName[name]; {
		case e.foreign || e.making:
		case e.Driver == localDriver:
			byName[name] = e.api(s.dataPath(name), localDriver)
		case ok && theirs.Driver == e.Driver:
			v := e.api(theirs.Mountpoint, theirs.Scope)
			byName[name] = v
		default:
			byName[name] = e.api("", "")
		}
	}
	return slices.SortedFunc(maps.Values(byName), func(a, b volume.Volume) int {
		return cmp.Compare(a.Name, b.Name)
	}), warnings
}

// Prune removes volumes that nobody uses: the anonymous ones, or with the
// filter all=true every one.
func (s *Service) Prune(ctx context.Context, f filter.Args) (volume.PruneReport, error) {
	report := volume.PruneReport{VolumesDeleted: []string{}}
	if err := f.Validate("label", "label!", "all"); err != nil {
		return report, err
	}
	s.mu.Lock()
	names := slices.Sorted(maps.Keys(s.byID))
	s.mu.Unlock()
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return report, err
		}
		size, removed, err := s.pruneOne(ctx, f, name)
		if errors.Is(err, errdefs.ErrInvalidArgument) {
			return report, err
		}
		if err != nil {
			s.log.Warn("prune could not remove a volume", "volume", name, "error", err)
			continue
		}
		if removed {
			report.VolumesDeleted = append(report.VolumesDeleted, name)
			report.SpaceReclaimed += uint64(size)
		}
	}
	s.events.Publish(events.VolumeEventType, events.ActionPrune, "", map[string]string{
		"reclaimed": strconv.FormatUint(report.SpaceReclaimed, 10)})
	return report, nil
}

func (s *Service) pruneOne(ctx context.Context, f filter.Args, name string) (size int64, removed bool, err error) {
	s.mu.Lock()
	e := s.byID[name]
	s.mu.Unlock()
	if e == nil || e.foreign || e.Driver != localDriver || len(s.users(name)) > 0 {
		return 0, false, nil // Docker, too, prunes only local volumes
	}
	ok, err := prunable(f, e.record)
	if err != nil || !ok {
		return 0, false, err
	}
	e.op.Lock()
	defer e.op.Unlock()
	if e.gone {
		return 0, false, nil
	}
	size, err = s.size(ctx, e)
	if err != nil {
		return 0, false, err
	}
	err = s.remove(ctx, e, false)
	if errors.Is(err, errdefs.ErrConflict) {
		return 0, false, nil // somebody has begun to use it
	}
	return size, err == nil, err
}
