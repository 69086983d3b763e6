package image

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/platforms"
	"github.com/moby/moby/api/types/auxprogress"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/internal/errdefs"
	"github.com/cleatlabs/cleat/oci/reference"
	"github.com/cleatlabs/cleat/oci/remote"
	"github.com/cleatlabs/cleat/oci/store"
)

// Push sends an image, or all tags of a repository, to its registry. Blobs that
// the registry has in a repository they came from are mounted, not sent.
func (s *Service) Push(ctx context.Context, o PushOptions) error {
	n, err := reference.Parse(o.Ref)
	if err != nil {
		return err
	}
	if o.Progress == nil {
		o.Progress = func(jsonstream.Message) {}
	}
	o.Progress(jsonstream.Message{Status: fmt.Sprintf("The push refers to repository [%s]", n.Name())})
	x, err := s.index(ctx)
	if err != nil {
		return err
	}
	session := s.remote.Session(credentials(o.Auth))
	if !o.AllTags {
		n, err = reference.ParseTagged(o.Ref)
		if err != nil {
			return err
		}
		img, ok := x.byName[n.String()]
		if !ok {
			if reference.Tag(n) == "" {
				return errdefs.NotFoundf("An image does not exist locally with the tag: %s", reference.FamiliarRepository(n))
			}
			return errdefs.NotFoundf("tag does not exist: %s", reference.Familiar(n))
		}
		return s.pushOne(ctx, session, n, img.Target, o)
	}
	pushed := 0
	for _, img := range x.all {
		tagged, err := reference.Parse(img.Name)
		if err != nil || tagged.Name() != n.Name() || reference.Tag(tagged) == "" {
			continue
		}
		if err := s.pushOne(ctx, session, tagged, img.Target, o); err != nil {
			return err
		}
		pushed++
	}
	if pushed == 0 {
		return errdefs.NotFoundf("An image does not exist locally with the tag: %s", reference.FamiliarRepository(n))
	}
	return nil
}

func (s *Service) pushOne(ctx context.Context, session *remote.Session, n reference.Named, target ocispec.Descriptor, o PushOptions) error {
	ctx, release, err := s.hold(ctx, target)
	if err != nil {
		return err
	}
	defer release()
	whole := target
	target, err = s.pushTarget(ctx, target, o.Platform, n)
	if err != nil {
		return err
	}
	// Naming the digest beside the tag keeps the pusher from tagging each
	// manifest of an index in turn.
	ref := n.String()
	if reference.Digest(n) == "" {
		ref += "@" + target.Digest.String()
	}
	pusher, err := session.Pusher(ctx, ref)
	if err != nil {
		return err
	}
	r := &pushReport{send: o.Progress, uploads: session.Uploads, layers: map[digest.Digest]ocispec.Descriptor{}}
	stop := make(chan struct{})
	var watcher sync.WaitGroup
	watcher.Go(func() { r.watch(ctx, stop) })
	err = remotes.PushContent(ctx, pusher, target, s.store.Content(), s.upload, platforms.All, r.wrap)
	close(stop)
	watcher.Wait()
	if err != nil {
		return remote.Classify(err, reference.FamiliarRepository(n))
	}
	s.noteSource(ctx, n, target)
	if target.Digest != whole.Digest && o.Platform == nil {
		if err := sendAux(o.Progress, auxprogress.ManifestPushedInsteadOfIndex{
			ManifestPushedInsteadOfIndex: true, OriginalIndex: whole, SelectedManifest: target,
		}); err != nil {
			return err
		}
	}
	if tag := reference.Tag(n); tag != "" {
		o.Progress(jsonstream.Message{Status: fmt.Sprintf("%s: digest: %s size: %d", tag, target.Digest, target.Size)})
	}
	s.publish(events.ActionPush, reference.Familiar(n), reference.FamiliarRepository(n), nil)
	return nil
}

func sendAux(send Progress, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	raw := json.RawMessage(data)
	send(jsonstream.Message{Aux: &raw})
	return nil
}

// pushTarget chooses what can be sent: the whole of target if all of it is
// here, or the one platform that is asked for or is the only one here.
func (s *Service) pushTarget(ctx context.Context, target ocispec.Descriptor, p *ocispec.Platform, n reference.Named) (ocispec.Descriptor, error) {
	if !store.IsIndex(target) && p == nil {
		return target, nil
	}
	descs, err := s.manifests(ctx, target)
	if err != nil {
		return target, err
	}
	all, err := s.present(ctx, target)
	if err != nil {
		return target, err
	}
	here := map[digest.Digest]bool{}
	var candidates []*parsed
	want, _ := s.matcher(p)
	for _, m := range all {
		if !s.complete(ctx, m) {
			continue
		}
		here[m.desc.Digest] = true
		if p == nil || want.Match(m.platform()) {
			candidates = append(candidates, m)
		}
	}
	missing := false
	for _, d := range descs {
		missing = missing || !here[d.Digest] && !(d.Annotations[refType] != "" && s.store.Has(ctx, d.Digest))
	}
	switch {
	case p == nil && !missing:
		return target, nil
	case len(candidates) == 0:
		return target, platformNotFound(images.Image{Name: n.String(), Target: target}, p)
	case len(candidates) == 1:
		return candidates[0].desc, nil
	}
	best := bestOf(candidates, want)
	if !want.Match(best.platform()) {
		return target, errdefs.Conflictf("multiple matching manifests found but no specific platform requested")
	}
	return best.desc, nil
}

// noteSource records where blobs are now to be found, for mounting them from
// there in later pushes.
func (s *Service) noteSource(ctx context.Context, n reference.Named, target ocispec.Descriptor) {
	source, err := docker.AppendDistributionSourceLabel(s.store.Content(), n.String())
	if err == nil {
		err = images.Walk(ctx, images.Handlers(images.HandlerFunc(func(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
			if !s.store.Has(ctx, d.Digest) {
				return nil, images.ErrSkipDesc
			}
			return s.store.Children(ctx, d)
		}), source), target)
	}
	if err != nil {
		s.log.Warn("the source of pushed blobs is not recorded; later pushes send them again", "image", n.String(), "error", err)
	}
}

// pushReport turns uploads into Docker's messages.
type pushReport struct {
	send    Progress
	uploads docker.StatusTracker

	mu     sync.Mutex
	layers map[digest.Digest]ocispec.Descriptor // in progress
}

// wrap reports around the handler that pushes each blob.
func (r *pushReport) wrap(h images.Handler) images.Handler {
	return remotes.SkipNonDistributableBlobs(func(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		layer := images.IsLayerType(d.MediaType)
		if layer {
			r.send(jsonstream.Message{ID: shortID(d.Digest), Status: "Preparing"})
			r.mu.Lock()
			r.layers[d.Digest] = d
			r.mu.Unlock()
		}
		children, err := h.Handle(ctx, d)
		if layer {
			r.mu.Lock()
			delete(r.layers, d.Digest)
			r.mu.Unlock()
		}
		if err != nil {
			return children, err
		}
		if layer {
			r.send(jsonstream.Message{ID: shortID(d.Digest), Status: r.outcome(ctx, d)})
		}
		return children, nil
	})
}

func (r *pushReport) outcome(ctx context.Context, d ocispec.Descriptor) string {
	st, err := r.uploads.GetStatus(remotes.MakeRefKey(ctx, d))
	switch {
	case err != nil:
		return "Pushed"
	case st.MountedFrom != "":
		return "Mounted from " + reference.FamiliarOf(st.MountedFrom)
	case st.Exists:
		return "Layer already exists"
	}
	return "Pushed"
}

func (r *pushReport) watch(ctx context.Context, stop <-chan struct{}) {
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		r.mu.Lock()
		for _, d := range r.layers {
			if st, err := r.uploads.GetStatus(remotes.MakeRefKey(ctx, d)); err == nil && st.Offset > 0 {
				r.send(jsonstream.Message{ID: shortID(d.Digest), Status: "Pushing",
					Progress: &jsonstream.Progress{Current: st.Offset, Total: d.Size}})
			}
		}
		r.mu.Unlock()
	}
}
