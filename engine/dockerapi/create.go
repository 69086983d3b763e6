package dockerapi

import (
	"bytes"
	"net/http"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"

	econtainer "github.com/cleatlabs/cleat/engine/container"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

// legacyCreate are fields that the current types lack.
type legacyCreate struct {
	// MacAddress was the container's before API 1.44 and an alias of its first
	// network's until 1.51.
	MacAddress network.HardwareAddr
	HostConfig struct{ Capabilities []string }
}

func (s *Server) containerCreate(c *call) error {
	body, err := s.readBody(c)
	if err != nil {
		return err
	}
	req, warnings, err := decodeCreate(c.v, body)
	if err != nil {
		return err
	}
	o := econtainer.CreateOptions{
		Name:   c.param("name"),
		Config: req.Config, HostConfig: req.HostConfig, Networking: req.NetworkingConfig,
	}
	if p := c.param("platform"); p != "" && c.v >= 41 {
		platform, err := platformString(p)
		if err != nil {
			return err
		}
		o.Platform = platform
	}
	resp, err := s.Containers.Create(c.lasting(), o)
	if err != nil {
		return err
	}
	resp.Warnings = list(append(resp.Warnings, warnings...))
	return c.json(http.StatusCreated, resp)
}

// decodeCreate reads the body of POST /containers/create as a client of v
// means it. Config, HostConfig and NetworkingConfig of the result are set.
func decodeCreate(v version, body []byte) (req container.CreateRequest, warnings []string, err error) {
	if err := decodeJSON(body, &req); err != nil {
		return req, nil, err
	}
	if req.Config == nil {
		return req, nil, errdefs.Invalidf("config cannot be empty in order to create a container")
	}
	if req.HostConfig == nil {
		req.HostConfig = &container.HostConfig{}
	}
	if req.NetworkingConfig == nil {
		req.NetworkingConfig = &network.NetworkingConfig{}
	}
	for name, ep := range req.NetworkingConfig.EndpointsConfig {
		if ep == nil {
			req.NetworkingConfig.EndpointsConfig[name] = &network.EndpointSettings{}
		}
	}
	h, n := req.HostConfig, req.NetworkingConfig
	if h.NetworkMode == "" || h.NetworkMode.IsDefault() {
		h.NetworkMode = network.NetworkBridge
		if ep, ok := n.EndpointsConfig[network.NetworkDefault]; ok {
			delete(n.EndpointsConfig, network.NetworkDefault)
			n.EndpointsConfig[network.NetworkBridge] = ep
		}
	}
	if err := mountsFor(v, h); err != nil {
		return req, nil, err
	}
	if err := hostConfigFor(v, req.Config, h, n); err != nil {
		return req, nil, err
	}
	warnings, err = migrate(v, body, h, n)
	return req, warnings, err
}

// mountsFor checks and adapts HostConfig.Mounts.
func mountsFor(v version, h *container.HostConfig) error {
	for i := range h.Mounts {
		m := &h.Mounts[i]
		if err := mountOptionsFor(v, m); err != nil {
			return err
		}
		if bo := m.BindOptions; bo != nil {
			if v < 40 {
				bo.NonRecursive = false
			}
			if v < 42 {
				bo.CreateMountpoint = false
			}
			if v < 44 && bo.ReadOnlyForceRecursive && m.Type == mount.TypeBind {
				return errdefs.Invalidf("BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer")
			}
		}
		if v < 44 && m.Type == mount.TypeBind && m.ReadOnly {
			// Read-only bind mounts became recursively so with 1.44.
			if m.BindOptions == nil {
				m.BindOptions = &mount.BindOptions{}
			}
			m.BindOptions.ReadOnlyNonRecursive = true
		}
		if v < 45 && m.VolumeOptions != nil && m.VolumeOptions.Subpath != "" {
			return errdefs.Invalidf("VolumeOptions.Subpath needs API v1.45 or newer")
		}
		if v < 48 && m.Type == mount.TypeImage {
			return errdefs.Invalidf(`Mount type "Image" needs API v1.48 or newer`)
		}
	}
	return nil
}

// mountOptionsFor refuses options of another mount type; before API 1.42 they
// were ignored.
func mountOptionsFor(v version, m *mount.Mount) error {
	if v < 42 {
		if m.Type != mount.TypeVolume {
			m.VolumeOptions = nil
		}
		if m.Type != mount.TypeTmpfs {
			m.TmpfsOptions = nil
		}
		return nil
	}
	for _, o := range []struct {
		name string
		set  bool
		of   mount.Type
	}{
		{"VolumeOptions", m.VolumeOptions != nil, mount.TypeVolume},
		{"BindOptions", m.BindOptions != nil, mount.TypeBind},
		{"TmpfsOptions", m.TmpfsOptions != nil, mount.TypeTmpfs},
	} {
		if o.set && m.Type != o.of {
			return errdefs.Invalidf("%s must not be specified on mount type %q", o.name, m.Type)
		}
	}
	return nil
}

// hostConfigFor drops fields that clients of v could not mean and fills the
// defaults that they expect.
func hostConfigFor(v version, cfg *container.Config, h *container.HostConfig, n *network.NetworkingConfig) error {
	if v < 40 {
		if h.IpcMode.IsEmpty() {
			h.IpcMode = container.IPCModeShareable
		}
		h.PidsLimit = nil
	}
	if v < 41 && h.CgroupnsMode.IsEmpty() {
		h.CgroupnsMode = container.CgroupnsModeHost
	}
	if v < 42 {
		h.ConsoleSize = [2]uint{}
	}
	if v < 43 {
		h.Annotations = nil
	}
	if v < 44 {
		if cfg.Healthcheck != nil {
			cfg.Healthcheck.StartInterval = 0
		}
		if len(n.EndpointsConfig) > 1 {
			var names []string
			for name := range n.EndpointsConfig {
				names = append(names, name)
			}
			slices.Sort(names)
			return errdefs.Invalidf("Container cannot be created with multiple network endpoints: %s", strings.Join(names, ", "))
		}
	}
	if v < 48 {
		for _, ep := range n.EndpointsConfig {
			ep.GwPriority = 0
		}
	}
	if v < 56 {
		h.Umask = nil
	}
	if h.PidsLimit != nil && *h.PidsLimit <= 0 {
		h.PidsLimit = nil // unlimited
	}
	return nil
}

// migrate moves settings from the places where older clients put them.
func migrate(v version, body []byte, h *container.HostConfig, n *network.NetworkingConfig) ([]string, error) {
	var warnings []string
	if v >= 48 && h.VolumeDriver != "" && slices.ContainsFunc(h.Mounts, func(m mount.Mount) bool {
		o := m.VolumeOptions
		return m.Type == mount.TypeVolume && (o == nil || o.DriverConfig == nil || o.DriverConfig.Name == "")
	}) {
		warnings = append(warnings, "WARNING: the container-wide volume-driver configuration is ignored for volumes specified via 'mount'. Use '--mount type=volume,volume-driver=...' instead")
	}
	if w, err := migrateMAC(v, body, h, n); err != nil {
		return nil, err
	} else if w != "" {
		warnings = append(warnings, w)
	}
	if w, err := migrateSysctls(v, h, n); err != nil {
		return nil, err
	} else if w != "" {
		warnings = append(warnings, w)
	}
	var empty []string
	for port, bindings := range h.PortBindings {
		if len(bindings) == 0 {
			empty = append(empty, port.String())
			h.PortBindings[port] = []network.PortBinding{{}}
		}
	}
	if len(empty) > 0 && v >= 52 {
		slices.Sort(empty)
		warnings = append(warnings, "Following container port(s) have an empty list of port-bindings: "+strings.Join(empty, ", ")+". Such bindings will be discarded in a future version.")
	}
	return warnings, nil
}

// migrateMAC gives the container-wide MAC address of clients before API 1.52 to
// the endpoint of the container's main network.
func migrateMAC(v version, body []byte, h *container.HostConfig, n *network.NetworkingConfig) (warning string, err error) {
	if v >= 52 {
		return "", nil
	}
	var old legacyCreate
	// Most requests have neither field: a second decoding is rarely needed.
	if bytes.Contains(body, []byte(`"MacAddress"`)) || bytes.Contains(body, []byte(`"Capabilities"`)) {
		if err := decodeJSON(body, &old); err != nil {
			return "", err
		}
	}
	if v == 40 && len(old.HostConfig.Capabilities) > 0 {
		return "", errdefs.Invalidf("the HostConfig.Capabilities field is not supported by this daemon; use CapAdd and CapDrop to set capabilities")
	}
	if len(old.MacAddress) == 0 {
		if v < 44 {
			for _, ep := range n.EndpointsConfig {
				ep.MacAddress = nil
			}
		}
		return "", nil
	}
	named := h.NetworkMode.IsPrivate() && !h.NetworkMode.IsNone()
	switch {
	case v >= 44:
		warning = "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead."
		if !named {
			return warning, nil
		}
	case !named:
		return "", errdefs.Invalidf("conflicting options: mac-address and the network mode")
	}
	ep, err := mainEndpoint(v, h.NetworkMode, n)
	if err != nil {
		return "", err
	}
	if v >= 44 && len(ep.MacAddress) > 0 && !bytes.Equal(ep.MacAddress, old.MacAddress) {
		return "", errdefs.Invalidf("the container-wide MAC address must match the endpoint-specific MAC address for the main network, or be left empty")
	}
	ep.MacAddress = old.MacAddress
	return warning, nil
}

const endpointSysctls = "com.docker.network.endpoint.sysctls"

// migrateSysctls moves sysctls of eth0 to its endpoint's driver options, where
// they are applied once the interface exists.
func migrateSysctls(v version, h *container.HostConfig, n *network.NetworkingConfig) (warning string, err error) {
	if !h.NetworkMode.IsPrivate() {
		return "", nil
	}
	var moved, options []string
	for key, value := range h.Sysctls {
		part := strings.SplitN(key, ".", 5)
		if len(part) < 5 || part[0] != "net" || !strings.HasPrefix(part[3], "eth") {
			continue
		}
		if v >= 48 {
			return "", errdefs.Invalidf("interface specific sysctl setting %q must be supplied using driver option '%s'", key, endpointSysctls)
		}
		if part[3] != "eth0" {
			return "", errdefs.Invalidf("unable to determine network endpoint for sysctl %s, use driver option '%s' to set per-interface sysctls", key, endpointSysctls)
		}
		moved = append(moved, key)
		options = append(options, "net."+part[1]+"."+part[2]+".IFNAME."+part[4]+"="+value)
	}
	if len(moved) == 0 {
		return "", nil
	}
	ep, err := mainEndpoint(v, h.NetworkMode, n)
	if err != nil {
		return "", err
	}
	slices.Sort(moved)
	slices.Sort(options)
	for _, key := range moved {
		delete(h.Sysctls, key)
	}
	option := strings.Join(options, ",")
	warning = `Migrated sysctl "` + strings.Join(moved, ",") + `" to DriverOpts{"` + endpointSysctls + `":"` + option + `"}.`
	if old := ep.DriverOpts[endpointSysctls]; old != "" {
		option += "," + old // the later one wins
	}
	if ep.DriverOpts == nil {
		ep.DriverOpts = make(map[string]string)
	}
	ep.DriverOpts[endpointSysctls] = option
	return warning, nil
}

// mainEndpoint is the endpoint of the network that mode names, made if there
// are no endpoints at all.
func mainEndpoint(v version, mode container.NetworkMode, n *network.NetworkingConfig) (*network.EndpointSettings, error) {
	if ep, ok := n.EndpointsConfig[string(mode)]; ok {
		return ep, nil
	}
	if len(n.EndpointsConfig) == 0 {
		ep := &network.EndpointSettings{}
		n.EndpointsConfig = map[string]*network.EndpointSettings{string(mode): ep}
		return ep, nil
	}
	if v < 44 { // there is one
		for _, ep := range n.EndpointsConfig {
			return ep, nil
		}
	}
	return nil, errdefs.Invalidf("HostConfig.NetworkMode must match the identity of a network in NetworkSettings.Networks")
}
