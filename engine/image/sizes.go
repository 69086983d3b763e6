package image

import (
	"context"

	"github.com/containerd/containerd/v2/core/images"
	cderrdefs "github.com/containerd/errdefs"
	apiimage "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// footprint is what an image takes on the disk: blobs and unpacked layers, each
// counted once.
type footprint struct {
	blobs  map[digest.Digest]int64
	layers map[digest.Digest]int64 // by chain ID
}

func (f footprint) total() int64 {
	var n int64
	for _, size := range f.blobs {
		n += size
	}
	for _, size := range f.layers {
		n += size
	}
	return n
}

// sizer measures images and remembers layers, for one request.
type sizer struct {
	s      *Service
	layers map[digest.Digest]int64
}

func (s *Service) sizer() *sizer { return &sizer{s: s, layers: map[digest.Digest]int64{}} }

// layer is the unpacked size of a layer, 0 if it is not unpacked.
func (z *sizer) layer(ctx context.Context, chain digest.Digest) (int64, error) {
	if n, ok := z.layers[chain]; ok {
		return n, nil
	}
	u, err := z.s.sn.Usage(ctx, chain.String())
	if err != nil && !cderrdefs.IsNotFound(err) {
		return 0, err
	}
	z.layers[chain] = u.Size
	return u.Size, nil
}

// measure walks everything of target that is in the store.
func (z *sizer) measure(ctx context.Context, target ocispec.Descriptor) (footprint, error) {
	f := footprint{blobs: map[digest.Digest]int64{}, layers: map[digest.Digest]int64{}}
	cs := z.s.store.Content()
	err := images.Walk(ctx, images.HandlerFunc(func(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		size, ok := blobSize(ctx, cs, d.Digest)
		if !ok {
			return nil, images.ErrSkipDesc
		}
		f.blobs[d.Digest] = size
		if images.IsConfigType(d.MediaType) {
			var cfg ocispec.Image
			if err := z.s.store.ReadJSON(ctx, d, &cfg); err != nil {
				return nil, err
			}
			ids := append([]digest.Digest(nil), cfg.RootFS.DiffIDs...)
			for _, chain := range identity.ChainIDs(ids) {
				n, err := z.layer(ctx, chain)
				if err != nil {
					return nil, err
				}
				f.layers[chain] = n
			}
		}
		return z.s.store.Children(ctx, d)
	}), target)
	return f, err
}

// DiskUsage is what images take for `docker system df`.
type DiskUsage struct {
	// Images are all images with SharedSize and Containers filled in.
	Images []apiimage.Summary
	// Total counts everything once; Reclaimable is what only images without
	// containers use.
	Total, Reclaimable int64
	// Active is the number of images that have containers.
	Active int64
}

// DiskUsage measures all images.
func (s *Service) DiskUsage(ctx context.Context) (*DiskUsage, error) {
	list, err := s.List(ctx, ListOptions{All: true, SharedSize: true})
	if err != nil {
		return nil, err
	}
	out := &DiskUsage{Images: list}
	ctx = s.store.Context(ctx)
	z := s.sizer()
	everything, used := newFootprint(), newFootprint()
	for i := range list {
		f, err := z.measure(ctx, *list[i].Descriptor)
		if err != nil {
			return nil, err
		}
		everything.add(f)
		list[i].Containers = int64(len(s.users(list[i].Descriptor.Digest)))
		if list[i].Containers > 0 {
			out.Active++
			used.add(f)
		}
	}
	out.Total = everything.total()
	out.Reclaimable = out.Total - used.total()
	return out, nil
}

// LayersSize is what all images take together, everything counted once.
func (s *Service) LayersSize(ctx context.Context) (int64, error) {
	x, err := s.index(ctx)
	if err != nil {
		return 0, err
	}
	ctx = s.store.Context(ctx)
	z, everything := s.sizer(), newFootprint()
	for _, names := range x.byDigest {
		f, err := z.measure(ctx, names[0].Target)
		if err != nil {
			return 0, err
		}
		everything.add(f)
	}
	return everything.total(), nil
}

func newFootprint() footprint {
	return footprint{blobs: map[digest.Digest]int64{}, layers: map[digest.Digest]int64{}}
}

func (f footprint) add(g footprint) {
	for d, n := range g.blobs {
		f.blobs[d] = n
	}
	for d, n := range g.layers {
		f.layers[d] = n
	}
}

// shared is how much of each footprint is in others too.
func shared(all []footprint) []int64 {
	blobs, layers := map[digest.Digest]int{}, map[digest.Digest]int{}
	for _, f := range all {
		for d := range f.blobs {
			blobs[d]++
		}
		for d := range f.layers {
			layers[d]++
		}
	}
	out := make([]int64, len(all))
	for i, f := range all {
		for d, n := range f.blobs {
			if blobs[d] > 1 {
				out[i] += n
			}
		}
		for d, n := range f.layers {
			if layers[d] > 1 {
				out[i] += n
			}
		}
	}
	return out
}
