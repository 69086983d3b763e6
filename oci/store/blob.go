package store

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

// maxJSON bounds manifests, indexes and configurations read into memory.
const maxJSON = 16 << 20

// WriteBlob stores data under its digest, with labels. It needs a lease.
func (s *Store) WriteBlob(ctx context.Context, mediaType string, data []byte, labels map[string]string) (ocispec.Descriptor, error) {
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	var opts []content.Opt
	if len(labels) > 0 {
		opts = append(opts, content.WithLabels(labels))
	}
	err := content.WriteBlob(ctx, s.Content(), "write-"+desc.Digest.String(), bytes.NewReader(data), desc, opts...)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("write blob %s: %w", desc.Digest, err)
	}
	if err := s.ensureLabels(ctx, desc.Digest, labels); err != nil {
		return ocispec.Descriptor{}, err
	}
	return desc, nil
}

// ensureLabels adds labels to a blob that may have been there before without them.
func (s *Store) ensureLabels(ctx context.Context, d digest.Digest, labels map[string]string) error {
	if len(labels) == 0 {
		return nil
	}
	have, err := s.Content().Info(ctx, d)
	if err != nil {
		return fmt.Errorf("labels of %s: %w", d, err)
	}
	var fields []string
	for k, v := range labels {
		if have.Labels[k] != v {
			fields = append(fields, "labels."+k)
		}
	}
	if len(fields) == 0 {
		return nil
	}
	if _, err := s.Content().Update(ctx, content.Info{Digest: d, Labels: labels}, fields...); err != nil {
		return fmt.Errorf("labels of %s: %w", d, err)
	}
	return nil
}

// WriteJSON stores v as JSON.
func (s *Store) WriteJSON(ctx context.Context, mediaType string, v any, labels map[string]string) (ocispec.Descriptor, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("encode %s: %w", mediaType, err)
	}
	return s.WriteBlob(ctx, mediaType, data, labels)
}

// ReadJSON reads a small blob into v.
func (s *Store) ReadJSON(ctx context.Context, desc ocispec.Descriptor, v any) error {
	if err := s.checkSmall(ctx, desc); err != nil {
		return err
	}
	data, err := content.ReadBlob(ctx, s.Content(), desc)
	if err != nil {
		return fmt.Errorf("read blob %s: %w", desc.Digest, err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return errdefs.Invalidf("%s %s is not valid JSON: %w", desc.MediaType, desc.Digest, err)
	}
	return nil
}

// checkSmall refuses what is too large to be read into memory. The size in a
// descriptor is a claim; the blob's is a fact.
func (s *Store) checkSmall(ctx context.Context, desc ocispec.Descriptor) error {
	info, err := s.Content().Info(ctx, desc.Digest)
	if err != nil {
		return fmt.Errorf("read blob %s: %w", desc.Digest, err)
	}
	if info.Size > maxJSON {
		return errdefs.Invalidf("%s %s has %d bytes; at most %d are accepted", desc.MediaType, desc.Digest, info.Size, maxJSON)
	}
	return nil
}

// Children lists what a manifest or index refers to; other blobs have none.
func (s *Store) Children(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	if !IsManifest(desc) && !IsIndex(desc) {
		return nil, nil
	}
	if err := s.checkSmall(ctx, desc); err != nil {
		return nil, err
	}
	return images.Children(ctx, s.Content(), desc)
}

// Has says whether a blob is complete in the store.
func (s *Store) Has(ctx context.Context, d digest.Digest) bool {
	_, err := s.Content().Info(ctx, d)
	return err == nil
}

// ManifestLabels are the references by which the collector finds what a
// manifest needs.
func ManifestLabels(m ocispec.Manifest) map[string]string {
	l := map[string]string{"containerd.io/gc.ref.content.config": m.Config.Digest.String()}
	for i, d := range m.Layers {
		l[fmt.Sprintf("containerd.io/gc.ref.content.l.%d", i)] = d.Digest.String()
	}
	return l
}

// SnapshotLabel is the label of a configuration by which the collector finds
// the unpacked layers.
func SnapshotLabel(snapshotter string) string {
	return "containerd.io/gc.ref.snapshot." + snapshotter
}

// IsIndex says whether a descriptor is a manifest list.
func IsIndex(d ocispec.Descriptor) bool { return images.IsIndexType(d.MediaType) }

// IsManifest says whether a descriptor is one platform's manifest.
func IsManifest(d ocispec.Descriptor) bool { return images.IsManifestType(d.MediaType) }
