package image

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/images"
	cderrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/internal/errdefs"
	"github.com/cleatlabs/cleat/oci/reference"
)

// labelParent records which image one was committed on.
const labelParent = "cleat.dev/image.parent"

// setName makes name point at target, in one transaction. What the name meant
// before is kept without a name if that was its only one. An empty name makes
// target a nameless image. changed is false when all was so already.
func (s *Service) setName(ctx context.Context, name string, target ocispec.Descriptor, labels map[string]string) (changed bool, err error) {
	s.names.Lock()
	defer s.names.Unlock()
	ctx = s.store.Context(ctx)
	x, err := s.index(ctx)
	if err != nil {
		return false, err
	}
	target.Annotations, target.Platform = nil, nil
	if name == "" {
		if len(x.byDigest[target.Digest]) > 0 {
			return false, nil
		}
		name = danglingName(target.Digest)
	}
	old, exists := x.byName[name]
	same := exists && old.Target.Digest == target.Digest
	now := s.now()
	is := s.store.Images()
	err = s.store.Update(ctx, func(ctx context.Context) error {
		if exists && !same && len(x.byDigest[old.Target.Digest]) == 1 && !isDangling(old) {
			keep := images.Image{Name: danglingName(old.Target.Digest), Target: old.Target, Labels: old.Labels, CreatedAt: now, UpdatedAt: now}
			if _, err := is.Create(ctx, keep); err != nil && !cderrdefs.IsAlreadyExists(err) {
				return err
			}
		}
		img := images.Image{Name: name, Target: target, Labels: labels, CreatedAt: now, UpdatedAt: now}
		var err error
		if exists {
			_, err = is.Update(ctx, img)
		} else {
			_, err = is.Create(ctx, img)
		}
		if err != nil || name == danglingName(target.Digest) {
			return err
		}
		if err := is.Delete(ctx, danglingName(target.Digest)); err != nil && !cderrdefs.IsNotFound(err) {
			return err
		}
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("name image %s: %w", name, err)
	}
	return !same, nil
}

// Tag gives the image source the additional name target.
func (s *Service) Tag(ctx context.Context, source, target string) error {
	x, err := s.index(ctx)
	if err != nil {
		return err
	}
	img, err := x.lookup(source)
	if err != nil {
		return err
	}
	n, err := reference.ParseTagged(target)
	if err != nil {
		return err
	}
	if reference.Digest(n) != "" {
		return errdefs.Invalidf("refusing to create a tag with a digest reference")
	}
	if _, err := s.setName(ctx, n.String(), img.Target, img.Labels); err != nil {
		return err
	}
	s.publish(events.ActionTag, formatID(img.Target.Digest), reference.Familiar(n), nil)
	return nil
}
