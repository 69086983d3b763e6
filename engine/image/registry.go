package image

import (
	"context"
	"encoding/json"
	"io"

	"github.com/containerd/platforms"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/internal/errdefs"
	"github.com/cleatlabs/cleat/oci/reference"
	"github.com/cleatlabs/cleat/oci/remote"
	"github.com/cleatlabs/cleat/oci/store"
)

// maxManifest bounds a manifest read from a registry without storing it.
const maxManifest = 4 << 20

// Login checks credentials with a registry.
func (s *Service) Login(ctx context.Context, a registry.AuthConfig) (registry.AuthResponse, error) {
	token, err := s.remote.Login(ctx, a.ServerAddress, credentials(&a))
	if err != nil {
		return registry.AuthResponse{}, err
	}
	return registry.AuthResponse{IdentityToken: token, Status: "Login Succeeded"}, nil
}

// Distribution asks a registry what a name means, without fetching the image.
func (s *Service) Distribution(ctx context.Context, ref string, a *registry.AuthConfig) (registry.DistributionInspect, error) {
	var out registry.DistributionInspect
	n, err := reference.ParseTagged(ref)
	if err != nil {
		return out, err
	}
	session := s.remote.Session(credentials(a))
	_, desc, err := session.Resolve(ctx, n.String())
	if err != nil {
		return out, pullError(err, n, nil)
	}
	out.Descriptor = desc
	if store.IsIndex(desc) {
		var idx ocispec.Index
		if err := fetchJSON(ctx, session, n, desc, &idx); err != nil {
			return out, err
		}
		for _, m := range idx.Manifests {
			if m.Platform != nil && m.Annotations[refType] == "" {
				out.Platforms = append(out.Platforms, *m.Platform)
			}
		}
		return out, nil
	}
	if !store.IsManifest(desc) {
		return out, supportedType(desc, n)
	}
	var m ocispec.Manifest
	if err := fetchJSON(ctx, session, n, desc, &m); err != nil {
		return out, err
	}
	var cfg ocispec.Image
	if err := fetchJSON(ctx, session, n, m.Config, &cfg); err != nil {
		return out, err
	}
	out.Platforms = []ocispec.Platform{platforms.Normalize(cfg.Platform)}
	return out, nil
}

// fetchJSON reads a small blob and verifies its digest.
func fetchJSON(ctx context.Context, session *remote.Session, n reference.Named, d ocispec.Descriptor, v any) error {
	fetcher, err := session.Fetcher(ctx, n.String())
	if err != nil {
		return err
	}
	rc, err := fetcher.Fetch(ctx, d)
	if err != nil {
		return pullError(err, n, nil)
	}
	defer rc.Close()
	data, err := io.ReadAll(io.LimitReader(rc, maxManifest))
	if err != nil {
		return pullError(err, n, nil)
	}
	if d.Digest.Algorithm().FromBytes(data) != d.Digest {
		return errdefs.Unavailablef("the registry sent data that does not match its digest %s", d.Digest)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return errdefs.Invalidf("%s: %s is not valid JSON: %w", reference.Familiar(n), d.MediaType, err)
	}
	return nil
}
