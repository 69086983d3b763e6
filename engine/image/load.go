package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/platforms"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/jsonstream"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/internal/errdefs"
	"github.com/cleatlabs/cleat/oci/layer"
	"github.com/cleatlabs/cleat/oci/reference"
)

// Load reads a docker-archive or an OCI layout, compressed or not, and names
// the images in it. An image is named after all of it was verified and its
// layers for this machine are unpacked; a bad archive leaves nothing.
func (s *Service) Load(ctx context.Context, tar io.Reader, want []ocispec.Platform, progress Progress) error {
	if progress == nil {
		progress = func(jsonstream.Message) {}
	}
	plain, _, err := layer.Decompress(tar)
	if err != nil {
		return errdefs.Invalidf("cannot read the archive: %w", err)
	}
	defer plain.Close()
	ctx, release, err := s.store.WithLease(s.store.Context(ctx))
	if err != nil {
		return err
	}
	defer release()
	top, err := archive.ImportIndex(ctx, s.store.Content(), plain)
	if err != nil {
		return archiveError(ctx, err)
	}
	if _, err := io.Copy(io.Discard, plain); err != nil { // a truncated stream ends here
		return archiveError(ctx, err)
	}
	var idx ocispec.Index
	if err := s.store.ReadJSON(ctx, top, &idx); err != nil {
		return err
	}
	if len(idx.Manifests) == 0 {
		return errdefs.Invalidf("the archive holds no image")
	}
	for _, d := range idx.Manifests {
		if d.Annotations[refType] != "" {
			continue
		}
		if err := s.loadOne(ctx, d, want, progress); err != nil {
			return err
		}
	}
	return nil
}

func archiveError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, errdefs.ErrExhausted) {
		return err
	}
	return errdefs.Invalidf("invalid image archive: %w", err)
}

func (s *Service) loadOne(ctx context.Context, d ocispec.Descriptor, want []ocispec.Platform, progress Progress) error {
	name, err := nameInArchive(d)
	if err != nil {
		return err
	}
	if err := s.labelTree(ctx, d); err != nil {
		return err
	}
	all, err := s.present(ctx, d)
	if err != nil {
		return err
	}
	ready, err := s.selectLoaded(ctx, all, want)
	if err != nil {
		return err
	}
	if len(ready) == 0 {
		return errdefs.Invalidf("invalid image archive: image %s has no manifest with all of its layers", d.Digest)
	}
	for _, m := range ready {
		if err := s.unpackStored(ctx, m.desc); err != nil {
			return err
		}
	}
	if _, err := s.setName(ctx, name, d, nil); err != nil {
		return err
	}
	shown, text := formatID(d.Digest), "Loaded image ID: "
	if name != "" {
		shown, text = reference.FamiliarOf(name), "Loaded image: "
	}
	progress(jsonstream.Message{Stream: text + shown + "\n"})
	s.publish(events.ActionLoad, formatID(d.Digest), shown, nil)
	return nil
}

// selectLoaded chooses what of an archive's image is to be unpacked: the
// platforms asked for, or the one that this machine would run.
func (s *Service) selectLoaded(ctx context.Context, all []*parsed, want []ocispec.Platform) ([]*parsed, error) {
	var whole []*parsed
	for _, m := range all {
		if s.complete(ctx, m) {
			whole = append(whole, m)
		}
	}
	if len(want) == 0 {
		if best := bestOf(whole, s.host); best != nil {
			return []*parsed{best}, nil
		}
		return nil, nil
	}
	var out []*parsed
	for _, p := range want {
		m, _ := s.matcher(&p)
		best := bestOf(whole, m)
		if best == nil || !m.Match(best.platform()) {
			return nil, errdefs.NotFoundf("requested platform(s) (%s) not found in the archive", platforms.FormatAll(p))
		}
		out = append(out, best)
	}
	return out, nil
}

// bestOf prefers what matches, then the first.
func bestOf(all []*parsed, want platforms.MatchComparer) *parsed {
	var best *parsed
	for _, m := range all {
		ok := want.Match(m.platform())
		if best == nil || ok && (!want.Match(best.platform()) || want.Less(m.platform(), best.platform())) {
			best = m
		}
	}
	return best
}

// labelTree sets the labels by which the collector finds the children of d.
// Children that are absent are passed over: archives may hold one platform of many.
func (s *Service) labelTree(ctx context.Context, d ocispec.Descriptor) error {
	cs := s.store.Content()
	children := images.HandlerFunc(func(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		if !s.store.Has(ctx, d.Digest) {
			return nil, images.ErrSkipDesc
		}
		return s.store.Children(ctx, d)
	})
	if err := images.Walk(ctx, images.SetChildrenMappedLabels(cs, children, images.ChildGCLabels), d); err != nil {
		return fmt.Errorf("read image %s: %w", d.Digest, err)
	}
	return nil
}

// nameInArchive reads the full name that an archive gives an image; "" if none.
// The OCI annotation alone may be only a tag, which names nothing.
func nameInArchive(d ocispec.Descriptor) (string, error) {
	name := d.Annotations[images.AnnotationImageName]
	if name == "" {
		name = d.Annotations[ocispec.AnnotationRefName]
		if !strings.ContainsAny(name, "/:") {
			return "", nil
		}
	}
	n, err := reference.ParseTagged(name)
	if err != nil {
		return "", errdefs.Invalidf("invalid image archive: image name %q: %w", name, err)
	}
	return n.String(), nil
}
