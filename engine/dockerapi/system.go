package dockerapi

import (
	"net/http"

	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/system"
)

func (s *Server) ping(c *call) error {
	h := c.Header()
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	h.Set("Pragma", "no-cache")
	h.Set("Builder-Version", s.cfg.BuilderVersion)
	h.Set("Swarm", string(swarm.LocalNodeStateInactive))
	h.Set("Content-Type", "text/plain; charset=utf-8")
	if c.r.Method == http.MethodHead {
		h.Set("Content-Length", "0")
		return c.empty(http.StatusOK)
	}
	_, err := c.Write([]byte("OK"))
	return err
}

func (s *Server) version(c *call) error {
	v, err := s.System.Version(c.ctx())
	if err != nil {
		return err
	}
	v.APIVersion, v.MinAPIVersion = MaxAPIVersion, s.cfg.MinAPIVersion
	for i := range v.Components {
		if d := v.Components[i].Details; v.Components[i].Name == "Engine" && d != nil {
			d["ApiVersion"], d["MinAPIVersion"] = v.APIVersion, v.MinAPIVersion
		}
	}
	return c.json(http.StatusOK, v)
}

// info149 is the shape until API 1.49.
type info149 struct {
	*system.Info
	BridgeNfIptables  bool
	BridgeNfIp6tables bool
}

// info148 has, of each commit, the one expected.
type info148 struct {
	info149
	ContainerdCommit, RuncCommit, InitCommit commit148
}

type commit148 struct{ ID, Expected string }

func (s *Server) info(c *call) error {
	info, err := s.System.Info(c.ctx())
	if err != nil {
		return err
	}
	if info.Swarm.LocalNodeState == "" {
		info.Swarm.LocalNodeState = swarm.LocalNodeStateInactive
	}
	return c.json(http.StatusOK, infoFor(c.v, info))
}

// infoFor is info in the shape of v; info may be changed.
func infoFor(v version, info *system.Info) any {
	if v < 44 {
		old := make(map[string]system.RuntimeWithStatus, len(info.Runtimes))
		for name, r := range info.Runtimes {
			old[name] = system.RuntimeWithStatus{Runtime: r.Runtime}
		}
		info.Runtimes = old
	}
	if v < 46 {
		info.Containerd = nil
	}
	if v < 49 {
		info.FirewallBackend = nil
	}
	if v < 50 {
		info.DiscoveredDevices = nil
	}
	if v < 53 {
		info.NRI = nil
	}
	switch {
	case v >= 50:
		return info
	case v == 49:
		return info149{Info: info}
	}
	return info148{
		info149:          info149{Info: info},
		ContainerdCommit: commit148{info.ContainerdCommit.ID, info.ContainerdCommit.ID},
		RuncCommit:       commit148{info.RuncCommit.ID, info.RuncCommit.ID},
		InitCommit:       commit148{info.InitCommit.ID, info.InitCommit.ID},
	}
}

// buildPrune answers `docker system prune`: without a builder there is no cache.
func (s *Server) buildPrune(c *call) error {
	return c.json(http.StatusOK, build.CachePruneReport{CachesDeleted: []string{}})
}
