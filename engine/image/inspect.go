package image

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	cderrdefs "github.com/containerd/errdefs"
	apiimage "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/storage"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

// Inspect describes an image as Docker does.
func (s *Service) Inspect(ctx context.Context, ref string, p *ocispec.Platform, manifests bool) (*apiimage.InspectResponse, error) {
	if p != nil && manifests {
		return nil, errdefs.Invalidf("conflicting options: manifests and platform options cannot both be set")
	}
	x, err := s.index(ctx)
	if err != nil {
		return nil, err
	}
	img, err := x.lookup(ref)
	if err != nil {
		return nil, err
	}
	ctx = s.store.Context(ctx)
	target := img.Target
	m, err := s.manifestOf(ctx, x, target, p)
	if err != nil {
		return nil, err
	}
	if m == nil && p != nil {
		return nil, platformNotFound(img, p)
	}
	out := &apiimage.InspectResponse{
		ID: formatID(target.Digest), Descriptor: &target,
		GraphDriver: &storage.DriverData{Name: s.snName},
	}
	names := x.byDigest[target.Digest]
	out.RepoTags, out.RepoDigests = tagsAndDigests(names)
	for _, i := range names {
		if i.UpdatedAt.After(out.Metadata.LastTagTime) {
			out.Metadata.LastTagTime = i.UpdatedAt
		}
	}
	z := s.sizer()
	if manifests {
		if out.Manifests, err = s.manifestSummaries(ctx, z, target); err != nil {
			return nil, err
		}
	}
	if m == nil {
		f, err := z.measure(ctx, target)
		out.Size = f.total()
		return out, err
	}
	if p != nil {
		out.ID, out.Descriptor = formatID(m.desc.Digest), &m.desc
	}
	f, err := z.measure(ctx, m.desc)
	if err != nil {
		return nil, err
	}
	out.Size = f.total()
	fillConfig(out, m)
	if err := s.fillGraph(ctx, out, m); err != nil {
		return nil, err
	}
	return out, nil
}

func fillConfig(out *apiimage.InspectResponse, m *parsed) {
	cfg := m.config.Config
	out.Config = &cfg
	out.Author = m.config.Author
	out.Architecture, out.Variant = m.config.Architecture, m.config.Variant
	out.Os, out.OsVersion = m.config.OS, m.config.OSVersion
	if n := len(m.config.History); n > 0 {
		out.Comment = m.config.History[n-1].Comment
	}
	if m.config.Created != nil {
		out.Created = m.config.Created.Format(time.RFC3339Nano)
	}
	out.RootFS.Type = m.config.RootFS.Type
	for _, d := range m.config.RootFS.DiffIDs {
		out.RootFS.Layers = append(out.RootFS.Layers, d.String())
	}
}

// fillGraph names the snapshot that containers of the image stand on.
func (s *Service) fillGraph(ctx context.Context, out *apiimage.InspectResponse, m *parsed) error {
	if m.chain == "" {
		return nil
	}
	info, err := s.sn.Stat(ctx, m.chain.String())
	if cderrdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("inspect layers of %s: %w", m.desc.Digest, err)
	}
	out.GraphDriver.Data = map[string]string{"ChainID": info.Name}
	return nil
}

// manifestSummaries describes every manifest of an index.
func (s *Service) manifestSummaries(ctx context.Context, z *sizer, target ocispec.Descriptor) ([]apiimage.ManifestSummary, error) {
	descs, err := s.manifests(ctx, target)
	if err != nil {
		return nil, err
	}
	var out []apiimage.ManifestSummary
	for _, d := range descs {
		sum := apiimage.ManifestSummary{ID: formatID(d.Digest), Descriptor: d, Kind: apiimage.ManifestKindUnknown}
		if d.Annotations[refType] == "attestation-manifest" {
			sum.Kind = apiimage.ManifestKindAttestation
			sum.AttestationData = &apiimage.AttestationProperties{For: digest.Digest(d.Annotations["vnd.docker.reference.digest"])}
			sum.Available = s.store.Has(ctx, d.Digest)
			out = append(out, sum)
			continue
		}
		f, err := z.measure(ctx, d)
		if err != nil {
			return nil, err
		}
		sum.Size.Total = f.total()
		for _, n := range f.blobs {
			sum.Size.Content += n
		}
		var m *parsed
		if s.store.Has(ctx, d.Digest) {
			if m, err = s.read(ctx, d); err != nil {
				return nil, err
			}
		}
		if m != nil || d.Platform != nil {
			sum.Kind = apiimage.ManifestKindImage
			sum.ImageData = &apiimage.ImageProperties{Containers: []string{}}
			sum.ImageData.Size.Unpacked = sum.Size.Total - sum.Size.Content
		}
		if d.Platform != nil {
			sum.ImageData.Platform = *d.Platform
		}
		if m != nil {
			sum.Available = s.complete(ctx, m)
			if d.Platform == nil {
				sum.ImageData.Platform = m.config.Platform
			}
			for _, u := range s.users(target.Digest) {
				sum.ImageData.Containers = append(sum.ImageData.Containers, u.ContainerID)
			}
		}
		out = append(out, sum)
	}
	return out, nil
}

// History lists the steps that made an image, newest first.
func (s *Service) History(ctx context.Context, ref string, p *ocispec.Platform) ([]apiimage.HistoryResponseItem, error) {
	x, err := s.index(ctx)
	if err != nil {
		return nil, err
	}
	img, err := x.lookup(ref)
	if err != nil {
		return nil, err
	}
	ctx = s.store.Context(ctx)
	m, err := s.manifestOf(ctx, x, img.Target, p)
	if err != nil {
		return nil, err
	}
	if m == nil {
		return nil, platformNotFound(img, p)
	}
	chains := identity.ChainIDs(append([]digest.Digest(nil), m.config.RootFS.DiffIDs...))
	z := s.sizer()
	steps := make([]apiimage.HistoryResponseItem, 0, len(m.config.History))
	for _, h := range m.config.History {
		item := apiimage.HistoryResponseItem{ID: "<missing>", Comment: h.Comment, CreatedBy: h.CreatedBy}
		if h.Created != nil {
			item.Created = h.Created.Unix()
		}
		if !h.EmptyLayer {
			if len(chains) == 0 {
				return nil, errdefs.Internalf("image %s has more steps in its history than layers", formatID(img.Target.Digest))
			}
			if item.Size, err = z.layer(ctx, chains[0]); err != nil {
				return nil, err
			}
			chains = chains[1:]
		}
		steps = append([]apiimage.HistoryResponseItem{item}, steps...)
	}
	nameSteps(x, img, steps)
	return steps, nil
}

// nameSteps gives the newest step the image's ID and names, and those below the
// ones of the images it was committed on.
func nameSteps(x *index, img images.Image, steps []apiimage.HistoryResponseItem) {
	id := img.Target.Digest
	for i := range steps {
		steps[i].ID, steps[i].Tags = formatID(id), x.familiar(id)
		parent := digest.Digest(img.Labels[labelParent])
		names := x.byDigest[parent]
		if parent == "" || len(names) == 0 {
			return
		}
		id, img = parent, names[0]
	}
}

// parseTime reads a Unix time, a date, or a duration before now.
func parseTime(v string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(v); err == nil {
		return now.Add(-d), nil
	}
	if f, err := strconv.ParseFloat(v, 64); err == nil {
		return time.Unix(0, int64(f*float64(time.Second))), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, v, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, errdefs.Invalidf("failed to parse value as time or duration: %q", v)
}
