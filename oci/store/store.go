// Package store is the one content store of a machine: blobs, image names,
// snapshots and leases, on containerd's core packages, in this process.
//
//	Root/content/       blobs by digest, and ingests under way
//	Root/metadata.db    names, labels, leases and references between them (bbolt)
//
// engine/image, engine/build, registry and apps use it. Guarantees:
//   - A call that returned has survived kill -9 and power loss: blobs are synced
//     before they are renamed into place, metadata changes in one transaction.
//   - What a name, a lease or a snapshot in use refers to is never collected; what
//     nothing refers to any more is collected soon after its removal.
//   - Content is created only under a lease (see WithLease), or the collector may
//     take it before it is named.
//
// Everything lives in one namespace; Context puts it in place.
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/metadata/boltutil"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"go.etcd.io/bbolt"
)

// Namespace is the namespace of every record in the store.
const Namespace = "cleat"

const (
	collectAfter = time.Second     // pause after a removal, so that a burst is one collection
	collectEvery = time.Hour       // for leases and ingests that expire
	lockTimeout  = 5 * time.Second // another process may hold the database
)

// Config says where the store is.
type Config struct {
	// Root is the folder of content/ and metadata.db.
	Root string `yaml:"root" json:"root"`
}

// Validate checks the configuration.
func (c *Config) Validate() error {
	if !filepath.IsAbs(c.Root) {
		return fmt.Errorf("store: root %q is not an absolute path", c.Root)
	}
	return nil
}

// Store is an open content store. It is safe for concurrent use. It owns the
// database file and the snapshotters that it was opened with.
type Store struct {
	log    *slog.Logger
	db     *metadata.DB
	images *imageStore
	leases leases.Manager
	root   string
	dirty  string // exists while open: its presence at Open means a crash
	close  []func() error

	kick   chan struct{}
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// Open opens or creates the store, finishes what a killed process left behind,
// and takes over the snapshotters. It starts no goroutine; Start does.
func Open(ctx context.Context, cfg Config, sn map[string]snapshots.Snapshotter, log *slog.Logger) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Root, 0o710); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	blobs, err := local.NewStore(filepath.Join(cfg.Root, "content"))
	if err != nil {
		return nil, fmt.Errorf("store: open content: %w", err)
	}
	bolt, err := bbolt.Open(filepath.Join(cfg.Root, "metadata.db"), 0o600, &bbolt.Options{
		Timeout:        lockTimeout,
		NoFreelistSync: true, // rebuilt at open; saves a write in every commit
		FreelistType:   bbolt.FreelistMapType,
		NoStatistics:   true,
	})
	if err != nil {
		return nil, fmt.Errorf("store: open metadata.db (is another daemon using %s?): %w", cfg.Root, err)
	}
	s := &Store{
		log:   log,
		db:    metadata.NewDB(bolt, blobs, sn),
		root:  cfg.Root,
		dirty: filepath.Join(cfg.Root, "open"),
		kick:  make(chan struct{}, 1),
		close: []func() error{bolt.Close},
	}
	for _, n := range sn {
		s.close = append(s.close, n.Close)
	}
	if err := s.db.Init(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("store: initialise metadata.db: %w", err), s.closeAll())
	}
	s.images = &imageStore{Store: metadata.NewImageStore(s.db), generation: new(atomic.Uint64)}
	s.leases = metadata.NewLeaseManager(s.db)
	s.db.RegisterMutationCallback(func(removed bool) {
		if removed {
			s.CollectSoon()
		}
	})
	if err := s.recover(s.Context(ctx)); err != nil {
		return nil, errors.Join(fmt.Errorf("store: recover: %w", err), s.closeAll())
	}
	return s, nil
}

// Root is the store's folder.
func (s *Store) Root() string { return s.root }

// Context returns ctx with the store's namespace, which every call into the
// parts below needs.
func (s *Store) Context(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, Namespace)
}

// Content returns the blobs.
func (s *Store) Content() content.Store { return s.db.ContentStore() }

// Images returns the names. Changes through it are counted by Generation.
func (s *Store) Images() images.Store { return s.images }

// Leases returns the lease manager.
func (s *Store) Leases() leases.Manager { return s.leases }

// Snapshotter returns the snapshotter of that name, or nil.
func (s *Store) Snapshotter(name string) snapshots.Snapshotter { return s.db.Snapshotter(name) }

// Generation changes with every change of a name, so that what was derived
// from names can be kept until then.
func (s *Store) Generation() uint64 { return s.images.generation.Load() }

// Touch changes Generation, for changes of content that names do not show.
func (s *Store) Touch() { s.images.generation.Add(1) }

// Update runs fn with a context in which every change of names, leases, labels
// and snapshot records is part of one transaction, which is committed when fn
// returns nil. fn must not write blobs or wait for anything.
func (s *Store) Update(ctx context.Context, fn func(context.Context) error) error {
	defer s.Touch()
	return s.UpdateQuietly(ctx, fn)
}

// UpdateQuietly is Update for transactions that change no image name, so that
// Generation stays.
func (s *Store) UpdateQuietly(ctx context.Context, fn func(context.Context) error) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		return fn(boltutil.WithTransaction(ctx, tx))
	})
}

// View runs fn with a context in which all reads see one state.
func (s *Store) View(ctx context.Context, fn func(context.Context) error) error {
	return s.db.View(func(tx *bbolt.Tx) error {
		return fn(boltutil.WithTransaction(ctx, tx))
	})
}

// Name is the component's, for lifecycle.
func (s *Store) Name() string { return "store" }

// Start begins collecting garbage in the background.
func (s *Store) Start(context.Context) error {
	ctx, cancel := context.WithCancel(s.Context(context.Background()))
	s.cancel = cancel
	s.done.Go(func() { s.collectLoop(ctx) })
	return nil
}

// Stop ends the background collection and closes database and snapshotters.
func (s *Store) Stop(context.Context) error {
	if s.cancel != nil {
		s.cancel()
	}
	s.done.Wait()
	return s.Close()
}

// Close closes a store that was not started.
func (s *Store) Close() error {
	if err := s.closeAll(); err != nil {
		return err
	}
	if err := os.Remove(s.dirty); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

func (s *Store) closeAll() error {
	var errs []error
	for _, c := range s.close {
		errs = append(errs, c())
	}
	s.close = nil
	return errors.Join(errs...)
}

// imageStore counts changes.
type imageStore struct {
	images.Store
	generation *atomic.Uint64
}

func (i *imageStore) Create(ctx context.Context, img images.Image) (images.Image, error) {
	defer i.generation.Add(1)
	return i.Store.Create(ctx, img)
}

func (i *imageStore) Update(ctx context.Context, img images.Image, fields ...string) (images.Image, error) {
	defer i.generation.Add(1)
	return i.Store.Update(ctx, img, fields...)
}

func (i *imageStore) Delete(ctx context.Context, name string, opts ...images.DeleteOpt) error {
	defer i.generation.Add(1)
	return i.Store.Delete(ctx, name, opts...)
}
