package runspec

import (
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/docker/cli/opts"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// endpoints joins --network (in both syntaxes) with the older flags --ip,
// --network-alias, --link and so on, which concern the first network.
func (f *Flags) endpoints() (map[string]*network.EndpointSettings, error) {
	if f.mac != "" {
		if _, err := net.ParseMAC(strings.TrimSpace(f.mac)); err != nil {
			return nil, errorf("%s is not a valid mac address", f.mac)
		}
	}
	given := f.network.Value()
	if len(given) == 0 {
		given = []opts.NetworkAttachmentOpts{{Target: "default"}}
	}
	out := make(map[string]*network.EndpointSettings, len(given))
	userDefined := 0
	for i, n := range given {
		if container.NetworkMode(n.Target).IsUserDefined() {
			userDefined++
		}
		if i == 0 {
			if err := f.olderFlags(&n); err != nil {
				return nil, err
			}
		}
		e, err := endpoint(n)
		if err != nil {
			return nil, err
		}
		if _, ok := out[n.Target]; ok {
			return nil, errorf("network %q is specified multiple times", n.Target)
		}
		// One --network without options needs no endpoint: NetworkMode says it all.
		if len(f.network.Value()) == 1 && reflect.ValueOf(*e).IsZero() {
			continue
		}
		out[n.Target] = e
	}
	if userDefined > 0 && userDefined < len(given) {
		return nil, errorf("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
	}
	return out, nil
}

func (f *Flags) olderFlags(n *opts.NetworkAttachmentOpts) error {
	switch {
	case len(n.Aliases) > 0 && f.aliases.Len() > 0:
		return errorf("conflicting options: cannot specify both --network-alias and per-network alias")
	case len(n.Links) > 0 && f.links.Len() > 0:
		return errorf("conflicting options: cannot specify both --link and per-network links")
	case n.IPv4Address.IsValid() && f.ip4 != nil:
		return errorf("conflicting options: cannot specify both --ip and per-network IPv4 address")
	case n.IPv6Address.IsValid() && f.ip6 != nil:
		return errorf("conflicting options: cannot specify both --ip6 and per-network IPv6 address")
	case n.MacAddress != "" && f.mac != "":
		return errorf("conflicting options: cannot specify both --mac-address and per-network MAC address")
	case len(n.LinkLocalIPs) > 0 && f.linkLocalIPs.Len() > 0:
		return errorf("conflicting options: cannot specify both --link-local-ip and per-network link-local IP addresses")
	}
	if f.aliases.Len() > 0 {
		n.Aliases = slices.Clone(f.aliases.GetSlice())
	}
	// On the default bridge a link is the container's, not the endpoint's.
	if f.links.Len() > 0 && container.NetworkMode(n.Target).IsUserDefined() {
		n.Links = slices.Clone(f.links.GetSlice())
	}
	if a, ok := netip.AddrFromSlice(f.ip4.To4()); ok {
		n.IPv4Address = a
	}
	if a, ok := netip.AddrFromSlice(f.ip6.To16()); ok {
		n.IPv6Address = a
	}
	if f.mac != "" {
		n.MacAddress = f.mac
	}
	if f.linkLocalIPs.Len() > 0 {
		n.LinkLocalIPs = addresses(f.linkLocalIPs.GetSlice())
	}
	return nil
}

func endpoint(n opts.NetworkAttachmentOpts) (*network.EndpointSettings, error) {
	if strings.TrimSpace(n.Target) == "" {
		return nil, errorf("no name set for network")
	}
	if !container.NetworkMode(n.Target).IsUserDefined() {
		if len(n.Aliases) > 0 {
			return nil, errorf("network-scoped aliases are only supported for user-defined networks")
		}
		if len(n.Links) > 0 {
			return nil, errorf("links are only supported for user-defined networks")
		}
	}
	e := &network.EndpointSettings{GwPriority: n.GwPriority}
	if len(n.Aliases) > 0 {
		e.Aliases = n.Aliases
	}
	if len(n.Links) > 0 {
		e.Links = n.Links
	}
	if len(n.DriverOpts) > 0 {
		e.DriverOpts = n.DriverOpts
	}
	if n.IPv4Address.IsValid() || n.IPv6Address.IsValid() || len(n.LinkLocalIPs) > 0 {
		e.IPAMConfig = &network.EndpointIPAMConfig{IPv4Address: n.IPv4Address, IPv6Address: n.IPv6Address, LinkLocalIPs: n.LinkLocalIPs}
	}
	if n.MacAddress != "" {
		m, err := net.ParseMAC(strings.TrimSpace(n.MacAddress))
		if err != nil {
			return nil, errorf("%s is not a valid mac address", n.MacAddress)
		}
		e.MacAddress = network.HardwareAddr(m)
	}
	return e, nil
}
