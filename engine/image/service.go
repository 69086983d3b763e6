package image

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/platforms"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/semaphore"

	"github.com/cleatlabs/cleat/oci/layer"
	"github.com/cleatlabs/cleat/oci/remote"
	"github.com/cleatlabs/cleat/oci/store"
)

// Config of the images.
type Config struct {
	// Registries says how registries are reached.
	Registries remote.Config `yaml:"registries" json:"registries"`
	// MaxConcurrentDownloads and MaxConcurrentUploads bound the layers in
	// transfer at one time; 3 and 5 by default.
	MaxConcurrentDownloads int `yaml:"maxConcurrentDownloads" json:"maxConcurrentDownloads"`
	MaxConcurrentUploads   int `yaml:"maxConcurrentUploads" json:"maxConcurrentUploads"`
	// LayerLimits bound what one layer may unpack to; 0 is no bound.
	LayerLimits layer.Limits `yaml:"layerLimits" json:"layerLimits"`
	// UserAgent is what registries see.
	UserAgent string `yaml:"-" json:"-"`
}

// Validate fills in defaults and checks the configuration.
func (c *Config) Validate() error {
	if c.MaxConcurrentDownloads == 0 {
		c.MaxConcurrentDownloads = 3
	}
	if c.MaxConcurrentUploads == 0 {
		c.MaxConcurrentUploads = 5
	}
	if c.MaxConcurrentDownloads < 0 || c.MaxConcurrentUploads < 0 {
		return fmt.Errorf("images: the number of concurrent transfers cannot be negative")
	}
	if c.LayerLimits.Bytes < 0 || c.LayerLimits.Entries < 0 {
		return fmt.Errorf("images: layer limits cannot be negative")
	}
	if c.UserAgent == "" {
		c.UserAgent = "cleat"
	}
	return c.Registries.Validate()
}

// Publisher takes the events of images; engine/events' Bus satisfies it.
type Publisher interface {
	Publish(typ events.Type, action events.Action, id string, attributes map[string]string)
}

// Service is the images of this machine. It is safe for concurrent use. Names
// are in the store and are cached here until the store's generation changes.
type Service struct {
	cfg      Config
	store    *store.Store
	sn       snapshots.Snapshotter
	snName   string
	apply    *layer.Applier
	remote   *remote.Client
	events   Publisher
	log      *slog.Logger
	now      func() time.Time
	host     platforms.MatchComparer
	inUse    atomic.Pointer[func(digest.Digest) []Use]
	cache    cache
	settled  *settler
	work     locks               // by layer and blob: the same work is done once
	download *semaphore.Weighted // layers in download, over all pulls
	upload   *semaphore.Weighted
	unpack   *semaphore.Weighted // layers being unpacked
	names    sync.Mutex          // reading names and then changing them by what was read
	pruning  atomic.Bool
}

// New returns the service on an open store, with the snapshotter of that name.
// It starts nothing. Layers that a crash of the machine may have left incomplete
// are dropped here.
func New(cfg Config, st *store.Store, snapshotter string, pub Publisher, now func() time.Time, log *slog.Logger) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	sn := st.Snapshotter(snapshotter)
	if sn == nil {
		return nil, fmt.Errorf("images: the store has no snapshotter %q", snapshotter)
	}
	client, err := remote.New(cfg.Registries, cfg.UserAgent)
	if err != nil {
		return nil, err
	}
	s := &Service{
		cfg: cfg, store: st, sn: sn, snName: snapshotter,
		apply:  layer.NewApplier(st.Content(), cfg.LayerLimits),
		remote: client, events: pub, log: log, now: now,
		host:     platforms.Only(platforms.DefaultSpec()),
		download: semaphore.NewWeighted(int64(cfg.MaxConcurrentDownloads)),
		upload:   semaphore.NewWeighted(int64(cfg.MaxConcurrentUploads)),
		unpack:   semaphore.NewWeighted(unpackWorkers),
	}
	var lost *time.Time
	if s.settled, lost, err = newSettler(filepath.Join(st.Root(), "unsettled.json"), log); err != nil {
		return nil, err
	}
	if lost != nil {
		ctx := st.Context(context.Background())
		if err := dropLayersSince(ctx, sn, *lost, log); err != nil {
			return nil, err
		}
		if err := errors.Join(st.Collect(ctx), s.settled.settle()); err != nil {
			return nil, err
		}
	}
	s.SetInUse(func(digest.Digest) []Use { return nil })
	return s, nil
}

// SetInUse sets how the service learns which containers use an image. The
// composition root calls it once, as containers are built after images.
func (s *Service) SetInUse(f func(digest.Digest) []Use) { s.inUse.Store(&f) }

// Close waits for layers to be on the disk and closes connections to registries. The store is not the service's to close.
func (s *Service) Close() error {
	s.settled.close()
	return s.remote.Close()
}

// Snapshotter is the name of the snapshot driver.
func (s *Service) Snapshotter() string { return s.snName }

func (s *Service) users(d digest.Digest) []Use { return (*s.inUse.Load())(d) }

// publish sends an image event; name is the familiar name or the ID.
func (s *Service) publish(action events.Action, id, name string, labels map[string]string) {
	attrs := make(map[string]string, len(labels)+1)
	for k, v := range labels {
		attrs[k] = v
	}
	if name != "" {
		attrs["name"] = name
	}
	s.events.Publish(events.ImageEventType, action, id, attrs)
}

// matcher prefers p, or the host's platform; exact says that others do not do.
func (s *Service) matcher(p *ocispec.Platform) (m platforms.MatchComparer, exact bool) {
	if p == nil {
		return s.host, false
	}
	return platforms.OnlyStrict(platforms.Normalize(*p)), true
}

// locks are mutexes by key.
type locks struct {
	mu   sync.Mutex
	held map[string]chan struct{}
}

// Lock waits until the key is free or ctx is done.
func (l *locks) Lock(ctx context.Context, key string) error {
	for {
		l.mu.Lock()
		c, busy := l.held[key]
		if !busy {
			if l.held == nil {
				l.held = make(map[string]chan struct{})
			}
			l.held[key] = make(chan struct{})
			l.mu.Unlock()
			return nil
		}
		l.mu.Unlock()
		select {
		case <-c:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Unlock frees the key.
func (l *locks) Unlock(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.held[key])
	delete(l.held, key)
}
