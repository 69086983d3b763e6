package dockerapi

// Endpoints lists "METHOD path" of what is served, and of what is answered as absent.
func (s *Server) Endpoints() (served, absent []string) {
	for _, r := range append(s.routes(), s.ours()...) {
		served = append(served, r.method+" "+r.path)
	}
	for _, r := range append(s.outsideSwarm(), s.absent()...) {
		absent = append(absent, r.method+" "+r.path)
	}
	return served, absent
}
