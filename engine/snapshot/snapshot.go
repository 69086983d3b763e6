package snapshot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/containerd/v2/plugins/snapshots/native"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay"
	cderrdefs "github.com/containerd/errdefs"
	"go.etcd.io/bbolt"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

// Names of drivers as stored with snapshots and shown by `docker info`.
const (
	Overlay = "overlayfs"
	Btrfs   = "btrfs"
	Native  = "native"
)

// Auto takes overlay where it works, then btrfs, then native.
const Auto = "auto"

// Config chooses the driver.
type Config struct {
	// Root is the folder that holds one folder for each driver.
	Root string `yaml:"root" json:"root"`
	// Driver is "overlay" (the default), "btrfs", "native" or "auto".
	Driver string `yaml:"driver" json:"driver"`
}

// Validate fills in defaults and checks the configuration.
func (c *Config) Validate() error {
	if !filepath.IsAbs(c.Root) {
		return fmt.Errorf("snapshot: root %q is not an absolute path", c.Root)
	}
	if c.Driver == "" {
		c.Driver = "overlay"
	}
	if c.Driver != Auto && canonical(c.Driver) == "" {
		return errdefs.Invalidf("snapshot: unknown driver %q; there are overlay, btrfs, native and auto", c.Driver)
	}
	return nil
}

func canonical(driver string) string {
	switch driver {
	case "overlay", "overlay2", Overlay:
		return Overlay
	case Btrfs:
		return Btrfs
	case Native, "vfs":
		return Native
	}
	return ""
}

// Open opens the configured driver and returns the name under which its
// snapshots are recorded. A driver that cannot work here is refused with the
// reason, unless the configuration says "auto".
func Open(cfg Config, log *slog.Logger) (name string, sn snapshots.Snapshotter, err error) {
	if err := cfg.Validate(); err != nil {
		return "", nil, err
	}
	candidates := []string{canonical(cfg.Driver)}
	if cfg.Driver == Auto {
		candidates = []string{Overlay, Btrfs, Native}
	}
	var errs []error
	for _, name := range candidates {
		root := filepath.Join(cfg.Root, name)
		sn, err := openDriver(name, root)
		if err == nil {
			return name, sn, nil
		}
		if cfg.Driver == Auto {
			log.Info("snapshot driver cannot be used here", "driver", name, "reason", err)
		}
		errs = append(errs, err)
	}
	err = fmt.Errorf("no snapshot driver works in %s: %w", cfg.Root, errors.Join(errs...))
	return "", nil, errdefs.WithHint(err, `set the snapshot driver to "auto" or "native", or put the root on another file system`)
}

func openDriver(name, root string) (snapshots.Snapshotter, error) {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, err
	}
	switch name {
	case Overlay:
		return openOverlay(root)
	case Btrfs:
		return openBtrfs(root)
	default:
		if err := dropUnrecorded(root); err != nil {
			return nil, err
		}
		return native.NewSnapshotter(root)
	}
}

// recordedIDs are the numbers of all snapshots; a database without records yet
// has none.
func recordedIDs(ctx context.Context) (map[string]string, error) {
	known, err := storage.IDMap(ctx)
	if cderrdefs.IsNotFound(err) {
		return nil, nil
	}
	return known, err
}

// dropUnrecorded removes the folders that a killed process has made or renamed
// without recording them; a snapshot that gets the same number would fail otherwise.
func dropUnrecorded(root string) error {
	dir := filepath.Join(root, "snapshots")
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	ms, err := openMetadata(root)
	if err != nil {
		return err
	}
	var known map[string]string
	err = ms.WithTransaction(context.Background(), true, func(ctx context.Context) (err error) {
		known, err = recordedIDs(ctx)
		return err
	})
	if err := errors.Join(err, ms.Close()); err != nil {
		return err
	}
	for _, e := range entries {
		if _, ok := known[e.Name()]; ok {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func openOverlay(root string, mountOptions ...string) (snapshots.Snapshotter, error) {
	if err := OverlaySupported(root); err != nil {
		return nil, err
	}
	if err := dropUnrecorded(root); err != nil {
		return nil, err
	}
	ms, err := openMetadata(root)
	if err != nil {
		return nil, err
	}
	return overlay.NewSnapshotter(root, overlay.WithMetaStore(ms), overlay.AsynchronousRemove,
		overlay.WithMountOptions(mountOptions))
}

// openMetadata opens a driver's own records. The free list is rebuilt at open
// rather than written in every commit.
func openMetadata(root string) (*storage.MetaStore, error) {
	return storage.NewMetaStore(filepath.Join(root, "metadata.db"), func(o *bbolt.Options) error {
		o.Timeout = 5 * time.Second // another daemon may hold it
		o.NoFreelistSync = true
		o.FreelistType = bbolt.FreelistMapType
		return nil
	})
}
