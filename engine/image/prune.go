package image

import (
	"context"
	"strconv"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/moby/moby/api/types/events"
	apiimage "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"

	"github.com/cleatlabs/cleat/engine/filter"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

// Prune deletes nameless images that nothing uses, or with dangling=false all
// images without containers.
func (s *Service) Prune(ctx context.Context, f filter.Args) (apiimage.PruneReport, error) {
	var report apiimage.PruneReport
	if err := f.Validate("dangling", "label", "label!", "until"); err != nil {
		return report, err
	}
	danglingOnly, err := f.Bool("dangling", true)
	if err != nil {
		return report, err
	}
	if !s.pruning.CompareAndSwap(false, true) {
		return report, errdefs.Conflictf("a prune operation is already running")
	}
	defer s.pruning.Store(false)
	s.names.Lock()
	defer s.names.Unlock()
	x, err := s.index(ctx)
	if err != nil {
		return report, err
	}
	rest := filter.Args{}
	for k, v := range f {
		if k != "dangling" {
			rest[k] = v
		}
	}
	keep, err := s.filters(ctx, x, rest)
	if err != nil {
		return report, err
	}
	for _, r := range planPrune(x, danglingOnly, keep, func(d digest.Digest) bool { return len(s.users(d)) > 0 }) {
		before, err := s.freed(ctx, x, r.id)
		if err != nil {
			return report, err
		}
		rs, err := s.remove(ctx, r)
		if err != nil {
			return report, err
		}
		report.ImagesDeleted = append(report.ImagesDeleted, rs...)
		report.SpaceReclaimed += uint64(before)
		if x, err = s.index(ctx); err != nil {
			return report, err
		}
	}
	s.events.Publish(events.ImageEventType, events.ActionPrune, "", map[string]string{
		"reclaimed": strconv.FormatUint(report.SpaceReclaimed, 10),
	})
	return report, nil
}

// planPrune chooses what goes. An image that containers use keeps its names; a
// nameless one that others were committed on stays as long as they do.
func planPrune(x *index, danglingOnly bool, match func(images.Image) bool, used func(digest.Digest) bool) []removal {
	gone := map[digest.Digest]bool{}
	var out []removal
	for again := true; again; {
		again = false
		for _, hex := range x.digests {
			id := digest.NewDigestFromEncoded(digest.SHA256, hex)
			names := x.byDigest[id]
			if gone[id] || used(id) {
				continue
			}
			if danglingOnly && !(len(names) == 1 && isDangling(names[0])) {
				continue
			}
			var matching []images.Image
			for _, i := range names {
				if match(i) {
					matching = append(matching, i)
				}
			}
			if len(matching) == 0 || hasLiveChildren(x, id, gone) {
				continue
			}
			all := len(matching) == len(names)
			out = append(out, removal{id: id, untag: matching, gone: all})
			gone[id] = true
			again = all // its parent may be free now
		}
	}
	return out
}

func hasLiveChildren(x *index, id digest.Digest, gone map[digest.Digest]bool) bool {
	for _, i := range x.all {
		if i.Labels[labelParent] == id.String() && !gone[i.Target.Digest] {
			return true
		}
	}
	return false
}

// freed is what goes with an image: what no other has.
func (s *Service) freed(ctx context.Context, x *index, id digest.Digest) (int64, error) {
	ctx = s.store.Context(ctx)
	z := s.sizer()
	own, err := z.measure(ctx, x.byDigest[id][0].Target)
	if err != nil {
		return 0, err
	}
	for other, names := range x.byDigest {
		if other == id {
			continue
		}
		f, err := z.measure(ctx, names[0].Target)
		if err != nil {
			return 0, err
		}
		for d := range f.blobs {
			delete(own.blobs, d)
		}
		for d := range f.layers {
			delete(own.layers, d)
		}
	}
	return own.total(), nil
}
