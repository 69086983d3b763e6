package dockerapi

import (
	"net/http"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

// absentPaths are endpoints of Docker's API that are answered 501.
var absentPaths = [...][2]string{
	{"POST", "/build"},
	{"POST", "/build/cancel"},
	{"POST", "/session"},
	{"POST", "/grpc"},
	{"GET", "/images/search"},
	{"GET", "/images/{name...}/attestations"},
	{"GET", "/containers/{name}/attach/ws"},
	{"GET", "/containers/{name}/checkpoints"},
	{"POST", "/containers/{name}/checkpoints"},
	{"DELETE", "/containers/{name}/checkpoints/{checkpoint}"},
	{"GET", "/plugins/privileges"},
	{"POST", "/plugins/pull"},
	{"POST", "/plugins/create"},
	{"POST", "/plugins/{name...}/enable"},
	{"POST", "/plugins/{name...}/disable"},
	{"POST", "/plugins/{name...}/upgrade"},
	{"POST", "/plugins/{name...}/push"},
	{"POST", "/plugins/{name...}/set"},
	{"DELETE", "/plugins/{name...}"},
	{"POST", "/swarm/init"},
	{"POST", "/swarm/join"},
}

// absent answers what the engine lacks.
func (s *Server) absent() []route {
	var out []route
	for _, p := range absentPaths {
		out = append(out, route{p[0], p[1], func(*call) error {
			err := errdefs.NotImplementedf("not implemented: %s %s", p[0], p[1])
			if p[1] == "/images/search" {
				err = errdefs.WithHint(err, "registries are not searched; pull the image by its full name")
			}
			return err
		}})
	}
	return out
}

// swarmPaths are answered as by a Docker daemon that is in no swarm.
var swarmPaths = [...][2]string{
	{"GET", "/swarm"},
	{"POST", "/swarm/update"},
	{"GET", "/swarm/unlockkey"},
	{"POST", "/swarm/unlock"},
	{"GET", "/nodes"},
	{"GET", "/nodes/{id}"},
	{"DELETE", "/nodes/{id}"},
	{"POST", "/nodes/{id}/update"},
	{"GET", "/services"},
	{"POST", "/services/create"},
	{"GET", "/services/{id}"},
	{"DELETE", "/services/{id}"},
	{"POST", "/services/{id}/update"},
	{"GET", "/services/{id}/logs"},
	{"GET", "/tasks"},
	{"GET", "/tasks/{id}"},
	{"GET", "/tasks/{id}/logs"},
	{"GET", "/secrets"},
	{"POST", "/secrets/create"},
	{"GET", "/secrets/{id}"},
	{"DELETE", "/secrets/{id}"},
	{"POST", "/secrets/{id}/update"},
	{"GET", "/configs"},
	{"POST", "/configs/create"},
	{"GET", "/configs/{id}"},
	{"DELETE", "/configs/{id}"},
	{"POST", "/configs/{id}/update"},
}

func (s *Server) outsideSwarm() []route {
	out := []route{{"POST", "/swarm/leave", func(*call) error {
		return errdefs.Unavailablef("This node is not part of a swarm")
	}}}
	for _, p := range swarmPaths {
		out = append(out, route{p[0], p[1], func(*call) error {
			return errdefs.Unavailablef(`This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.`)
		}})
	}
	return out
}

func (s *Server) pluginList(c *call) error { return c.json(http.StatusOK, []struct{}{}) }

func (s *Server) pluginInspect(c *call) error {
	return errdefs.NotFoundf("plugin %q not found", c.path("name"))
}
