package dockerapi

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strconv"

	"github.com/moby/moby/api/types/container"

	econtainer "github.com/cleatlabs/cleat/engine/container"
	"github.com/cleatlabs/cleat/engine/runtime"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

func (s *Server) containerList(c *call) error {
	f, err := c.filters()
	if err != nil {
		return err
	}
	limit, _, err := c.number("limit")
	if err != nil {
		return err
	}
	all, err := s.Containers.List(c.ctx(), econtainer.ListOptions{
		All: c.flag("all"), Size: c.flag("size"), Limit: limit, Filters: f,
	})
	if err != nil {
		return err
	}
	for i := range all {
		summaryFor(c.v, &all[i])
	}
	return c.json(http.StatusOK, list(all))
}

func (s *Server) containerInspect(c *call) error {
	ctr, err := s.Containers.Inspect(c.ctx(), c.path("name"), c.flag("size"))
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, inspectFor(c.v, ctr))
}

func (s *Server) containerStart(c *call) error {
	// An empty JSON object is let through; anything longer was a HostConfig
	// before API 1.24.
	if c.r.ContentLength > 7 || c.r.ContentLength == -1 {
		return errdefs.Invalidf("starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24")
	}
	if c.param("checkpoint") != "" {
		return errdefs.NotImplementedf("not implemented: starting a container from a checkpoint")
	}
	if err := s.Containers.Start(c.lasting(), c.path("name")); err != nil {
		return err
	}
	return c.empty(http.StatusNoContent)
}

func (c *call) stopOptions() (o econtainer.StopOptions, err error) {
	if c.v >= 42 {
		o.Signal = c.param("signal")
	}
	t, ok, err := c.number("t")
	if ok {
		o.Timeout = &t
	}
	return o, err
}

func (s *Server) containerStop(c *call) error {
	o, err := c.stopOptions()
	if err != nil {
		return err
	}
	if err := s.Containers.Stop(c.lasting(), c.path("name"), o); err != nil {
		return err
	}
	return c.empty(http.StatusNoContent)
}

func (s *Server) containerRestart(c *call) error {
	o, err := c.stopOptions()
	if err != nil {
		return err
	}
	if err := s.Containers.Restart(c.lasting(), c.path("name"), o); err != nil {
		return err
	}
	return c.empty(http.StatusNoContent)
}

func (s *Server) containerKill(c *call) error {
	name := c.path("name")
	if err := s.Containers.Kill(c.lasting(), name, c.param("signal")); err != nil {
		return fmt.Errorf("cannot kill container: %s: %w", name, err)
	}
	return c.empty(http.StatusNoContent)
}

func (s *Server) containerPause(c *call) error {
	if err := s.Containers.Pause(c.lasting(), c.path("name")); err != nil {
		return err
	}
	return c.empty(http.StatusNoContent)
}

func (s *Server) containerUnpause(c *call) error {
	if err := s.Containers.Unpause(c.lasting(), c.path("name")); err != nil {
		return err
	}
	return c.empty(http.StatusNoContent)
}

func (s *Server) containerRename(c *call) error {
	if err := s.Containers.Rename(c.lasting(), c.path("name"), c.param("name")); err != nil {
		return err
	}
	return c.empty(http.StatusNoContent)
}

func (s *Server) containerRemove(c *call) error {
	o := econtainer.RemoveOptions{Force: c.flag("force"), Volumes: c.flag("v"), Link: c.flag("link")}
	if err := s.Containers.Remove(c.lasting(), c.path("name"), o); err != nil {
		return err
	}
	return c.empty(http.StatusNoContent)
}

func (s *Server) containerUpdate(c *call) error {
	var u container.UpdateConfig
	if err := s.readJSON(c, &u); err != nil {
		return err
	}
	updateFor(c.v, &u)
	resp, err := s.Containers.Update(c.lasting(), c.path("name"), u)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, resp)
}

// updateFor drops what clients of v did not mean.
func updateFor(v version, u *container.UpdateConfig) {
	if v < 40 {
		u.PidsLimit = nil
	}
	if v < 55 {
		u.BlkioWeightDevice = nil
		u.BlkioDeviceReadBps, u.BlkioDeviceWriteBps = nil, nil
		u.BlkioDeviceReadIOps, u.BlkioDeviceWriteIOps = nil, nil
	}
	if u.PidsLimit != nil && *u.PidsLimit < 0 {
		*u.PidsLimit = 0 // both mean unlimited
	}
}

// size reads a terminal's size.
func (c *call) size() (runtime.Size, error) {
	h, err := c.dimension("h", "height")
	if err != nil {
		return runtime.Size{}, err
	}
	w, err := c.dimension("w", "width")
	return runtime.Size{Height: h, Width: w}, err
}

func (c *call) dimension(param, name string) (uint16, error) {
	n, err := strconv.ParseUint(c.param(param), 10, 32)
	if err != nil {
		return 0, errdefs.Invalidf("invalid resize %s %q: %w", name, c.param(param), err)
	}
	return uint16(min(n, math.MaxUint16)), nil // no terminal is larger
}

func (s *Server) containerResize(c *call) error {
	size, err := c.size()
	if err != nil {
		return err
	}
	if err := s.Containers.Resize(c.ctx(), c.path("name"), size); err != nil {
		return err
	}
	return c.empty(http.StatusOK)
}

func (s *Server) containerTop(c *call) error {
	args := c.param("ps_args")
	if args == "" {
		args = "-ef"
	}
	top, err := s.Containers.Top(c.ctx(), c.path("name"), args)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, top)
}

func (s *Server) containerChanges(c *call) error {
	changes, err := s.Containers.Changes(c.ctx(), c.path("name"))
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, changes) // null when there are none, as Docker
}

func (s *Server) containerPrune(c *call) error {
	f, err := c.filters()
	if err != nil {
		return err
	}
	report, err := s.Containers.Prune(c.ctx(), f)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, report)
}

func (s *Server) commit(c *call) error {
	// The body is a container.Config or nothing; null and {} are told apart
	// only by a pointer.
	var config *container.Config
	if err := s.readJSON(c, &config); err != nil {
		return err
	}
	repo, tag := c.param("repo"), c.param("tag")
	if _, err := repoTag(repo, tag); repo != "" && err != nil {
		return err
	}
	id, err := s.Containers.Commit(c.ctx(), c.param("container"), econtainer.CommitOptions{
		Repo: repo, Tag: tag, Author: c.param("author"), Comment: c.param("comment"),
		Changes: c.params()["changes"],
		NoPause: !c.flagOr("pause", true),
		Config:  config,
	})
	if err != nil {
		return err
	}
	return c.json(http.StatusCreated, container.CommitResponse{ID: id})
}

func (s *Server) containerWait(c *call) error {
	cond := container.WaitConditionNotRunning
	if v := c.param("condition"); v != "" && c.v >= 30 {
		cond = container.WaitCondition(v)
		switch cond {
		case container.WaitConditionNotRunning, container.WaitConditionNextExit, container.WaitConditionRemoved:
		default:
			return errdefs.Invalidf("invalid condition: %q", v)
		}
	}
	responses, err := s.Containers.Wait(c.ctx(), c.path("name"), cond)
	if err != nil {
		return err
	}
	c.Header().Set("Content-Type", "application/json")
	if c.v >= 30 {
		// The client starts the container once it sees the header: it knows
		// then that the exit will not be missed.
		c.WriteHeader(http.StatusOK)
		if err := c.FlushError(); err != nil {
			return err
		}
	}
	resp, ok := <-responses
	if !ok || c.v < 34 && resp.Error != nil {
		return nil // the client is gone, or is too old to be told
	}
	return json.NewEncoder(c).Encode(resp)
}
