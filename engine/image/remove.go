package image

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	cderrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	apiimage "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"

	"github.com/cleatlabs/cleat/internal/errdefs"
	"github.com/cleatlabs/cleat/oci/reference"
)

// removal is what a request to remove an image comes to. It is decided by plan
// and applied by Remove.
type removal struct {
	id    digest.Digest
	untag []images.Image // names that go
	// keep says that the image stays without a name: containers or children need it.
	keep bool
	// gone says that nothing of the image remains.
	gone bool
}

// planRemoval decides by Docker's rules. children says whether images were
// committed on this one.
func planRemoval(x *index, word string, force bool, users []Use, children bool) (removal, error) {
	img, err := x.lookup(word)
	if err != nil {
		return removal{}, err
	}
	id := img.Target.Digest
	all := x.byDigest[id]
	r := removal{id: id}
	q, err := reference.ParseQuery(word)
	if err != nil {
		return removal{}, err
	}
	byID := (q.Name == nil || x.byName[q.Name.String()].Name == "") && reference.Digest(q.Name) == ""
	if byID {
		return planByID(r, all, force, users, children)
	}
	same := sameReference(q.Name, all)
	switch {
	case len(same) < len(all):
		r.untag = same
		return r, nil
	case len(users) > 0 && !force:
		return removal{}, errdefs.Conflictf("conflict: unable to delete %s (must be forced) - container %s is using its referenced image %s",
			reference.Familiar(q.Name), short(users[0].ContainerID), shortID(id))
	}
	r.untag = all
	r.keep = len(users) > 0 || children
	r.gone = !r.keep
	return r, nil
}

func planByID(r removal, all []images.Image, force bool, users []Use, children bool) (removal, error) {
	for _, u := range users {
		if u.Running {
			return removal{}, errdefs.Conflictf("conflict: unable to delete %s (cannot be forced) - image is being used by running container %s",
				shortID(r.id), short(u.ContainerID))
		}
	}
	repositories := map[string]bool{}
	for _, i := range all {
		if n, err := reference.Parse(i.Name); err == nil && !isDangling(i) {
			repositories[n.Name()] = true
		}
	}
	if !force {
		if len(users) > 0 {
			return removal{}, errdefs.Conflictf("conflict: unable to delete %s (must be forced) - image is being used by stopped container %s",
				shortID(r.id), short(users[0].ContainerID))
		}
		if len(repositories) > 1 {
			return removal{}, errdefs.Conflictf("conflict: unable to delete %s (must be forced) - image is referenced in multiple repositories", shortID(r.id))
		}
		if children && len(repositories) == 0 {
			return removal{}, errdefs.Conflictf("conflict: unable to delete %s (cannot be forced) - image has dependent child images", shortID(r.id))
		}
	}
	r.untag = all
	r.keep = children
	r.gone = !r.keep
	return r, nil
}

// sameReference are the names that go with n: n itself, and by a name with a
// digest all tags of that repository.
func sameReference(n reference.Named, all []images.Image) []images.Image {
	var out []images.Image
	for _, i := range all {
		m, err := reference.Parse(i.Name)
		if err != nil || isDangling(i) {
			continue
		}
		if i.Name == n.String() || reference.Digest(n) != "" && m.Name() == n.Name() {
			out = append(out, i)
		}
	}
	return out
}

func short(id string) string {
	if len(id) > 12 {
		return id[:12]
	}
	return id
}

// Remove takes names away and deletes images that have none left.
func (s *Service) Remove(ctx context.Context, ref string, o RemoveOptions) ([]apiimage.DeleteResponse, error) {
	if len(o.Platforms) > 0 {
		return s.removePlatforms(ctx, ref, o)
	}
	s.names.Lock()
	defer s.names.Unlock()
	x, err := s.index(ctx)
	if err != nil {
		return nil, err
	}
	img, err := x.lookup(ref)
	if err != nil {
		return nil, err
	}
	id := img.Target.Digest
	r, err := planRemoval(x, ref, o.Force, s.users(id), hasChildren(x, id))
	if err != nil {
		return nil, err
	}
	out, err := s.remove(ctx, r)
	if err != nil || o.NoPrune || !r.gone {
		return out, err
	}
	parents, err := s.removeParents(ctx, x, img)
	return append(out, parents...), err
}

// remove applies a plan in one transaction and tells of it.
func (s *Service) remove(ctx context.Context, r removal) ([]apiimage.DeleteResponse, error) {
	is := s.store.Images()
	err := s.store.Update(s.store.Context(ctx), func(ctx context.Context) error {
		for _, i := range r.untag {
			if r.keep && isDangling(i) {
				continue
			}
			if err := is.Delete(ctx, i.Name); err != nil && !cderrdefs.IsNotFound(err) {
				return err
			}
		}
		if !r.keep || len(r.untag) == 0 {
			return nil
		}
		now := s.now()
		_, err := is.Create(ctx, images.Image{Name: danglingName(r.id), Target: r.untag[0].Target,
			Labels: r.untag[0].Labels, CreatedAt: now, UpdatedAt: now})
		if cderrdefs.IsAlreadyExists(err) {
			return nil
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("remove image %s: %w", r.id, err)
	}
	var out []apiimage.DeleteResponse
	for _, i := range r.untag {
		if isDangling(i) {
			continue
		}
		name := reference.FamiliarOf(i.Name)
		s.publish(events.ActionUnTag, formatID(r.id), name, nil)
		out = append(out, apiimage.DeleteResponse{Untagged: name})
	}
	if r.gone {
		s.publish(events.ActionDelete, formatID(r.id), formatID(r.id), nil)
		out = append(out, apiimage.DeleteResponse{Deleted: formatID(r.id)})
	}
	return out, nil
}

// removeParents deletes the nameless images that a deleted one was committed on,
// as far as nothing else needs them.
func (s *Service) removeParents(ctx context.Context, x *index, img images.Image) ([]apiimage.DeleteResponse, error) {
	var out []apiimage.DeleteResponse
	for {
		parent := digest.Digest(img.Labels[labelParent])
		names := x.byDigest[parent]
		if parent == "" || len(names) != 1 || !isDangling(names[0]) || len(s.users(parent)) > 0 {
			return out, nil
		}
		fresh, err := s.index(ctx)
		if err != nil {
			return out, err
		}
		if hasChildren(fresh, parent) {
			return out, nil
		}
		rs, err := s.remove(ctx, removal{id: parent, untag: names, gone: true})
		if err != nil {
			return out, err
		}
		out = append(out, rs...)
		img = names[0]
	}
}

func hasChildren(x *index, id digest.Digest) bool {
	for _, i := range x.all {
		if i.Labels[labelParent] == id.String() {
			return true
		}
	}
	return false
}

// removePlatforms deletes the content of some platforms of an image; names stay.
func (s *Service) removePlatforms(ctx context.Context, ref string, o RemoveOptions) ([]apiimage.DeleteResponse, error) {
	if !o.Force {
		return nil, errdefs.Invalidf("Content will be removed from all images referencing this variant. Use --force to force delete.")
	}
	ctx = s.store.Context(ctx)
	x, err := s.index(ctx)
	if err != nil {
		return nil, err
	}
	img, err := x.lookup(ref)
	if err != nil {
		return nil, err
	}
	for _, u := range s.users(img.Target.Digest) {
		if u.Running {
			return nil, errdefs.Conflictf("conflict: unable to delete %s (cannot be forced) - image is being used by running container %s",
				shortID(img.Target.Digest), short(u.ContainerID))
		}
	}
	var out []apiimage.DeleteResponse
	for _, p := range o.Platforms {
		m, err := s.readBest(ctx, img.Target, &p)
		if err != nil {
			return out, err
		}
		if m == nil {
			return out, platformNotFound(img, &p)
		}
		// The layers' blobs and snapshots hang on the manifest and go with it,
		// unless another image has them too.
		for _, d := range []digest.Digest{m.desc.Digest, m.manifest.Config.Digest} {
			if err := s.store.Content().Delete(ctx, d); err != nil && !cderrdefs.IsNotFound(err) {
				return out, fmt.Errorf("remove %s: %w", d, err)
			}
		}
		out = append(out, apiimage.DeleteResponse{Deleted: m.desc.Digest.String()})
	}
	s.store.Touch()
	return out, nil
}

func isIDOf(word string, id digest.Digest) bool {
	return strings.HasPrefix(id.Encoded(), strings.TrimPrefix(word, "sha256:"))
}
