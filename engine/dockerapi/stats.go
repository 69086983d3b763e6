package dockerapi

import (
	"net/http"

	"github.com/moby/moby/api/types/container"
)

func (s *Server) containerStats(c *call) error {
	stream := c.flagOr("stream", true)
	oneShot := c.v >= 41 && c.flag("one-shot")
	out := newJSONStream(c, "application/json")
	err := s.Containers.Stats(c.ctx(), c.path("name"), stream, oneShot, func(st *container.StatsResponse) error {
		if c.v < 52 {
			st.OSType = ""
		}
		return out.send(st)
	})
	if err == nil || !out.begun() {
		return err
	}
	return nil // the client has left, or the container has
}

func (s *Server) containerExport(c *call) error {
	c.Header().Set("Content-Type", "application/octet-stream")
	return c.archive(s.Containers.Export(c.ctx(), c.path("name"), c))
}

// archive ends a binary stream. An error after its beginning can only be told
// by cutting the connection, which no client takes for a complete archive.
func (c *call) archive(err error) error {
	if err != nil && c.status != 0 {
		panic(http.ErrAbortHandler)
	}
	return err
}
