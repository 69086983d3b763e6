package container

import (
	"context"
	"errors"
	"maps"
	"os"
	"slices"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/volume"
	"golang.org/x/sync/errgroup"

	"github.com/cleatlabs/cleat/engine/image"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

// Create makes a container: name, writable layer, volumes and record. When it
// fails nothing of these is left.
func (s *Service) Create(ctx context.Context, o CreateOptions) (resp container.CreateResponse, err error) {
	rec, warnings, err := s.plan(ctx, o)
	if err != nil {
		return resp, err
	}
	// From here a client that goes away changes nothing: half a container helps nobody.
	ctx = context.WithoutCancel(ctx)
	c := newInstance(s.dir(rec.record.ID), rec.record)
	unlock, err := c.lock(ctx)
	if err != nil {
		return resp, err
	}
	defer unlock()
	if c.rec.Name, err = s.reserve(c, c.rec.Name); err != nil {
		return resp, err
	}
	undo := undoList{func() error { s.release(c, c.rec.Name); return nil }}
	defer func() {
		if err != nil {
			err = errors.Join(err, undo.run())
		}
	}()
	if err := s.createParts(ctx, c, rec.img, &undo); err != nil {
		return resp, err
	}
	s.publishIndex(c)
	s.publish(c, events.ActionCreate, nil)
	if warnings == nil {
		warnings = []string{}
	}
	return container.CreateResponse{ID: c.id, Warnings: warnings}, nil
}

// undoList are the steps that take back what was done, last first.
type undoList []func() error

func (u *undoList) add(f func() error) { *u = append(*u, f) }

func (u *undoList) run() error {
	var errs []error
	for _, f := range slices.Backward(*u) {
		errs = append(errs, f())
	}
	*u = nil
	return errors.Join(errs...)
}

// planned is a container that has been thought through and not yet made.
type planned struct {
	record record
	img    *image.Image
}

// plan resolves, completes and validates a request. It changes nothing.
func (s *Service) plan(ctx context.Context, o CreateOptions) (*planned, []string, error) {
	if o.Config == nil {
		return nil, nil, errdefs.Invalidf("config cannot be empty in order to create a container")
	}
	name := o.Name
	if name != "" {
		var err error
		if name, err = cleanName(s.nameRule, name); err != nil {
			return nil, nil, err
		}
	}
	img, err := s.deps.Images.Get(ctx, o.Config.Image, o.Platform)
	if err != nil {
		return nil, nil, err
	}
	cfg, err := mergeConfig(o.Config, &img.Config.Config)
	if err != nil {
		return nil, nil, err
	}
	if err := validateConfig(cfg); err != nil {
		return nil, nil, err
	}
	host := container.HostConfig{}
	if o.HostConfig != nil {
		host = *o.HostConfig
	}
	completeHost(&host, &s.cfg, s.facts)
	warnings, err := validateHost(cfg, &host, &s.cfg, s.facts)
	if err != nil {
		return nil, nil, err
	}
	endpoints, err := planEndpoints(&host, o.Networking)
	if err != nil {
		return nil, nil, err
	}
	if sandboxed(host.NetworkMode) && len(endpoints) > 0 {
		if err := s.deps.Networks.Validate(ctx, endpoints); err != nil {
			return nil, nil, err
		}
	}
	if err := s.checkJoined(&host); err != nil {
		return nil, nil, err
	}
	mounts, err := s.planMounts(cfg, &host)
	if err != nil {
		return nil, nil, err
	}
	id := newID()
	if cfg.Hostname == "" && !host.NetworkMode.IsHost() && !host.NetworkMode.IsContainer() && !host.UTSMode.IsHost() {
		cfg.Hostname = id[:12]
	}
	manifest := img.Manifest
	return &planned{img: img, record: record{
		Version: recordVersion, ID: id, Name: name, Created: s.clock.Now().UTC(),
		Image: img.ID, ChainID: img.ChainID, Manifest: &manifest, Platform: img.Config.Platform,
		Config: cfg, HostConfig: &host, Endpoints: endpoints, Mounts: mounts, State: container.StateCreated,
	}}, warnings, nil
}

// checkJoined looks up the containers whose namespaces are to be joined.
func (s *Service) checkJoined(h *container.HostConfig) error {
	for _, ref := range []string{h.NetworkMode.ConnectedContainer(), h.PidMode.Container(), h.IpcMode.Container()} {
		if ref == "" {
			continue
		}
		if _, err := s.lookup(ref); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) planMounts(cfg *container.Config, host *container.HostConfig) ([]mountPoint, error) {
	var donors []donor
	for _, from := range host.VolumesFrom {
		ref, mode, err := splitVolumesFrom(from)
		if err != nil {
			return nil, err
		}
		other, err := s.lookup(ref)
		if err != nil {
			return nil, err
		}
		donors = append(donors, donor{mounts: other.snapshot().Mounts, mode: mode})
	}
	mounts, err := planMounts(cfg, host, donors)
	if err != nil {
		return nil, err
	}
	for _, m := range mounts {
		if m.Type == mount.TypeBind && !m.Create {
			if _, err := os.Stat(m.Source); err != nil {
				return nil, errdefs.Invalidf("invalid mount config for type %q: bind source path does not exist: %s", m.Type, m.Source)
			}
		}
		if m.ReadOnlyForceRecursive && !s.facts.RecursiveReadOnly {
			return nil, errdefs.Invalidf("invalid mount config for type %q: this kernel cannot make mounts recursively read-only", m.Type)
		}
	}
	return mounts, nil
}

// createParts makes the writable layer, the volumes and the record, side by
// side where they do not need each other.
func (s *Service) createParts(ctx context.Context, c *instance, img *image.Image, undo *undoList) error {
	undo.add(func() error { return s.removeDir(c.id) })
	undo.add(func() error { return ignoreNotFound(s.deps.Images.RemoveSnapshot(ctx, c.id)) })
	if err := os.MkdirAll(c.dir, 0o710); err != nil {
		return err
	}
	var g errgroup.Group
	g.Go(func() error { return s.deps.Images.PrepareSnapshot(ctx, c.id, img) })
	if !slices.ContainsFunc(c.rec.Mounts, func(m mountPoint) bool { return m.Type == mount.TypeVolume }) {
		rec := c.rec
		g.Go(func() error { return writeRecord(c.dir, &rec, durable) })
		return g.Wait()
	}
	mounts, fresh, err := s.createVolumes(ctx, &c.rec, undo)
	if err = errors.Join(err, g.Wait()); err != nil {
		return err
	}
	c.rec.Mounts = mounts
	if err := s.populate(ctx, &c.rec, fresh); err != nil {
		return err
	}
	return writeRecord(c.dir, &c.rec, durable)
}

// createVolumes makes the volumes that do not exist and holds all of them for
// the container. fresh are those whose content may come from the image.
func (s *Service) createVolumes(ctx context.Context, r *record, undo *undoList) (mounts, fresh []mountPoint, err error) {
	mounts = slices.Clone(r.Mounts)
	for i := range mounts {
		m := &mounts[i]
		if m.Type != mount.TypeVolume {
			continue
		}
		req := volume.CreateRequest{Name: m.Name, Driver: m.Driver, DriverOpts: m.DriverOptions, Labels: maps.Clone(m.Labels)}
		if m.Anonymous {
			req.Name = newID()
			req.Labels = union(req.Labels, map[string]string{"com.docker.volume.anonymous": ""})
		}
		v, err := s.deps.Volumes.Create(ctx, req)
		if err != nil {
			return nil, nil, err
		}
		m.Name, m.Driver, m.Source = v.Name, v.Driver, v.Mountpoint
		name := v.Name
		if m.Anonymous {
			undo.add(func() error { return ignoreNotFound(s.deps.Volumes.Remove(ctx, name, true)) })
		}
		s.deps.Volumes.Hold(name, r.ID)
		undo.add(func() error { s.deps.Volumes.Release(name, r.ID); return nil })
		if !m.NoCopy && m.Subpath == "" {
			fresh = append(fresh, *m)
		}
	}
	return mounts, fresh, nil
}

// sandboxed says whether the network mode gives a network namespace of ours.
func sandboxed(m container.NetworkMode) bool { return !m.IsHost() && !m.IsContainer() }

// planEndpoints joins the network mode and the endpoints asked for: the mode's
// network is one of them.
func planEndpoints(h *container.HostConfig, n *network.NetworkingConfig) (map[string]*network.EndpointSettings, error) {
	asked := map[string]*network.EndpointSettings{}
	if n != nil {
		for name, e := range n.EndpointsConfig {
			if e == nil {
				e = &network.EndpointSettings{}
			}
			asked[name] = e.Copy()
		}
	}
	mode := string(h.NetworkMode)
	if d, ok := asked[network.NetworkDefault]; ok && mode == network.NetworkBridge {
		delete(asked, network.NetworkDefault)
		asked[mode] = d
	}
	switch {
	case h.NetworkMode.IsContainer():
		if len(asked) > 0 {
			return nil, errdefs.Invalidf("conflicting options: cannot attach networks to a container in the network of another container")
		}
		return nil, nil
	case h.NetworkMode.IsHost() || h.NetworkMode.IsNone():
		for name := range asked {
			if name != mode {
				return nil, errdefs.Invalidf("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
			}
		}
		return nil, nil
	}
	if _, ok := asked[mode]; !ok {
		asked[mode] = &network.EndpointSettings{}
	}
	if h.NetworkMode.IsUserDefined() && len(h.Links) > 0 {
		asked[mode].Links = slices.Concat(asked[mode].Links, h.Links)
	}
	for name := range asked {
		if name == network.NetworkHost || name == network.NetworkNone {
			return nil, errdefs.Invalidf("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
		}
	}
	return asked, nil
}

func ignoreNotFound(err error) error {
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	return err
}
