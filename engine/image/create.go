package image

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/labels"
	cderrdefs "github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/klauspost/compress/gzip"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/engine/image/instruction"
	"github.com/cleatlabs/cleat/internal/errdefs"
	"github.com/cleatlabs/cleat/oci/layer"
	"github.com/cleatlabs/cleat/oci/reference"
	"github.com/cleatlabs/cleat/oci/store"
)

// Commit makes an image of a writable layer's changes and its parent. The
// caller pauses the container or accepts what it reads.
func (s *Service) Commit(ctx context.Context, o CommitOptions) (digest.Digest, error) {
	name := ""
	if o.Repo != "" {
		n, err := reference.Parse(o.Repo)
		if err != nil {
			return "", err
		}
		tag := o.Tag
		if tag == "" {
			tag = reference.DefaultTag
		}
		if n, err = reference.WithTag(n, tag); err != nil {
			return "", err
		}
		name = n.String()
	}
	cfg, err := commitConfig(o)
	if err != nil {
		return "", err
	}
	ctx, release, err := s.store.WithLease(s.store.Context(ctx))
	if err != nil {
		return "", err
	}
	defer release()
	d, done, err := s.diff(ctx, o.SnapshotKey)
	if err != nil {
		return "", err
	}
	defer done()

	created := o.Created
	if created.IsZero() {
		created = s.now()
	}
	img := dockerspec.DockerOCIImage{}
	var layers []ocispec.Descriptor
	if o.Parent != nil {
		var m ocispec.Manifest
		if err := s.store.ReadJSON(ctx, o.Parent.Manifest, &m); err != nil {
			return "", fmt.Errorf("commit: read parent image: %w", err)
		}
		layers = slices.Clone(m.Layers)
		img.Platform = o.Parent.Config.Platform
		img.Author = o.Parent.Config.Author
		img.RootFS.DiffIDs = slices.Clone(o.Parent.Config.RootFS.DiffIDs)
		img.History = slices.Clone(o.Parent.Config.History)
	}
	img.RootFS.Type = "layers"
	img.Created, img.Config = &created, imageConfig(cfg)
	if img.Architecture == "" {
		img.Architecture = runtime.GOARCH
	}
	if img.OS == "" {
		img.OS = runtime.GOOS
	}
	if o.Author != "" {
		img.Author = o.Author
	}
	h := ocispec.History{Created: &created, Author: o.Author, Comment: o.Comment, EmptyLayer: len(d.Changes) == 0}
	if o.ContainerConfig != nil {
		h.CreatedBy = strings.Join(o.ContainerConfig.Cmd, " ")
	}
	img.History = append(img.History, h)
	if len(d.Changes) > 0 {
		desc, diffID, err := s.writeLayer(ctx, "commit-"+o.SnapshotKey, func(w io.Writer) error { return layer.WriteTar(ctx, w, d) })
		if err != nil {
			return "", fmt.Errorf("commit: %w", err)
		}
		layers, img.RootFS.DiffIDs = append(layers, desc), append(img.RootFS.DiffIDs, diffID)
	}
	var l map[string]string
	if o.Parent != nil {
		l = map[string]string{labelParent: o.Parent.ID.String()}
	}
	return s.create(ctx, name, img, layers, l)
}

// create stores configuration and manifest, unpacks and names the image.
func (s *Service) create(ctx context.Context, name string, img dockerspec.DockerOCIImage, layers []ocispec.Descriptor, imageLabels map[string]string) (digest.Digest, error) {
	cfgType, manType := ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageManifest
	cfg, err := s.store.WriteJSON(ctx, cfgType, img, nil)
	if err != nil {
		return "", err
	}
	if layers == nil {
		layers = []ocispec.Descriptor{}
	}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: manType, Config: cfg, Layers: layers}
	desc, err := s.store.WriteJSON(ctx, manType, m, store.ManifestLabels(m))
	if err != nil {
		return "", err
	}
	if err := s.unpackStored(ctx, desc); err != nil {
		return "", err
	}
	if _, err := s.setName(ctx, name, desc, imageLabels); err != nil {
		return "", err
	}
	if name != "" {
		s.publish(events.ActionTag, formatID(desc.Digest), reference.FamiliarOf(name), nil)
	}
	return desc.Digest, nil
}

// writeLayer stores a gzip layer of what write produces and returns its
// descriptor and the digest of its plain form.
func (s *Service) writeLayer(ctx context.Context, ref string, write func(io.Writer) error) (ocispec.Descriptor, digest.Digest, error) {
	cs := s.store.Content()
	w, err := content.OpenWriter(ctx, cs, content.WithRef(ref))
	if err != nil {
		return ocispec.Descriptor{}, "", fmt.Errorf("write layer: %w", err)
	}
	defer w.Close()
	fail := func(err error) (ocispec.Descriptor, digest.Digest, error) {
		if abortErr := cs.Abort(context.WithoutCancel(ctx), ref); abortErr != nil && !cderrdefs.IsNotFound(abortErr) {
			err = errors.Join(err, abortErr)
		}
		return ocispec.Descriptor{}, "", fmt.Errorf("write layer: %w", err)
	}
	if err := w.Truncate(0); err != nil {
		return fail(err)
	}
	buf := bufio.NewWriterSize(w, 1<<20)
	z, err := gzip.NewWriterLevel(buf, gzip.BestSpeed)
	if err != nil {
		return fail(err)
	}
	plain := digest.SHA256.Digester()
	err = write(io.MultiWriter(z, plain.Hash()))
	if err := errors.Join(err, z.Close(), buf.Flush()); err != nil {
		return fail(err)
	}
	st, err := w.Status()
	if err != nil {
		return fail(err)
	}
	d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: w.Digest(), Size: st.Offset}
	err = w.Commit(ctx, d.Size, d.Digest, content.WithLabels(map[string]string{labels.LabelUncompressed: plain.Digest().String()}))
	if err != nil && !cderrdefs.IsAlreadyExists(err) {
		return fail(err)
	}
	return d, plain.Digest(), nil
}

// Import makes an image of one layer from a root file system's tar, compressed
// or not.
func (s *Service) Import(ctx context.Context, tar io.Reader, o ImportOptions) (string, error) {
	name := ""
	if o.Ref != "" {
		n, err := reference.ParseTagged(o.Ref)
		if err != nil {
			return "", err
		}
		if reference.Digest(n) != "" {
			return "", errdefs.Invalidf("cannot import digest reference")
		}
		name = n.String()
	}
	cfg := &container.Config{}
	if err := instruction.Apply(cfg, o.Changes); err != nil {
		return "", err
	}
	p := platforms.DefaultSpec()
	if o.Platform != nil {
		p = platforms.Normalize(*o.Platform)
	}
	plain, _, err := layer.Decompress(tar)
	if err != nil {
		return "", errdefs.Invalidf("cannot read the archive: %w", err)
	}
	defer plain.Close()
	ctx, release, err := s.store.WithLease(s.store.Context(ctx))
	if err != nil {
		return "", err
	}
	defer release()
	ref := fmt.Sprintf("import-%d", s.now().UnixNano())
	desc, diffID, err := s.writeLayer(ctx, ref, func(w io.Writer) error {
		_, err := io.Copy(w, plain)
		return err
	})
	if err != nil {
		return "", err
	}
	created := s.now()
	img := dockerspec.DockerOCIImage{Image: ocispec.Image{
		Created: &created, Platform: p,
		RootFS:  ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{diffID}},
		History: []ocispec.History{{Created: &created, Comment: o.Message}},
	}, Config: imageConfig(cfg)}
	id, err := s.create(ctx, name, img, []ocispec.Descriptor{desc}, nil)
	if err != nil {
		return "", err
	}
	s.publish(events.ActionImport, formatID(id), formatID(id), nil)
	return formatID(id), nil
}

// commitConfig is the new image's: what was asked for, changed by the
// instructions, and completed from the container's.
func commitConfig(o CommitOptions) (*container.Config, error) {
	cfg := &container.Config{}
	if o.Config != nil {
		c := *o.Config
		cfg = &c
	} else if o.ContainerConfig != nil {
		c := *o.ContainerConfig
		cfg = &c
	}
	if err := instruction.Apply(cfg, o.Changes); err != nil {
		return nil, err
	}
	if o.Config != nil && o.ContainerConfig != nil {
		mergeConfig(cfg, o.ContainerConfig)
	}
	return cfg, nil
}

// mergeConfig fills in what cfg leaves open.
func mergeConfig(cfg, base *container.Config) {
	if cfg.User == "" {
		cfg.User = base.User
	}
	if cfg.WorkingDir == "" {
		cfg.WorkingDir = base.WorkingDir
	}
	if cfg.StopSignal == "" {
		cfg.StopSignal = base.StopSignal
	}
	if len(cfg.Entrypoint) == 0 {
		if len(cfg.Cmd) == 0 {
			cfg.Cmd = base.Cmd
		}
		if cfg.Entrypoint == nil {
			cfg.Entrypoint = base.Entrypoint
		}
	}
	if cfg.Healthcheck == nil {
		cfg.Healthcheck = base.Healthcheck
	}
	if len(cfg.Shell) == 0 {
		cfg.Shell = base.Shell
	}
	cfg.ExposedPorts = mergeMaps(base.ExposedPorts, cfg.ExposedPorts)
	cfg.Volumes = mergeMaps(base.Volumes, cfg.Volumes)
	cfg.Labels = mergeMaps(base.Labels, cfg.Labels)
	have := map[string]bool{}
	for _, e := range cfg.Env {
		k, _, _ := strings.Cut(e, "=")
		have[k] = true
	}
	for _, e := range base.Env {
		if k, _, _ := strings.Cut(e, "="); !have[k] {
			cfg.Env = append(cfg.Env, e)
		}
	}
}

// mergeMaps is base overridden by over; nil when both are empty.
func mergeMaps[M ~map[K]V, K comparable, V any](base, over M) M {
	if len(base)+len(over) == 0 {
		return nil
	}
	out := make(M, len(base)+len(over))
	maps.Copy(out, base)
	maps.Copy(out, over)
	return out
}

// imageConfig keeps of a container's configuration what belongs to an image.
func imageConfig(c *container.Config) dockerspec.DockerOCIImageConfig {
	var ports map[string]struct{}
	if len(c.ExposedPorts) > 0 {
		ports = map[string]struct{}{}
		for p := range c.ExposedPorts {
			ports[p.String()] = struct{}{}
		}
	}
	return dockerspec.DockerOCIImageConfig{
		ImageConfig: ocispec.ImageConfig{
			User: c.User, ExposedPorts: ports, Env: c.Env, Entrypoint: c.Entrypoint, Cmd: c.Cmd,
			Volumes: c.Volumes, WorkingDir: c.WorkingDir, Labels: c.Labels, StopSignal: c.StopSignal,
			ArgsEscaped: c.ArgsEscaped, //nolint:staticcheck // Docker still records it
		},
		DockerOCIImageConfigExt: dockerspec.DockerOCIImageConfigExt{Healthcheck: c.Healthcheck, OnBuild: c.OnBuild, Shell: c.Shell},
	}
}
