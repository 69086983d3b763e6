package container

import (
	"context"
	"errors"
	"io"
	"maps"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	apinetwork "github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/engine/image"
	"github.com/cleatlabs/cleat/engine/network"
	"github.com/cleatlabs/cleat/internal/errdefs"
	"github.com/cleatlabs/cleat/internal/safepath"
)

// Rename gives a container another name.
func (s *Service) Rename(ctx context.Context, ref, name string) error {
	c, err := s.lookup(ref)
	if err != nil {
		return err
	}
	if name, err = cleanName(s.nameRule, name); err != nil {
		return err
	}
	unlock, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := c.check(verbUse); err != nil {
		return err
	}
	old := c.snapshot().Name
	if old == name {
		return errdefs.Invalidf("Renaming a container with the same name as its current name")
	}
	if _, err := s.reserve(c, name); err != nil {
		return err
	}
	if err := c.change(durable, func(r *record) { r.Name = name }); err != nil {
		s.release(c, name)
		return err
	}
	s.release(c, old)
	rec := c.snapshot()
	if live(rec.State) && sandboxed(rec.HostConfig.NetworkMode) {
		if err := s.deps.Networks.Rename(ctx, c.id, name); err != nil {
			s.log.Warn("the new name cannot be resolved before the next start", "container", c.id, "error", err)
		}
	}
	s.publish(c, events.ActionRename, map[string]string{"oldName": "/" + old})
	return nil
}

// Update changes resources and restart policy.
func (s *Service) Update(ctx context.Context, ref string, u container.UpdateConfig) (container.UpdateResponse, error) {
	resp := container.UpdateResponse{Warnings: []string{}}
	c, err := s.lookup(ref)
	if err != nil {
		return resp, err
	}
	unlock, err := c.lock(ctx)
	if err != nil {
		return resp, err
	}
	defer unlock()
	if err := c.check(verbUse); err != nil {
		return resp, err
	}
	rec := c.snapshot()
	host := *rec.HostConfig
	mergeUpdate(&host, &u)
	if u.RestartPolicy.Name != "" && host.AutoRemove {
		return resp, errdefs.Conflictf("Restart policy cannot be updated because AutoRemove is enabled for the container")
	}
	if err := container.ValidateRestartPolicy(host.RestartPolicy); err != nil {
		return resp, errdefs.As(errdefs.ErrInvalidArgument, err)
	}
	warnings, err := validateResources(&host.Resources, s.facts)
	if err != nil {
		return resp, err
	}
	resp.Warnings = append(resp.Warnings, warnings...)
	c.mu.Lock()
	r := c.run
	c.mu.Unlock()
	if r != nil {
		block, err := findBlockDevices(&host.Resources)
		if err != nil {
			return resp, err
		}
		limits, err := planResources(&host.Resources, block)
		if err != nil {
			return resp, err
		}
		if err := r.task.Update(ctx, limits); err != nil {
			return resp, err
		}
	}
	if err := c.change(durable, func(r *record) { r.HostConfig = &host }); err != nil {
		return resp, err
	}
	s.publish(c, events.ActionUpdate, nil)
	return resp, nil
}

// mergeUpdate takes what an update names; zero values leave things as they are.
func mergeUpdate(h *container.HostConfig, u *container.UpdateConfig) {
	take := func(p *int64, v int64) {
		if v != 0 {
			*p = v
		}
	}
	r, n := &h.Resources, &u.Resources
	take(&r.CPUShares, n.CPUShares)
	take(&r.Memory, n.Memory)
	take(&r.MemorySwap, n.MemorySwap)
	take(&r.MemoryReservation, n.MemoryReservation)
	take(&r.CPUPeriod, n.CPUPeriod)
	take(&r.CPUQuota, n.CPUQuota)
	take(&r.CPURealtimePeriod, n.CPURealtimePeriod)
	take(&r.CPURealtimeRuntime, n.CPURealtimeRuntime)
	take(&r.NanoCPUs, n.NanoCPUs)
	if n.NanoCPUs != 0 {
		r.CPUPeriod, r.CPUQuota = 0, 0
	}
	if n.CPUQuota != 0 || n.CPUPeriod != 0 {
		r.NanoCPUs = 0
	}
	if n.BlkioWeight != 0 {
		r.BlkioWeight = n.BlkioWeight
	}
	if n.CpusetCpus != "" {
		r.CpusetCpus = n.CpusetCpus
	}
	if n.CpusetMems != "" {
		r.CpusetMems = n.CpusetMems
	}
	if n.PidsLimit != nil {
		r.PidsLimit = n.PidsLimit
	}
	if u.RestartPolicy.Name != "" {
		h.RestartPolicy = u.RestartPolicy
	}
}

// Changes lists what the container changed of its image's files.
func (s *Service) Changes(ctx context.Context, ref string) ([]container.FilesystemChange, error) {
	c, err := s.lookup(ref)
	if err != nil {
		return nil, err
	}
	changes, err := s.deps.Images.Changes(ctx, c.id)
	if changes == nil {
		changes = []container.FilesystemChange{}
	}
	return changes, err
}

// Export writes the container's files as a tar: its own, not those of volumes
// and of the kernel.
func (s *Service) Export(ctx context.Context, ref string, w io.Writer) error {
	c, err := s.lookup(ref)
	if err != nil {
		return err
	}
	rec := c.snapshot()
	err = s.withRootfs(ctx, &rec, rootOptions{readOnly: true}, func(root *safepath.Root) error {
		f := &files{root: root}
		return f.pack(ctx, w, "/", "")
	})
	if err == nil {
		s.publish(c, events.ActionExport, nil)
	}
	return err
}

// Commit makes an image of a container.
func (s *Service) Commit(ctx context.Context, ref string, o CommitOptions) (string, error) {
	c, err := s.lookup(ref)
	if err != nil {
		return "", err
	}
	unlock, err := c.lock(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	rec := c.snapshot()
	parent, err := s.deps.Images.Get(ctx, rec.Image.String(), &rec.Platform)
	if err != nil {
		return "", err
	}
	c.mu.Lock()
	r := c.run
	c.mu.Unlock()
	if r != nil && rec.State == container.StateRunning && !o.NoPause {
		if err := r.task.Pause(ctx); err != nil {
			return "", err
		}
		defer func() {
			if err := r.task.Resume(context.WithoutCancel(ctx)); err != nil && !errors.Is(err, errdefs.ErrConflict) {
				s.log.Error("a container stays paused after commit", "container", c.id, "error", err)
			}
		}()
	}
	cfg := o.Config
	if cfg == nil {
		own := *rec.Config
		own.Hostname = ""
		cfg = &own
	} else if cfg, err = mergeConfig(cfg, imageConfig(rec.Config)); err != nil {
		return "", err
	}
	id, err := s.deps.Images.Commit(ctx, image.CommitOptions{
		SnapshotKey: c.id, Parent: parent, ContainerID: c.id, ContainerConfig: rec.Config,
		Repo: o.Repo, Tag: o.Tag, Author: o.Author, Comment: o.Comment, Config: cfg, Changes: o.Changes, Created: s.clock.Now().UTC(),
	})
	if err != nil {
		return "", err
	}
	s.publish(c, events.ActionCommit, map[string]string{"comment": o.Comment, "imageID": id.String(), "imageRef": o.Repo})
	return id.String(), nil
}

// imageConfig is the part of a container's configuration that images have.
func imageConfig(c *container.Config) *dockerspec.DockerOCIImageConfig {
	out := &dockerspec.DockerOCIImageConfig{
		ImageConfig: ocispec.ImageConfig{
			User: c.User, Env: c.Env, Entrypoint: c.Entrypoint, Cmd: c.Cmd, Volumes: c.Volumes, WorkingDir: c.WorkingDir,
			Labels: c.Labels, StopSignal: c.StopSignal, ExposedPorts: map[string]struct{}{},
		},
	}
	out.Healthcheck, out.OnBuild, out.Shell = c.Healthcheck, c.OnBuild, c.Shell
	for p := range c.ExposedPorts {
		out.ExposedPorts[p.String()] = struct{}{}
	}
	return out
}

// ConnectNetwork adds a network to a container, running or not.
func (s *Service) ConnectNetwork(ctx context.Context, networkRef, ref string, e *apinetwork.EndpointSettings) error {
	c, err := s.lookup(ref)
	if err != nil {
		return err
	}
	n, err := s.deps.Networks.Inspect(ctx, networkRef)
	if err != nil {
		return err
	}
	unlock, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := c.check(verbUse); err != nil {
		return err
	}
	rec := c.snapshot()
	if !sandboxed(rec.HostConfig.NetworkMode) || n.Name == apinetwork.NetworkHost || n.Name == apinetwork.NetworkNone || rec.HostConfig.NetworkMode.IsNone() {
		return errdefs.Forbiddenf("container sharing network namespace with another container or host cannot be connected to any other network")
	}
	if e == nil {
		e = &apinetwork.EndpointSettings{}
	}
	if rec.Endpoints[n.Name] != nil && !live(rec.State) {
		return errdefs.Forbiddenf("endpoint with name %s already exists in network %s", rec.Name, n.Name)
	}
	if err := s.deps.Networks.Validate(ctx, map[string]*apinetwork.EndpointSettings{n.ID: e}); err != nil {
		return err
	}
	var box *network.Sandbox
	if live(rec.State) {
		if box, err = s.deps.Networks.Connect(ctx, c.id, n.ID, e); err != nil {
			return err
		}
	}
	return s.recordNetworks(c, box, func(all map[string]*apinetwork.EndpointSettings) { all[n.Name] = e })
}

// DisconnectNetwork takes a network away.
func (s *Service) DisconnectNetwork(ctx context.Context, networkRef, ref string, force bool) error {
	c, err := s.lookup(ref)
	if err != nil {
		return err
	}
	unlock, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := c.check(verbUse); err != nil {
		return err
	}
	rec := c.snapshot()
	name := networkRef
	n, err := s.deps.Networks.Inspect(ctx, networkRef)
	if err == nil {
		name = n.Name
	} else if !force {
		return err
	}
	if rec.Endpoints[name] == nil {
		return errdefs.Forbiddenf("container %s is not connected to network %s", c.id, name)
	}
	var box *network.Sandbox
	if live(rec.State) && err == nil {
		if box, err = s.deps.Networks.Disconnect(ctx, c.id, n.ID, force); err != nil {
			return err
		}
	}
	return s.recordNetworks(c, box, func(all map[string]*apinetwork.EndpointSettings) { delete(all, name) })
}

// recordNetworks stores changed endpoints and, for a running container, the
// names that follow from them.
func (s *Service) recordNetworks(c *instance, box *network.Sandbox, f func(map[string]*apinetwork.EndpointSettings)) error {
	err := c.change(durable, func(r *record) {
		all := maps.Clone(r.Endpoints)
		if all == nil {
			all = map[string]*apinetwork.EndpointSettings{}
		}
		f(all)
		r.Endpoints = all
		if box != nil {
			r.Live, r.Ports = box.Endpoints, box.Ports
		}
	})
	if err != nil || box == nil {
		return err
	}
	return writeNames(c.dir, box.Hosts, box.ResolvConf)
}
