package container

import (
	"context"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/storage"
)

// Inspect shows everything about a container.
func (s *Service) Inspect(ctx context.Context, ref string, size bool) (*container.InspectResponse, error) {
	c, err := s.lookup(ref)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	rec := c.rec
	st := c.apiState()
	c.mu.Unlock()
	host, cfg := *rec.HostConfig, *rec.Config
	command := slices.Concat(cfg.Entrypoint, cfg.Cmd)
	driver := s.deps.Images.Snapshotter()
	out := &container.InspectResponse{
		ID: rec.ID, Created: rec.Created.Format(time.RFC3339Nano), Path: first(command), State: st,
		Image: rec.Image.String(), Name: "/" + rec.Name, RestartCount: rec.RestartCount, Driver: driver,
		Platform: "linux", HostConfig: &host, Config: &cfg, Mounts: apiMounts(&rec),
		Storage:                 &storage.Storage{RootFS: &storage.RootFSStorage{Snapshot: &storage.RootFSStorageSnapshot{Name: driver}}},
		ExecIDs:                 s.execIDs(c),
		ImageManifestDescriptor: rec.Manifest,
		NetworkSettings:         networkSettings(&rec),
	}
	out.Args = []string{}
	if len(command) > 1 {
		out.Args = command[1:]
	}
	if sec, err := parseSecurity(host.SecurityOpt, &s.cfg); err == nil && s.facts.AppArmor {
		out.AppArmorProfile = sec.apparmor
	}
	dir := c.dir
	if ref := host.NetworkMode.ConnectedContainer(); ref != "" {
		if other, err := s.lookup(ref); err == nil {
			dir = other.dir
		}
	}
	if !rec.StartedAt.IsZero() {
		out.HostsPath, out.ResolvConfPath = filepath.Join(dir, hostsFile), filepath.Join(dir, resolvFile)
		out.HostnamePath = filepath.Join(dir, hostnameFile)
	}
	if host.LogConfig.Type == "json-file" {
		out.LogPath = filepath.Join(c.dir, logsDir, "container-json.log")
	}
	if size {
		rw, total, err := s.deps.Images.SnapshotUsage(ctx, c.id)
		if err != nil {
			return nil, err
		}
		out.SizeRw, out.SizeRootFs = &rw.Size, &total
	}
	return out, nil
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// apiState needs c.mu.
func (c *instance) apiState() *container.State {
	r := &c.rec
	st := &container.State{
		Status: r.State, Running: active(r.State), Paused: r.State == container.StatePaused,
		Restarting: r.State == container.StateRestarting, OOMKilled: r.OOMKilled, Dead: r.State == container.StateDead,
		ExitCode: r.ExitCode, Error: r.Error, StartedAt: apiTime(r.StartedAt), FinishedAt: apiTime(r.FinishedAt),
	}
	if live(r.State) && c.run != nil {
		st.Pid = c.run.task.Pid()
	}
	if r.Health != "" && r.Health != container.NoHealthcheck {
		st.Health = &container.Health{Status: r.Health, FailingStreak: r.FailingStreak, Log: slices.Clone(c.health)}
		if st.Health.Log == nil {
			st.Health.Log = []*container.HealthcheckResult{}
		}
	}
	return st
}

// apiTime is Docker's text of a moment; none is the first year's first second.
func apiTime(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

func apiMounts(r *record) []container.MountPoint {
	list := make([]container.MountPoint, 0, len(r.Mounts))
	for i := range r.Mounts {
		list = append(list, r.Mounts[i].apiMount())
	}
	return list
}

// networkSettings are the live ones while it runs, else what was asked for.
func networkSettings(r *record) *container.NetworkSettings {
	n := &container.NetworkSettings{Ports: network.PortMap{}, Networks: endpoints(r)}
	if live(r.State) && sandboxed(r.HostConfig.NetworkMode) {
		n.SandboxID = r.ID
	}
	if !live(r.State) {
		return n
	}
	for p := range r.Config.ExposedPorts {
		n.Ports[p] = nil
	}
	maps.Copy(n.Ports, r.Ports)
	return n
}

func endpoints(r *record) map[string]*network.EndpointSettings {
	out := map[string]*network.EndpointSettings{}
	from := r.Endpoints
	if r.Live != nil {
		from = r.Live
	}
	for name, e := range from {
		out[name] = e.Copy()
	}
	if mode := r.HostConfig.NetworkMode; len(out) == 0 && (mode.IsHost() || mode.IsNone()) {
		out[string(mode)] = &network.EndpointSettings{}
	}
	return out
}
