package image

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/unpack"
	cderrdefs "github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/oci/layer"
)

// unpackWorkers is how many layers are unpacked at one time.
const unpackWorkers = 3

// layerEvents hear what becomes of each layer while an image is unpacked.
// Layers are known by the digest of their blob. All methods may be called from
// several goroutines.
type layerEvents interface {
	extracting(desc ocispec.Descriptor, read int64)
	extracted(desc ocispec.Descriptor)
}

// unpacker prepares the unpacking of images beside their download. parallel
// layers need a snapshotter that can put a layer onto its parent afterwards.
func (s *Service) unpacker(ctx context.Context, ev layerEvents) (*unpack.Unpacker, error) {
	p := unpack.Platform{
		Platform:       platforms.All, // the manifest has been chosen already
		SnapshotterKey: s.snName,
		Snapshotter:    s.sn,
		Applier:        &reportingApplier{Applier: s.apply, ev: ev, s: s},
	}
	opts := []unpack.UnpackerOpt{
		unpack.WithDuplicationSuppressor(&s.work),
		unpack.WithLimiter(s.download),
		unpack.WithFetchAllContent(), // push and save need the blobs of layers unpacked before
	}
	if s.snName == "overlayfs" {
		p.SnapshotterCapabilities = []string{snapshots.RebaseCap}
		opts = append(opts, unpack.WithUnpackLimiter(s.unpack))
	}
	u, err := unpack.NewUnpacker(ctx, s.store.Content(), append(opts, unpack.WithUnpackPlatform(p))...)
	if err != nil {
		return nil, fmt.Errorf("unpack: %w", err)
	}
	return u, nil
}

// unpackStored unpacks an image whose blobs are all in the store.
func (s *Service) unpackStored(ctx context.Context, manifest ocispec.Descriptor) error {
	return s.unpackReporting(ctx, manifest, silent{})
}

func (s *Service) unpackReporting(ctx context.Context, manifest ocispec.Descriptor, ev layerEvents) error {
	ctx, release, err := s.store.WithLease(ctx)
	if err != nil {
		return err
	}
	defer release()
	u, err := s.unpacker(ctx, ev)
	if err != nil {
		return err
	}
	children := images.HandlerFunc(func(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		return s.store.Children(ctx, d)
	})
	err = s.unpackWith(ctx, u, children, manifest)
	if err != nil {
		return fmt.Errorf("unpack image %s: %w", manifest.Digest, err)
	}
	return nil
}

// unpackWith lets h handle target and what it refers to, unpacks what comes of
// it, and waits for both.
func (s *Service) unpackWith(ctx context.Context, u *unpack.Unpacker, h images.Handler, target ocispec.Descriptor) error {
	made := &madeLayers{}
	s.settled.begin()
	defer func() { s.settled.end(made.chains) }()
	dispatchErr := images.Dispatch(ctx, u.Unpack(made.note(s, h)), nil, target)
	_, err := u.Wait()
	return errors.Join(dispatchErr, err)
}

// madeLayers remembers the layers of the images that were unpacked.
type madeLayers struct {
	mu     sync.Mutex
	chains []digest.Digest
}

func (m *madeLayers) note(s *Service, h images.Handler) images.HandlerFunc {
	return func(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		children, err := h.Handle(ctx, d)
		if err != nil || !images.IsConfigType(d.MediaType) {
			return children, err
		}
		var cfg ocispec.Image
		if err := s.store.ReadJSON(ctx, d, &cfg); err != nil {
			return nil, err
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		m.chains = append(m.chains, identity.ChainIDs(cfg.RootFS.DiffIDs)...)
		return children, nil
	}
}

// unpacked says whether the image's layers are ready for containers.
func (s *Service) unpacked(ctx context.Context, m *parsed) (bool, error) {
	if m.chain == "" {
		return true, nil
	}
	_, err := s.sn.Stat(ctx, m.chain.String())
	if cderrdefs.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// reportingApplier tells how far each layer is.
type reportingApplier struct {
	diff.Applier
	ev layerEvents
	s  *Service
}

func (a *reportingApplier) Apply(ctx context.Context, desc ocispec.Descriptor, mounts []mount.Mount, opts ...diff.ApplyOpt) (ocispec.Descriptor, error) {
	dir := a.s.store.Root()
	if t := layer.Target(mounts); t != "" {
		dir = filepath.Dir(filepath.Dir(t)) // stays when the snapshot goes
	}
	if err := a.s.settled.writing(a.s.now(), dir); err != nil {
		return ocispec.Descriptor{}, err
	}
	opts = append(opts, diff.WithProgress(a.ev.extracting))
	out, err := a.Applier.Apply(ctx, desc, mounts, opts...)
	if err == nil {
		a.ev.extracted(desc)
	}
	return out, err
}

type silent struct{}

func (silent) extracting(ocispec.Descriptor, int64) {}
func (silent) extracted(ocispec.Descriptor)         {}
