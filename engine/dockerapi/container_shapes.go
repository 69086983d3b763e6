package dockerapi

import (
	"net/netip"
	"slices"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/storage"
)

// summaryFor takes from a list entry what clients of v do not know.
func summaryFor(v version, ctr *container.Summary) {
	if v < 46 {
		ctr.HostConfig.Annotations = nil
	}
	if v < 48 {
		ctr.ImageManifestDescriptor = nil
	}
	if v < 52 {
		ctr.Health = nil
	}
}

// inspect151 is the shape until API 1.51.
type inspect151 struct {
	*container.InspectResponse
	GraphDriver     *storage.DriverData
	Storage         *storage.Storage `json:",omitempty"`
	Config          *config151
	NetworkSettings *networkSettings151
}

// config151 has an OnBuild that is not left out when empty.
type config151 struct {
	*container.Config
	OnBuild []string
}

// networkSettings151 has the addresses on the default bridge at its top.
type networkSettings151 struct {
	Bridge string
	*container.NetworkSettings
	HairpinMode            bool
	LinkLocalIPv6Address   string
	LinkLocalIPv6PrefixLen int
	SecondaryIPAddresses   []string
	SecondaryIPv6Addresses []string
	EndpointID             string
	Gateway                netip.Addr
	GlobalIPv6Address      netip.Addr
	GlobalIPv6PrefixLen    int
	IPAddress              netip.Addr
	IPPrefixLen            int
	IPv6Gateway            netip.Addr
	MacAddress             network.HardwareAddr
}

// inspectFor is ctr in the shape of v; ctr may be changed.
func inspectFor(v version, ctr *container.InspectResponse) any {
	if ctr.Config == nil {
		ctr.Config = &container.Config{}
	}
	if ctr.NetworkSettings == nil {
		ctr.NetworkSettings = &container.NetworkSettings{}
	}
	if v < 45 && len(ctr.ID) >= 12 {
		for name, ep := range ctr.NetworkSettings.Networks {
			if ep == nil || !isUserDefined(name) {
				continue
			}
			aliases := slices.Clone(ep.Aliases)
			for _, alias := range []string{ctr.ID[:12], ctr.Config.Hostname} {
				if alias != "" && !slices.Contains(aliases, alias) {
					aliases = append(aliases, alias)
				}
			}
			old := *ep
			old.Aliases = aliases
			ctr.NetworkSettings.Networks[name] = &old
		}
	}
	if v < 48 {
		ctr.ImageManifestDescriptor = nil
	}
	if v >= 52 {
		return ctr
	}
	old := &inspect151{
		InspectResponse: ctr,
		GraphDriver:     ctr.GraphDriver,
		Config:          &config151{Config: ctr.Config, OnBuild: ctr.Config.OnBuild},
		NetworkSettings: &networkSettings151{NetworkSettings: ctr.NetworkSettings},
	}
	if old.GraphDriver == nil {
		old.GraphDriver = &storage.DriverData{Name: ctr.Driver}
	}
	if ep := ctr.NetworkSettings.Networks[network.NetworkBridge]; ep != nil {
		n := old.NetworkSettings
		n.EndpointID, n.MacAddress = ep.EndpointID, ep.MacAddress
		n.IPAddress, n.IPPrefixLen, n.Gateway = ep.IPAddress, ep.IPPrefixLen, ep.Gateway
		n.GlobalIPv6Address, n.GlobalIPv6PrefixLen, n.IPv6Gateway = ep.GlobalIPv6Address, ep.GlobalIPv6PrefixLen, ep.IPv6Gateway
	}
	return old
}

func isUserDefined(name string) bool {
	switch name {
	case network.NetworkBridge, network.NetworkHost, network.NetworkNone, network.NetworkDefault:
		return false
	}
	return true
}
