package dockerapi

import (
	"net/http"

	"github.com/cleatlabs/cleat/api/enginev1"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

// ours are the endpoints beyond Docker's API; api/enginev1 describes them.
func (s *Server) ours() []route {
	return []route{
		{"GET", enginev1.DoctorPath, s.doctor},
		{"GET", enginev1.Prefix + "/volumes/{name}/export", s.volumeExport},
		{"POST", enginev1.Prefix + "/volumes/{name}/import", s.volumeImport},
		{"POST", enginev1.Prefix + "/volumes/{name}/clone", s.volumeClone},
	}
}

func (s *Server) doctor(c *call) error {
	report, err := s.System.Doctor(c.ctx())
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, report)
}

func (s *Server) volumeExport(c *call) error {
	c.Header().Set("Content-Type", mediaTar)
	return c.archive(s.Volumes.Export(c.ctx(), c.path("name"), c))
}

func (s *Server) volumeImport(c *call) error {
	tar, err := decompress(c.r.Body)
	if err != nil {
		return err
	}
	defer tar.Close()
	if err := s.Volumes.Import(c.ctx(), c.path("name"), tar); err != nil {
		return err
	}
	return c.empty(http.StatusNoContent)
}

func (s *Server) volumeClone(c *call) error {
	var r enginev1.CloneVolume
	if err := s.readJSON(c, &r); err != nil {
		return err
	}
	if r.Target == "" {
		return errdefs.Invalidf("the target volume's name is missing")
	}
	v, err := s.Volumes.Clone(c.lasting(), c.path("name"), r.Target)
	if err != nil {
		return err
	}
	return c.json(http.StatusCreated, v)
}
