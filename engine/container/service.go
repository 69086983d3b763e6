package container

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	"github.com/cleatlabs/cleat/internal/clock"
	"github.com/cleatlabs/cleat/internal/errdefs"
	"github.com/cleatlabs/cleat/internal/lifecycle"
)

// Service is the engine's containers. It is safe for concurrent use: one
// container's operations wait for each other, different containers' do not.
type Service struct {
	cfg   Config
	deps  Deps
	log   *slog.Logger
	clock clock.Clock
	facts *Facts

	nameRule *regexp.Regexp
	seccomp  *seccompProfiles
	accounts *accountCache

	// ctx ends with Shutdown; wg counts the goroutines that outlive a call.
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	// mu guards the index. It is never held during I/O, and c.mu may be taken
	// while it is held, not the other way round.
	mu     sync.RWMutex
	byID   map[string]*instance
	byName map[string]*instance
	execs  map[string]*execSession
	closed bool // no goroutine may be added any more
}

// New makes the service; it starts nothing and reads nothing but the machine's facts.
func New(cfg Config, deps Deps, log *slog.Logger) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Clock == nil {
		deps.Clock = clock.Real()
	}
	if deps.Facts == nil {
		deps.Facts = probeFacts()
	}
	profiles, err := newSeccompProfiles(cfg.SeccompProfile)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Service{
		cfg: cfg, deps: deps, log: log, clock: deps.Clock, facts: deps.Facts,
		nameRule: nameRule(), seccomp: profiles, accounts: newAccountCache(),
		ctx: ctx, cancel: cancel,
		byID: map[string]*instance{}, byName: map[string]*instance{}, execs: map[string]*execSession{},
	}, nil
}

// Component is the service's lifetime for the composition root: its Start is
// Restore, its Stop is Shutdown. It is apart from Service because Start and
// Stop of a Service are those of a container.
func (s *Service) Component() lifecycle.Component { return component{s} }

type component struct{ s *Service }

func (component) Name() string                      { return "containers" }
func (c component) Start(ctx context.Context) error { return c.s.Restore(ctx) }
func (c component) Stop(ctx context.Context) error  { return c.s.Shutdown(ctx) }

// Shutdown leaves the containers as they are and waits for the service's
// goroutines, or for ctx.
func (s *Service) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	done := make(chan struct{})
	go func() { // ends when the goroutines do
		defer close(done)
		s.wg.Wait()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("containers: %w while waiting for operations", ctx.Err())
	}
}

// spawn runs f in a goroutine that Shutdown waits for; false after Shutdown.
func (s *Service) spawn(f func()) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return false
	}
	s.wg.Go(f)
	return true
}

// dir is a container's folder.
func (s *Service) dir(id string) string { return filepath.Join(s.cfg.Root, id) }

// lookup finds a container by full ID, by name, or by unambiguous prefix.
func (s *Service) lookup(ref string) (*instance, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if c, ok := s.byID[ref]; ok {
		return c, nil
	}
	if c, ok := s.byName[strings.TrimPrefix(ref, "/")]; ok {
		return c, nil
	}
	var found *instance
	if ref != "" {
		for id, c := range s.byID {
			if !strings.HasPrefix(id, ref) {
				continue
			}
			if found != nil {
				return nil, errdefs.Invalidf("Multiple IDs found with provided prefix: %s", ref)
			}
			found = c
		}
	}
	if found == nil {
		return nil, errdefs.NotFoundf("No such container: %s", ref)
	}
	return found, nil
}

// all returns the containers in no particular order.
func (s *Service) all() []*instance {
	s.mu.RLock()
	defer s.mu.RUnlock()
	list := make([]*instance, 0, len(s.byID))
	for _, c := range s.byID {
		list = append(list, c)
	}
	return list
}

// reserve takes a name for c, or makes one up if name is "".
func (s *Service) reserve(c *instance, name string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if name == "" {
		for try := 0; ; try++ {
			if name = generateName(try); s.byName[name] == nil {
				break
			}
		}
	}
	if other := s.byName[name]; other != nil && other != c {
		return "", errdefs.Conflictf("Conflict. The container name %q is already in use by container %q. "+
			"You have to remove (or rename) that container to be able to reuse that name.", "/"+name, other.id)
	}
	s.byName[name] = c
	return name, nil
}

// release gives a name back if it is c's.
func (s *Service) release(c *instance, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byName[name] == c {
		delete(s.byName, name)
	}
}

func (s *Service) publishIndex(c *instance) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byID[c.id] = c
}

// forget drops a removed container and its execs from the index.
func (s *Service) forget(c *instance, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byID, c.id)
	if s.byName[name] == c {
		delete(s.byName, name)
	}
	for id, e := range s.execs {
		if e.c == c {
			delete(s.execs, id)
		}
	}
}

// removeDir deletes a container's folder. Record first: a folder without one
// is rubbish that Restore clears away. While something is mounted in it, it
// stays: what would be deleted there is not the container's.
func (s *Service) removeDir(id string) error {
	dir := s.dir(id)
	if err := unmountOwn(dir); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(dir, recordFile)); err != nil && !os.IsNotExist(err) {
		return err
	}
	return os.RemoveAll(dir)
}
