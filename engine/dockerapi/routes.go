package dockerapi

import (
	"net/http"
	"strings"
)

// route is one endpoint. In path, {name...} stands for a reference that may
// contain slashes; what follows it is a suffix.
type route struct {
	method, path string
	handle       handler
}

// routes are the endpoints served, in the order of docs/design/dockerapi.md.
func (s *Server) routes() []route {
	return []route{
		{"HEAD", "/_ping", s.ping},
		{"GET", "/_ping", s.ping},
		{"GET", "/version", s.version},
		{"GET", "/info", s.info},
		{"GET", "/events", s.events},
		{"GET", "/system/df", s.diskUsage},
		{"POST", "/auth", s.auth},

		{"GET", "/containers/json", s.containerList},
		{"POST", "/containers/create", s.containerCreate},
		{"POST", "/containers/prune", s.containerPrune},
		{"GET", "/containers/{name}/json", s.containerInspect},
		{"GET", "/containers/{name}/top", s.containerTop},
		{"GET", "/containers/{name}/logs", s.containerLogs},
		{"GET", "/containers/{name}/changes", s.containerChanges},
		{"GET", "/containers/{name}/export", s.containerExport},
		{"GET", "/containers/{name}/stats", s.containerStats},
		{"POST", "/containers/{name}/resize", s.containerResize},
		{"POST", "/containers/{name}/start", s.containerStart},
		{"POST", "/containers/{name}/stop", s.containerStop},
		{"POST", "/containers/{name}/restart", s.containerRestart},
		{"POST", "/containers/{name}/kill", s.containerKill},
		{"POST", "/containers/{name}/update", s.containerUpdate},
		{"POST", "/containers/{name}/rename", s.containerRename},
		{"POST", "/containers/{name}/pause", s.containerPause},
		{"POST", "/containers/{name}/unpause", s.containerUnpause},
		{"POST", "/containers/{name}/attach", s.containerAttach},
		{"POST", "/containers/{name}/wait", s.containerWait},
		{"DELETE", "/containers/{name}", s.containerRemove},
		{"HEAD", "/containers/{name}/archive", s.archiveStat},
		{"GET", "/containers/{name}/archive", s.archiveGet},
		{"PUT", "/containers/{name}/archive", s.archivePut},
		{"POST", "/containers/{name}/exec", s.execCreate},
		{"POST", "/exec/{id}/start", s.execStart},
		{"POST", "/exec/{id}/resize", s.execResize},
		{"GET", "/exec/{id}/json", s.execInspect},
		{"POST", "/commit", s.commit},

		{"GET", "/images/json", s.imageList},
		{"POST", "/images/create", s.imageCreate},
		{"POST", "/images/load", s.imageLoad},
		{"GET", "/images/get", s.imageSaveMany},
		{"POST", "/images/prune", s.imagePrune},
		{"GET", "/images/{name...}/json", s.imageInspect},
		{"GET", "/images/{name...}/history", s.imageHistory},
		{"GET", "/images/{name...}/get", s.imageSave},
		{"POST", "/images/{name...}/push", s.imagePush},
		{"POST", "/images/{name...}/tag", s.imageTag},
		{"DELETE", "/images/{name...}", s.imageRemove},
		{"GET", "/distribution/{name...}/json", s.distribution},
		{"POST", "/build/prune", s.buildPrune},

		{"GET", "/networks", s.networkList},
		{"GET", "/networks/{$}", s.networkList},
		{"POST", "/networks/create", s.networkCreate},
		{"POST", "/networks/prune", s.networkPrune},
		{"GET", "/networks/{id}", s.networkInspect},
		{"DELETE", "/networks/{id}", s.networkRemove},
		{"POST", "/networks/{id}/connect", s.networkConnect},
		{"POST", "/networks/{id}/disconnect", s.networkDisconnect},

		{"GET", "/volumes", s.volumeList},
		{"POST", "/volumes/create", s.volumeCreate},
		{"POST", "/volumes/prune", s.volumePrune},
		{"GET", "/volumes/{name}", s.volumeInspect},
		{"PUT", "/volumes/{name}", s.volumeUpdate},
		{"DELETE", "/volumes/{name}", s.volumeRemove},

		{"GET", "/plugins", s.pluginList},
		{"GET", "/plugins/{name...}/json", s.pluginInspect},
	}
}

// register fills the mux.
func (s *Server) register() {
	all := s.routes()
	all = append(all, s.ours()...)
	all = append(all, s.outsideSwarm()...)
	all = append(all, s.absent()...)

	suffixed := make(map[string][]route) // by pattern
	for _, r := range all {
		prefix, suffix, ok := strings.Cut(r.path, "{name...}")
		if !ok {
			s.mux.HandleFunc(r.method+" "+r.path, func(w http.ResponseWriter, req *http.Request) {
				s.run(w, req, r.method, r.handle)
			})
			continue
		}
		pattern := r.method + " " + prefix + "{name...}"
		r.path = suffix
		suffixed[pattern] = append(suffixed[pattern], r)
	}
	for pattern, group := range suffixed {
		s.mux.HandleFunc(pattern, func(w http.ResponseWriter, req *http.Request) {
			s.runSuffixed(w, req, group)
		})
	}
	// Paths and methods that nothing above matches; without it ServeMux would
	// answer 405 in plain text.
	s.mux.HandleFunc("/", func(w http.ResponseWriter, req *http.Request) {
		s.run(w, req, req.Method, func(*call) error { return errNoPage })
	})
}

// runSuffixed picks the route of a pattern that ends in a reference by the
// suffix of the reference.
func (s *Server) runSuffixed(w http.ResponseWriter, req *http.Request, group []route) {
	name := req.PathValue("name")
	for _, r := range group {
		if ref, ok := strings.CutSuffix(name, r.path); ok && ref != "" {
			req.SetPathValue("name", ref)
			s.run(w, req, r.method, r.handle)
			return
		}
	}
	s.run(w, req, req.Method, func(*call) error { return errNoPage })
}
