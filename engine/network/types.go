package network

import (
	"net/netip"

	"github.com/moby/moby/api/types/network"
)

// SandboxRequest describes the network stack of one container or pod. A
// sandbox is a network namespace; Open makes it, Setup fills it.
type SandboxRequest struct {
	// ID is the sandbox's; the engine uses the container's.
	ID string
	// Name is the container's, without "/": its first DNS name.
	Name string
	// Hostname and Domainname are the first names in the hosts file.
	Hostname, Domainname string
	// Adopt is a namespace that exists already, such as /proc/PID/ns/net for
	// a container in a user namespace; "" makes a new one.
	Adopt string
	// Endpoints are the networks to join, by network name or ID. Empty: only
	// a loopback (network mode "none").
	Endpoints map[string]*network.EndpointSettings
	// Ports are what to publish; an empty HostPort takes a free one, "8000-8010"
	// takes a free one of the range. PublishAll adds Exposed.
	Ports      network.PortMap
	Exposed    network.PortSet
	PublishAll bool
	// DNS, Search, Options and ExtraHosts are the user's; nil DNS means the
	// host's resolvers. ExtraHosts are "name:address", address may be "host-gateway".
	DNS                         []netip.Addr
	Search, Options, ExtraHosts []string
	// Sysctls are those of the net. subtree, written before Setup returns.
	Sysctls map[string]string
}

// Sandbox is what Setup, Connect and Disconnect report.
type Sandbox struct {
	ID string
	// Path is the bind-mounted namespace, for the OCI spec.
	Path string
	// Endpoints hold the operational data by network name.
	Endpoints map[string]*network.EndpointSettings
	// Ports are the published ones with their actual host ports.
	Ports network.PortMap
	// Hosts and ResolvConf are the contents of /etc/hosts and /etc/resolv.conf.
	Hosts, ResolvConf []byte
}
