package image

import (
	"context"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/platforms"
	"github.com/moby/moby/api/types/events"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/internal/errdefs"
	"github.com/cleatlabs/cleat/oci/reference"
)

// Save writes images as one OCI layout that has a manifest.json too, so that
// older engines can load it. A repository without tag means all of its tags.
func (s *Service) Save(ctx context.Context, refs []string, want []ocispec.Platform, w io.Writer) error {
	x, err := s.index(ctx)
	if err != nil {
		return err
	}
	var chosen []savedImage
	for _, ref := range refs {
		found, err := selectSaved(x, ref)
		if err != nil {
			return err
		}
		chosen = append(chosen, found...)
	}
	var targets []ocispec.Descriptor
	for _, c := range chosen {
		targets = append(targets, c.target)
	}
	ctx, release, err := s.hold(ctx, targets...)
	if err != nil {
		return err
	}
	defer release()
	opts := []archive.ExportOpt{
		archive.WithSkipNonDistributableBlobs(),
		archive.WithPlatform(exportMatcher{s.host, want}),
		archive.WithSkipMissing(s.store.Content()),
	}
	for _, c := range chosen {
		opt, err := s.exportOpt(ctx, c, want)
		if err != nil {
			return err
		}
		opts = append(opts, opt)
	}
	if err := archive.Export(ctx, s.store.Content(), w, opts...); err != nil {
		return fmt.Errorf("save: %w", err)
	}
	for _, c := range chosen {
		s.publish(events.ActionSave, formatID(c.target.Digest), formatID(c.target.Digest), nil)
	}
	return nil
}

type savedImage struct {
	name   string // full; "" for an image named by its ID
	target ocispec.Descriptor
}

func selectSaved(x *index, ref string) ([]savedImage, error) {
	img, lookupErr := x.lookup(ref)
	if lookupErr == nil && isIDOf(ref, img.Target.Digest) {
		return []savedImage{{target: img.Target}}, nil
	}
	n, err := reference.Parse(ref)
	switch {
	case err == nil && reference.Tag(n) == "" && reference.Digest(n) == "":
		var out []savedImage
		for _, i := range x.all {
			if m, err := reference.Parse(i.Name); err == nil && !isDangling(i) && m.Name() == n.Name() && reference.Tag(m) != "" {
				out = append(out, savedImage{name: i.Name, target: i.Target})
			}
		}
		if len(out) == 0 {
			return nil, lookupErr
		}
		return out, nil
	case lookupErr != nil:
		return nil, lookupErr
	case err != nil:
		return nil, err
	case reference.Digest(n) != "":
		return []savedImage{{target: img.Target}}, nil
	}
	return []savedImage{{name: img.Name, target: img.Target}}, nil
}

func (s *Service) exportOpt(ctx context.Context, c savedImage, want []ocispec.Platform) (archive.ExportOpt, error) {
	target := c.target
	target.Annotations = nil
	if len(want) == 1 {
		m, err := s.readBest(ctx, target, &want[0])
		if err != nil {
			return nil, err
		}
		if m == nil {
			return nil, platformNotFound(images.Image{Name: c.name, Target: target}, &want[0])
		}
		target = m.desc
	}
	if all, err := s.present(ctx, target); err != nil {
		return nil, err
	} else if len(all) == 0 {
		return nil, errdefs.NotFoundf("image %s has no content here to save", formatID(target.Digest))
	}
	if c.name == "" {
		return archive.WithManifest(target), nil
	}
	return archive.WithManifest(target, c.name), nil
}

// exportMatcher accepts the platforms asked for, or all, and prefers the host's
// for the one that manifest.json can name.
type exportMatcher struct {
	host platforms.MatchComparer
	want []ocispec.Platform
}

func (m exportMatcher) Match(p ocispec.Platform) bool {
	if len(m.want) == 0 {
		return true
	}
	return platforms.Any(m.want...).Match(p)
}

func (m exportMatcher) Less(a, b ocispec.Platform) bool {
	if am, bm := m.host.Match(a), m.host.Match(b); am != bm {
		return am
	}
	return m.host.Less(a, b)
}

// hold keeps what is in the store of the targets for the time of an operation.
func (s *Service) hold(ctx context.Context, targets ...ocispec.Descriptor) (context.Context, func(), error) {
	ctx, release, err := s.store.WithLease(s.store.Context(ctx))
	if err != nil {
		return nil, nil, err
	}
	id, _ := leases.FromContext(ctx)
	err = s.store.UpdateQuietly(ctx, func(ctx context.Context) error {
		for _, t := range targets {
			r := leases.Resource{ID: t.Digest.String(), Type: "content"}
			if err := s.store.Leases().AddResource(ctx, leases.Lease{ID: id}, r); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		release()
		return nil, nil, fmt.Errorf("hold image: %w", err)
	}
	return ctx, release, nil
}
