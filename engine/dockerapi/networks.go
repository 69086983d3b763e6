package dockerapi

import (
	"net/http"

	"github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

// network151 is an entry of the list until API 1.51, whose maps are empty.
type network151 struct {
	network.Network
	Containers map[string]network.EndpointResource
}

func (s *Server) networkList(c *call) error {
	f, err := c.filters()
	if err != nil {
		return err
	}
	all, err := s.Networks.List(c.ctx(), f)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, networksFor(c.v, all))
}

func networksFor(v version, all []network.Inspect) any {
	switch {
	case v < 28:
		for i := range all {
			all[i] = networkFor(v, all[i])
		}
		return list(all)
	case v < 52:
		old := make([]network151, len(all))
		for i := range all {
			old[i] = network151{all[i].Network, map[string]network.EndpointResource{}}
		}
		return old
	}
	out := make([]network.Summary, len(all))
	for i := range all {
		out[i] = network.Summary{Network: all[i].Network}
	}
	return out
}

func networkFor(v version, n network.Inspect) network.Inspect {
	if n.Containers == nil {
		n.Containers = map[string]network.EndpointResource{}
	}
	if v < 52 {
		n.Status = nil
	}
	return n
}

func (s *Server) networkInspect(c *call) error {
	id, scope := c.path("id"), c.param("scope")
	n, err := s.Networks.Inspect(c.ctx(), id)
	if err != nil {
		return err
	}
	if scope != "" && scope != n.Scope {
		return errdefs.NotFoundf("network %s not found", id)
	}
	return c.json(http.StatusOK, networkFor(c.v, n))
}

func (s *Server) networkCreate(c *call) error {
	var r network.CreateRequest
	if err := s.readJSON(c, &r); err != nil {
		return err
	}
	if r.Name == "" {
		return errdefs.Invalidf("network name cannot be empty")
	}
	if c.v < 48 {
		r.EnableIPv4 = nil
	}
	resp, err := s.Networks.Create(c.lasting(), r)
	if err != nil {
		return err
	}
	return c.json(http.StatusCreated, resp)
}

func (s *Server) networkRemove(c *call) error {
	if err := s.Networks.Remove(c.lasting(), c.path("id")); err != nil {
		return err
	}
	return c.empty(http.StatusNoContent)
}

func (s *Server) networkConnect(c *call) error {
	var r network.ConnectRequest
	if err := s.readJSON(c, &r); err != nil {
		return err
	}
	if r.Container == "" {
		return errdefs.Invalidf("container name or ID cannot be empty")
	}
	if ep := r.EndpointConfig; ep != nil {
		if c.v < 44 {
			ep.MacAddress = nil
		}
		if c.v < 48 {
			ep.GwPriority = 0
		}
	}
	if err := s.Containers.ConnectNetwork(c.lasting(), c.path("id"), r.Container, r.EndpointConfig); err != nil {
		return err
	}
	return c.empty(http.StatusOK)
}

func (s *Server) networkDisconnect(c *call) error {
	var r network.DisconnectRequest
	if err := s.readJSON(c, &r); err != nil {
		return err
	}
	if r.Container == "" {
		return errdefs.Invalidf("container name or ID cannot be empty")
	}
	if err := s.Containers.DisconnectNetwork(c.lasting(), c.path("id"), r.Container, r.Force); err != nil {
		return err
	}
	return c.empty(http.StatusOK)
}

func (s *Server) networkPrune(c *call) error {
	f, err := c.filters()
	if err != nil {
		return err
	}
	report, err := s.Networks.Prune(c.ctx(), f)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, report)
}
