package dockerapi

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/moby/moby/api/types/registry"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

// decodeAuth reads the X-Registry-Auth header: URL-safe base64 of a JSON
// object, padded or not. "" and an object without credentials give nil.
func decodeAuth(header string) (*registry.AuthConfig, error) {
	header = strings.TrimRight(header, "=")
	if header == "" {
		return nil, nil
	}
	// Some clients use the standard alphabet.
	header = strings.NewReplacer("+", "-", "/", "_").Replace(header)
	data, err := base64.RawURLEncoding.DecodeString(header)
	if err != nil {
		return nil, errdefs.Invalidf("invalid X-Registry-Auth header: must be a valid base64url-encoded string")
	}
	var a *registry.AuthConfig
	if err := json.Unmarshal(data, &a); err != nil {
		return nil, errdefs.Invalidf("invalid X-Registry-Auth header: invalid JSON: %w", err)
	}
	if a == nil || *a == (registry.AuthConfig{}) {
		return nil, nil
	}
	return a, nil
}

// registryAuth is the request's credentials. As with Docker, a header that
// cannot be read counts as none: older clients send such.
func (s *Server) registryAuth(c *call) *registry.AuthConfig {
	a, err := decodeAuth(c.r.Header.Get(registry.AuthHeader))
	if err != nil {
		s.log.Debug("registry credentials ignored", "error", err)
	}
	return a
}

func (s *Server) auth(c *call) error {
	var a registry.AuthConfig
	if err := s.readJSON(c, &a); err != nil {
		return err
	}
	resp, err := s.Images.Login(c.ctx(), a)
	if err != nil {
		return err
	}
	if resp.Status == "" {
		resp.Status = "Login Succeeded"
	}
	return c.json(http.StatusOK, resp)
}
