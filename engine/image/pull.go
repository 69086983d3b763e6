package image

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	cderrdefs "github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/internal/errdefs"
	"github.com/cleatlabs/cleat/oci/reference"
	"github.com/cleatlabs/cleat/oci/remote"
	"github.com/cleatlabs/cleat/oci/store"
)

// Pull fetches an image, or with AllTags every tag of a repository, and unpacks
// it while it comes. What an interrupted pull has fetched is kept for a day and
// used by the next one.
func (s *Service) Pull(ctx context.Context, o PullOptions) error {
	n, err := reference.Parse(o.Ref)
	if err != nil {
		return err
	}
	session := s.remote.Session(credentials(o.Auth))
	if !o.AllTags {
		n, err = reference.ParseTagged(o.Ref)
		if err != nil {
			return err
		}
		return s.pullOne(ctx, session, n, o)
	}
	if reference.Tag(n) != "" || reference.Digest(n) != "" {
		return errdefs.Invalidf("tag can't be used with --all-tags/-a")
	}
	tags, err := session.Tags(ctx, reference.Domain(n), reference.Path(n))
	if err != nil {
		return remote.Classify(err, reference.FamiliarRepository(n))
	}
	for _, tag := range tags {
		tagged, err := reference.WithTag(n, tag)
		if err != nil {
			s.log.Warn("registry lists an invalid tag", "repository", n.Name(), "tag", tag)
			continue
		}
		if err := s.pullOne(ctx, session, tagged, o); err != nil {
			return fmt.Errorf("error pulling %s: %w", reference.Familiar(tagged), err)
		}
	}
	return nil
}

func credentials(a *registry.AuthConfig) remote.Credentials {
	if a == nil {
		return remote.Credentials{}
	}
	return remote.Credentials{Username: a.Username, Password: a.Password,
		IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken}
}

func (s *Service) pullOne(ctx context.Context, session *remote.Session, n reference.Named, o PullOptions) (err error) {
	ctx = s.store.Context(ctx)
	r := newPullReport(o.Progress)
	repository := reference.FamiliarRepository(n)
	// Pulls of one name come one after the other; they share its lease.
	if err := s.work.Lock(ctx, "pull/"+n.String()); err != nil {
		return err
	}
	defer s.work.Unlock("pull/" + n.String())
	_, target, err := session.Resolve(ctx, n.String())
	if err != nil {
		return pullError(err, n, o.Platform)
	}
	if err := supportedType(target, n); err != nil {
		return err
	}
	tag := reference.Tag(n)
	if tag == "" {
		tag = string(reference.Digest(n))
	}
	r.line(tag, "Pulling from "+reference.Path(n))

	ctx, finish, err := s.store.WithNamedLease(ctx, "pull/"+n.String())
	if err != nil {
		return err
	}
	defer func() { finish(err == nil) }()
	m, err := s.fetch(ctx, session, n, target, o.Platform, r)
	if err != nil {
		return pullError(err, n, o.Platform)
	}
	if m == nil {
		return errdefs.Invalidf("%s is not an image that can be run (%s)", reference.Familiar(n), target.MediaType)
	}
	changed, err := s.setName(ctx, n.String(), target, nil)
	if err != nil {
		return err
	}
	s.store.Touch() // a further platform of the same image may have come
	r.line("", "Digest: "+target.Digest.String())
	if changed {
		r.line("", "Status: Downloaded newer image for "+reference.Familiar(n))
	} else {
		r.line("", "Status: Image is up to date for "+reference.Familiar(n))
	}
	s.publish(events.ActionPull, reference.Familiar(n), repository, m.config.Config.Labels)
	return nil
}

// fetch brings everything that target's image for the platform needs into the
// store, and its layers into the snapshotter. It returns nil for what is no image.
func (s *Service) fetch(ctx context.Context, session *remote.Session, n reference.Named, target ocispec.Descriptor, p *ocispec.Platform, r *pullReport) (*parsed, error) {
	want, exact := s.matcher(p)
	fetcher, err := session.Fetcher(ctx, n.String())
	if err != nil {
		return nil, err
	}
	source, err := docker.AppendDistributionSourceLabel(s.store.Content(), n.String())
	if err != nil {
		return nil, err
	}
	u, err := s.unpacker(ctx, r)
	if err != nil {
		return nil, err
	}
	c := &chosen{}
	children := images.HandlerFunc(s.store.Children)
	children = images.SetChildrenMappedLabels(s.store.Content(), children, images.ChildGCLabels)
	children = withoutAttachments(children)
	children = images.LimitManifests(images.FilterPlatforms(children, want), want, 1)
	children = c.note(children, r)
	handler := images.Handlers(s.fetchBlob(fetcher, n, r), children, source)

	stop := make(chan struct{})
	var watcher sync.WaitGroup
	watcher.Go(func() { r.watch(ctx, s.store.Content(), stop) })
	err = s.unpackWith(ctx, u, handler, target)
	close(stop)
	watcher.Wait()
	if err != nil {
		return nil, err
	}
	if c.manifest == nil {
		return nil, noMatch(p, n)
	}
	m, err := s.read(ctx, *c.manifest)
	if err != nil || m == nil {
		return nil, err
	}
	if exact && !want.Match(m.platform()) {
		return nil, errdefs.NotFoundf("image with reference %s was found but its platform (%s) does not match the specified platform (%s)",
			reference.Familiar(n), platforms.FormatAll(m.platform()), platforms.FormatAll(*p))
	}
	return m, nil
}

func noMatch(p *ocispec.Platform, n reference.Named) error {
	spec := platforms.DefaultSpec()
	if p != nil {
		spec = *p
	}
	return errdefs.NotFoundf("no matching manifest for %s in the manifest list entries of %s",
		platforms.FormatAll(spec), reference.Familiar(n))
}

// chosen remembers the manifest that was fetched.
type chosen struct {
	mu       sync.Mutex
	manifest *ocispec.Descriptor
}

func (c *chosen) note(h images.HandlerFunc, r *pullReport) images.HandlerFunc {
	return func(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		children, err := h(ctx, d)
		if err != nil || !store.IsManifest(d) {
			return children, err
		}
		c.mu.Lock()
		c.manifest = &d
		c.mu.Unlock()
		var layers []ocispec.Descriptor
		for _, ch := range children {
			if images.IsLayerType(ch.MediaType) {
				layers = append(layers, ch)
			}
		}
		r.add(layers)
		return children, nil
	}
}

// withoutAttachments leaves out manifests that only say something about another one.
func withoutAttachments(h images.HandlerFunc) images.HandlerFunc {
	return func(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		children, err := h(ctx, d)
		if err != nil || !store.IsIndex(d) {
			return children, err
		}
		var out []ocispec.Descriptor
		for _, ch := range children {
			if ch.Annotations[refType] == "" {
				out = append(out, ch)
			}
		}
		return out, nil
	}
}

// fetchBlob downloads one blob, or resumes its download.
func (s *Service) fetchBlob(fetcher remotes.Fetcher, n reference.Named, r *pullReport) images.HandlerFunc {
	fetch := remotes.FetchHandler(s.store.Content(), fetcher)
	return func(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		if err := supportedType(d, n); err != nil {
			return nil, err
		}
		if images.IsNonDistributable(d.MediaType) && len(d.URLs) == 0 && s.store.Has(ctx, d.Digest) {
			return nil, nil
		}
		layer := images.IsLayerType(d.MediaType)
		if s.store.Has(ctx, d.Digest) {
			if layer {
				r.exists(d)
			}
			return fetch(ctx, d) // takes the blob into the lease
		}
		r.started(d)
		out, err := fetch(ctx, d)
		if err == nil && layer {
			r.fetched(d)
		}
		return out, err
	}
}

// supportedType refuses the manifest format that went out of use in 2017.
func supportedType(d ocispec.Descriptor, n reference.Named) error {
	switch d.MediaType {
	case images.MediaTypeDockerSchema1Manifest, "application/vnd.docker.distribution.manifest.v1+json":
		return schema1Error(n)
	}
	return nil
}

func schema1Error(n reference.Named) error {
	return errdefs.Invalidf("Docker Image Format v1 and Docker Image manifest version 2, schema 1 are not supported: "+
		"suggest the author of %s to upgrade the image to the OCI Format or Docker Image manifest v2, schema 2", reference.Familiar(n))
}

func pullError(err error, n reference.Named, p *ocispec.Platform) error {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case cderrdefs.IsNotImplemented(err) && strings.Contains(err.Error(), "manifest.v1+"):
		return schema1Error(n)
	case cderrdefs.IsNotFound(err) && strings.Contains(err.Error(), "no match for platform"):
		return noMatch(p, n)
	case cderrdefs.IsNotFound(err) && !errors.Is(err, docker.ErrInvalidAuthorization) && strings.HasPrefix(err.Error(), n.String()):
		return errdefs.NotFoundf("manifest for %s not found: manifest unknown: manifest unknown", reference.Familiar(n))
	case cderrdefs.IsFailedPrecondition(err) && strings.Contains(err.Error(), "unexpected commit"):
		return errdefs.As(errdefs.ErrUnavailable, fmt.Errorf("the registry sent data that does not match its digest: %w", err))
	}
	return remote.Classify(err, reference.FamiliarRepository(n))
}
