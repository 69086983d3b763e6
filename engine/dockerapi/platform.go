package dockerapi

import (
	"encoding/json"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

// platformJSON reads a platform as newer parameters carry it.
func platformJSON(s string) (*ocispec.Platform, error) {
	var p ocispec.Platform
	if err := json.Unmarshal([]byte(s), &p); err != nil {
		return nil, errdefs.Invalidf("failed to parse platform: %w", err)
	}
	if p.OS == "" || p.Architecture == "" {
		return nil, errdefs.Invalidf("both OS and Architecture must be provided")
	}
	return &p, nil
}

// platformString reads os[/arch[/variant]], as older parameters carry it.
func platformString(s string) (*ocispec.Platform, error) {
	p, err := platforms.Parse(s)
	if err != nil {
		return nil, errdefs.As(errdefs.ErrInvalidArgument, err)
	}
	return &p, nil
}

// platform reads the JSON parameter "platform", which exists since API since;
// nil when it was not given.
func (c *call) platform(since version) (*ocispec.Platform, error) {
	s := c.param("platform")
	if s == "" || c.v < since {
		return nil, nil
	}
	return platformJSON(s)
}

// platforms reads a repeated JSON parameter; several values need API 1.52.
func (c *call) platforms(name string, since, many version) ([]ocispec.Platform, error) {
	if c.v < since {
		return nil, nil
	}
	values := c.params()[name]
	if len(values) > 1 && c.v < many {
		return nil, errdefs.Invalidf("multiple platform parameters are not supported in this API version; use API version 1.52 or later")
	}
	var out []ocispec.Platform
	for _, s := range values {
		p, err := platformJSON(s)
		if err != nil {
			return nil, err
		}
		out = append(out, *p)
	}
	return out, nil
}
