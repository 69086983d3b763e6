package image

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/platforms"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/internal/errdefs"
	"github.com/cleatlabs/cleat/oci/reference"
	"github.com/cleatlabs/cleat/oci/store"
)

// maxManifests bounds the manifests of one index that are looked at.
const maxManifests = 1000

// refType marks a manifest of an index as belonging to another one.
const refType = "vnd.docker.reference.type"

type parsedKey struct {
	target   digest.Digest
	platform string
}

// parsed is one platform's image as read from the store.
type parsed struct {
	desc     ocispec.Descriptor // of the manifest
	manifest ocispec.Manifest
	config   dockerspec.DockerOCIImage
	chain    digest.Digest
}

func (p *parsed) platform() ocispec.Platform {
	return platforms.Normalize(p.config.Platform)
}

// Get resolves a name, tag, digest or ID prefix to the image of a platform; nil
// is the host's, or the only one there is. What is returned is shared and must not be changed.
func (s *Service) Get(ctx context.Context, ref string, p *ocispec.Platform) (*Image, error) {
	x, err := s.index(ctx)
	if err != nil {
		return nil, err
	}
	named, err := x.lookup(ref)
	if err != nil {
		return nil, err
	}
	m, err := s.manifestOf(ctx, x, named.Target, p)
	if err != nil {
		return nil, err
	}
	if m == nil {
		return nil, platformNotFound(named, p)
	}
	return &Image{
		ID: named.Target.Digest, Manifest: m.desc, Config: m.config, ChainID: m.chain,
		Names: x.familiar(named.Target.Digest),
	}, nil
}

func platformNotFound(i images.Image, p *ocispec.Platform) error {
	name := reference.FamiliarOf(i.Name)
	if isDangling(i) {
		name = i.Target.Digest.String()
	}
	if p == nil {
		return errdefs.NotFoundf("image with reference %s was found but does not provide any platform", name)
	}
	return errdefs.NotFoundf("image with reference %s was found but does not provide the specified platform (%s)",
		name, platforms.FormatAll(*p))
}

// manifestOf reads the manifest of target that suits p best, nil if there is none.
func (s *Service) manifestOf(ctx context.Context, x *index, target ocispec.Descriptor, p *ocispec.Platform) (*parsed, error) {
	k := parsedKey{target: target.Digest}
	if p != nil {
		k.platform = platforms.FormatAll(*p)
	}
	if m := s.cache.get(x, k); m != nil {
		return m, nil
	}
	m, err := s.readBest(s.store.Context(ctx), target, p)
	if m != nil && err == nil {
		s.cache.put(x, k, m)
	}
	return m, err
}

func (s *Service) readBest(ctx context.Context, target ocispec.Descriptor, p *ocispec.Platform) (*parsed, error) {
	want, exact := s.matcher(p)
	all, err := s.present(ctx, target)
	if err != nil {
		return nil, err
	}
	var best *parsed
	for _, m := range all {
		ok := want.Match(m.platform())
		switch {
		case exact && !ok:
		case best == nil:
			best = m
		case ok && (!want.Match(best.platform()) || want.Less(m.platform(), best.platform())):
			best = m
		}
	}
	return best, nil
}

// present reads the images of target whose manifest and configuration are in
// the store. Attestations and what is no image are left out.
func (s *Service) present(ctx context.Context, target ocispec.Descriptor) ([]*parsed, error) {
	descs, err := s.manifests(ctx, target)
	if err != nil {
		return nil, err
	}
	var out []*parsed
	for _, d := range descs {
		if d.Annotations[refType] != "" || !s.store.Has(ctx, d.Digest) {
			continue
		}
		m, err := s.read(ctx, d)
		if err != nil {
			return nil, err
		}
		if m != nil {
			out = append(out, m)
		}
	}
	return out, nil
}

// manifests lists the manifests of an index, nested ones included, or target itself.
func (s *Service) manifests(ctx context.Context, target ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	var out []ocispec.Descriptor
	todo := []ocispec.Descriptor{target}
	for n := 0; len(todo) > 0; n++ {
		d := todo[0]
		todo = todo[1:]
		switch {
		case n > maxManifests:
			return nil, errdefs.Invalidf("image index %s lists more than %d manifests", target.Digest, maxManifests)
		case store.IsManifest(d):
			out = append(out, d)
		case store.IsIndex(d):
			if !s.store.Has(ctx, d.Digest) {
				continue
			}
			var idx ocispec.Index
			if err := s.store.ReadJSON(ctx, d, &idx); err != nil {
				return nil, err
			}
			todo = append(todo, idx.Manifests...)
		}
	}
	return out, nil
}

// read reads manifest and configuration; nil when the configuration is absent
// or is not an image's.
func (s *Service) read(ctx context.Context, d ocispec.Descriptor) (*parsed, error) {
	m := &parsed{desc: d}
	if err := s.store.ReadJSON(ctx, d, &m.manifest); err != nil {
		return nil, err
	}
	if !images.IsConfigType(m.manifest.Config.MediaType) || !s.store.Has(ctx, m.manifest.Config.Digest) {
		return nil, nil
	}
	if err := s.store.ReadJSON(ctx, m.manifest.Config, &m.config); err != nil {
		return nil, err
	}
	if len(m.config.RootFS.DiffIDs) != len(m.manifest.Layers) {
		return nil, errdefs.Invalidf("image %s is damaged: %d layers, %d of them in its configuration",
			d.Digest, len(m.manifest.Layers), len(m.config.RootFS.DiffIDs))
	}
	for _, id := range m.config.RootFS.DiffIDs {
		if err := id.Validate(); err != nil {
			return nil, errdefs.Invalidf("image %s is damaged: layer %q: %w", d.Digest, id, err)
		}
	}
	if len(m.config.RootFS.DiffIDs) > 0 {
		m.chain = identity.ChainID(m.config.RootFS.DiffIDs)
	}
	return m, nil
}

// complete says whether every layer of m is in the store.
func (s *Service) complete(ctx context.Context, m *parsed) bool {
	for _, l := range m.manifest.Layers {
		if !s.store.Has(ctx, l.Digest) && !images.IsNonDistributable(l.MediaType) {
			return false
		}
	}
	return true
}

// blobSize is the size of a blob if it is present.
func blobSize(ctx context.Context, cs content.InfoProvider, d digest.Digest) (int64, bool) {
	info, err := cs.Info(ctx, d)
	if err != nil {
		return 0, false
	}
	return info.Size, true
}

func shortID(d digest.Digest) string {
	h := d.Encoded()
	if len(h) > 12 {
		h = h[:12]
	}
	return h
}

func formatID(d digest.Digest) string { return fmt.Sprintf("sha256:%s", d.Encoded()) }
