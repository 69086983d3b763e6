package container

import (
	"maps"
	"slices"
	"strings"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

// mergeConfig completes the user's configuration by the image's, as Docker
// does: what the user said wins, lists of names are united. user is not changed.
func mergeConfig(user *container.Config, img *dockerspec.DockerOCIImageConfig) (*container.Config, error) {
	c := *user
	if c.User == "" {
		c.User = img.User
	}
	if c.WorkingDir == "" {
		c.WorkingDir = img.WorkingDir
	}
	if c.StopSignal == "" {
		c.StopSignal = img.StopSignal
	}
	if len(c.Shell) == 0 {
		c.Shell = img.Shell
	}
	var err error
	if c.ExposedPorts, err = mergePorts(user.ExposedPorts, img.ExposedPorts); err != nil {
		return nil, err
	}
	c.Env = mergeEnv(user.Env, img.Env)
	c.Labels = union(img.Labels, user.Labels)
	c.Volumes = union(img.Volumes, user.Volumes)
	if len(c.Entrypoint) == 0 {
		if len(c.Cmd) == 0 {
			c.Cmd = slices.Clone(img.Cmd)
		}
		if c.Entrypoint == nil {
			c.Entrypoint = slices.Clone(img.Entrypoint)
		}
	}
	// An entrypoint of one empty word takes the image's away.
	if len(c.Entrypoint) == 1 && c.Entrypoint[0] == "" {
		c.Entrypoint = nil
	}
	if len(c.Entrypoint) == 0 && len(c.Cmd) == 0 {
		return nil, errdefs.Invalidf("no command specified")
	}
	c.Healthcheck = mergeHealth(user.Healthcheck, img.Healthcheck)
	return &c, nil
}

func mergePorts(user network.PortSet, img map[string]struct{}) (network.PortSet, error) {
	if len(user) == 0 && len(img) == 0 {
		return nil, nil
	}
	ports := maps.Clone(user)
	if ports == nil {
		ports = network.PortSet{}
	}
	for p := range img {
		r, err := network.ParsePortRange(p)
		if err != nil {
			return nil, errdefs.Invalidf("invalid exposed port %q in the image: %v", p, err)
		}
		for port := range r.All() {
			ports[port] = struct{}{}
		}
	}
	return ports, nil
}

// mergeEnv puts the image's variables before the user's, without those that the
// user sets.
func mergeEnv(user, img []string) []string {
	set := make(map[string]bool, len(user))
	for _, e := range user {
		k, _, _ := strings.Cut(e, "=")
		set[k] = true
	}
	env := slices.Clone(user)
	for _, e := range img {
		if k, _, _ := strings.Cut(e, "="); !set[k] {
			env = append(env, e)
		}
	}
	return env
}

func union[V any](base, over map[string]V) map[string]V {
	m := make(map[string]V, len(base)+len(over))
	maps.Copy(m, base)
	maps.Copy(m, over)
	return m
}

func mergeHealth(user, img *container.HealthConfig) *container.HealthConfig {
	if user == nil || img == nil {
		if user == nil {
			return img
		}
		return user
	}
	h := *user
	if len(h.Test) == 0 {
		h.Test = img.Test
	}
	setDefault(&h.Interval, img.Interval)
	setDefault(&h.Timeout, img.Timeout)
	setDefault(&h.StartPeriod, img.StartPeriod)
	setDefault(&h.StartInterval, img.StartInterval)
	setDefault(&h.Retries, img.Retries)
	return &h
}
