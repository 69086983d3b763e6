package network

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/engine/network/ipam"
	"github.com/cleatlabs/cleat/engine/network/rules"
	"github.com/cleatlabs/cleat/internal/atomicfile"
)

// The drivers.
const (
	driverBridge  = "bridge"
	driverMacvlan = "macvlan"
	driverHost    = "host"
	driverNull    = "null"
)

// Docker's names of options.
const (
	optBridgeName = "com.docker.network.bridge.name"
	optICC        = "com.docker.network.bridge.enable_icc"
	optMasquerade = "com.docker.network.bridge.enable_ip_masquerade"
	optBinding    = "com.docker.network.bridge.host_binding_ipv4"
	optMTU        = "com.docker.network.driver.mtu"
	optParent     = "parent"
	optMode       = "macvlan_mode"

	// Of an endpoint.
	optIfname  = "com.docker.network.endpoint.ifname"
	optSysctls = "com.docker.network.endpoint.sysctls"
)

// bridgeNetwork is a network as recorded in root/ID.json, with its addresses
// in use.
type bridgeNetwork struct {
	network.Network
	// Link is the bridge, or the parent of a macvlan.
	Link string
	// Made says that we made the link, so that we remove it.
	Made bool
	// UserSubnet says that the subnet was asked for: then static addresses are allowed.
	UserSubnet bool

	index int // of Link
	pools []*ipam.Pool
}

func (n *bridgeNetwork) isBridge() bool { return n.Driver == driverBridge }

func (n *bridgeNetwork) predefined() bool {
	return n.Name == network.NetworkBridge || n.Name == network.NetworkHost || n.Name == network.NetworkNone
}

func (n *bridgeNetwork) option(name string, def bool) bool {
	v, err := strconv.ParseBool(n.Options[name])
	if err != nil {
		return def
	}
	return v
}

func (n *bridgeNetwork) mtu(def int) int {
	if v, err := strconv.Atoi(n.Options[optMTU]); err == nil {
		return v
	}
	return def
}

func (n *bridgeNetwork) rules() rules.Bridge {
	return rules.Bridge{Name: n.Link, Internal: n.Internal, Quiet: !n.option(optICC, true), Masquerade: !n.Internal && n.option(optMasquerade, true)}
}

// gateways are the addresses of the bridge, with the length of the subnet.
func (n *bridgeNetwork) gateways() []netip.Prefix {
	var all []netip.Prefix
	for _, c := range n.IPAM.Config {
		if c.Gateway.IsValid() {
			all = append(all, netip.PrefixFrom(c.Gateway, c.Subnet.Bits()))
		}
	}
	return all
}

func (n *bridgeNetwork) gateway(v6 bool) netip.Addr {
	for _, g := range n.gateways() {
		if g.Addr().Is6() == v6 {
			return g.Addr()
		}
	}
	return netip.Addr{}
}

// openPools prepares the allocation of addresses; gateways and auxiliary
// addresses are taken.
func (n *bridgeNetwork) openPools() error {
	n.pools = nil
	for _, c := range n.IPAM.Config {
		p, err := ipam.NewPool(c.Subnet, c.IPRange)
		if err != nil {
			return err
		}
		taken := []netip.Addr{c.Gateway}
		for _, a := range c.AuxAddress {
			taken = append(taken, a)
		}
		for _, a := range taken {
			if a.IsValid() {
				if err := p.Take(a); err != nil {
					return fmt.Errorf("%s: %w", a, err)
				}
			}
		}
		n.pools = append(n.pools, p)
	}
	return nil
}

func (n *bridgeNetwork) pool(v6 bool) *ipam.Pool {
	for _, p := range n.pools {
		if p.Subnet().Addr().Is6() == v6 {
			return p
		}
	}
	return nil
}

func newID() string {
	raw := make([]byte, 32)
	// crypto/rand.Read never fails.
	_, _ = rand.Read(raw)
	return hex.EncodeToString(raw)
}

func (m *Manager) file(id string) string { return filepath.Join(m.cfg.Root, id+".json") }

func (m *Manager) save(n *bridgeNetwork) error { return atomicfile.WriteJSON(m.file(n.ID), n, 0o600) }

// load reads the recorded networks.
func (m *Manager) load() error {
	if err := atomicfile.Clean(m.cfg.Root); err != nil {
		return err
	}
	entries, err := os.ReadDir(m.cfg.Root)
	if err != nil {
		return err
	}
	m.networks = map[string]*bridgeNetwork{}
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok {
			continue
		}
		n := new(bridgeNetwork)
		if err := atomicfile.ReadJSON(m.file(id), n); err != nil {
			return fmt.Errorf("network %s: %w", id, err)
		}
		if err := n.openPools(); err != nil {
			return fmt.Errorf("network %s: %w", n.Name, err)
		}
		m.networks[id] = n
	}
	return nil
}

func (m *Manager) erase(id string) error { return atomicfile.Remove(m.file(id)) }
