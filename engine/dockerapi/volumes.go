package dockerapi

import (
	"net/http"

	"github.com/moby/moby/api/types/volume"

	"github.com/cleatlabs/cleat/engine/filter"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

func (s *Server) volumeList(c *call) error {
	f, err := c.filters()
	if err != nil {
		return err
	}
	all, err := s.Volumes.List(c.ctx(), f)
	if err != nil {
		return err
	}
	all.Volumes = list(all.Volumes)
	return c.json(http.StatusOK, all)
}

func (s *Server) volumeInspect(c *call) error {
	v, err := s.Volumes.Inspect(c.ctx(), c.path("name"))
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, v)
}

func (s *Server) volumeCreate(c *call) error {
	var r volume.CreateRequest
	if err := s.readJSON(c, &r); err != nil {
		return err
	}
	if r.ClusterVolumeSpec != nil {
		return errdefs.NotImplementedf("not implemented: cluster volumes")
	}
	v, err := s.Volumes.Create(c.lasting(), r)
	if err != nil {
		return err
	}
	return c.json(http.StatusCreated, v)
}

// volumeUpdate exists in Docker for cluster volumes only.
func (s *Server) volumeUpdate(*call) error {
	return errdefs.Unavailablef("volume update only valid for cluster volumes, but swarm is unavailable")
}

func (s *Server) volumeRemove(c *call) error {
	if err := s.Volumes.Remove(c.lasting(), c.path("name"), c.flag("force")); err != nil {
		return err
	}
	return c.empty(http.StatusNoContent)
}

func (s *Server) volumePrune(c *call) error {
	f, err := c.filters()
	if err != nil {
		return err
	}
	if c.v < 42 { // anonymous volumes only, since then
		if f == nil {
			f = make(filter.Args)
		}
		f["all"] = []string{"true"}
	}
	report, err := s.Volumes.Prune(c.ctx(), f)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, report)
}
