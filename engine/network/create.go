package network

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/engine/network/ipam"
	"github.com/cleatlabs/cleat/engine/network/kernel"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

// Create makes a network.
func (m *Manager) Create(_ context.Context, r network.CreateRequest) (network.CreateResponse, error) {
	n, err := plan(r)
	if err != nil {
		return network.CreateResponse{}, err
	}
	m.changing.Lock()
	defer m.changing.Unlock()
	if other := m.byName(n.Name); other != nil {
		return network.CreateResponse{}, errdefs.Conflictf("network with name %s already exists", n.Name)
	}
	if err := m.make(n); err != nil {
		return network.CreateResponse{}, err
	}
	m.publish(events.ActionCreate, n, nil)
	return network.CreateResponse{ID: n.ID}, nil
}

func (m *Manager) publish(action events.Action, n *bridgeNetwork, more map[string]string) {
	attrs := map[string]string{"name": n.Name, "type": n.Driver}
	maps.Copy(attrs, more)
	m.events.Publish(events.NetworkEventType, action, n.ID, attrs)
}

// plan checks a request and turns it into a network that has no addresses yet
// but those asked for. It is pure but for the ID.
func plan(r network.CreateRequest) (*bridgeNetwork, error) {
	if !regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`).MatchString(r.Name) {
		return nil, errdefs.Invalidf("invalid network name %q: it must begin with a letter or digit, and hold only letters, digits, '_', '.' and '-'", r.Name)
	}
	n := &bridgeNetwork{Network: network.Network{
		Name: r.Name, ID: newID(), Created: time.Now().UTC(), Scope: "local", Driver: r.Driver,
		EnableIPv4: r.EnableIPv4 == nil || *r.EnableIPv4, EnableIPv6: r.EnableIPv6 != nil && *r.EnableIPv6,
		Internal: r.Internal, Attachable: r.Attachable, Options: r.Options, Labels: r.Labels,
		IPAM: network.IPAM{Driver: "default"},
	}}
	if n.Options == nil {
		n.Options = map[string]string{}
	}
	if n.Labels == nil {
		n.Labels = map[string]string{}
	}
	switch {
	case n.predefined() || r.Name == network.NetworkDefault || r.Name == "container":
		return nil, errdefs.Forbiddenf("operation is not permitted on predefined %s network", r.Name)
	case r.ConfigOnly || r.ConfigFrom != nil || r.Ingress:
		return nil, errdefs.NotImplementedf("config-only and ingress networks need a swarm")
	case r.Scope != "" && r.Scope != "local":
		return nil, errdefs.Invalidf("scope %q needs a swarm; local is the only one here", r.Scope)
	}
	switch n.Driver {
	case "", network.NetworkDefault:
		n.Driver = driverBridge
	case driverBridge, driverMacvlan:
	case driverHost, driverNull:
		return nil, errdefs.Forbiddenf("only one instance of %q network is allowed", n.Driver)
	default:
		return nil, errdefs.NotFoundf("could not find plugin %s in v1 plugin registry: plugin not found", n.Driver)
	}
	if err := checkOptions(n); err != nil {
		return nil, err
	}
	return n, planIPAM(n, r.IPAM)
}

func checkOptions(n *bridgeNetwork) error {
	for _, o := range []string{optICC, optMasquerade} {
		if v, ok := n.Options[o]; ok {
			if _, err := strconv.ParseBool(v); err != nil {
				return errdefs.Invalidf("invalid value %q of option %s: it is neither true nor false", v, o)
			}
		}
	}
	if v, ok := n.Options[optMTU]; ok {
		if mtu, err := strconv.Atoi(v); err != nil || mtu < 68 || mtu > 65535 {
			return errdefs.Invalidf("invalid value %q of option %s: it is no number between 68 and 65535", v, optMTU)
		}
	}
	if v, ok := n.Options[optBinding]; ok {
		if _, err := netip.ParseAddr(v); err != nil {
			return errdefs.Invalidf("invalid value %q of option %s: it is no address", v, optBinding)
		}
	}
	if v := n.Options[optBridgeName]; len(v) > maxIfname {
		return errdefs.Invalidf("bridge name %q is longer than %d characters", v, maxIfname)
	}
	if n.Driver == driverMacvlan {
		if _, ok := macvlanMode(n.Options[optMode]); !ok {
			return errdefs.Invalidf("requested macvlan mode '%s' is not valid, 'bridge' mode is the macvlan driver default", n.Options[optMode])
		}
	}
	return nil
}

func macvlanMode(s string) (uint32, bool) {
	m, ok := map[string]uint32{
		"": kernel.MacvlanBridge, "bridge": kernel.MacvlanBridge, "private": kernel.MacvlanPrivate,
		"vepa": kernel.MacvlanVEPA, "passthru": kernel.MacvlanPassthru,
	}[s]
	return m, ok
}

func planIPAM(n *bridgeNetwork, r *network.IPAM) error {
	if r == nil {
		return nil
	}
	if r.Driver != "" && r.Driver != "default" {
		return errdefs.NotImplementedf("IPAM driver %q is not there; leave it out", r.Driver)
	}
	n.IPAM.Options = r.Options
	var seen [2]bool
	for _, c := range r.Config {
		if !c.Subnet.IsValid() {
			if c.Gateway.IsValid() || c.IPRange.IsValid() {
				return errdefs.Invalidf("every ip-range or gateway must have a corresponding subnet")
			}
			continue
		}
		six := c.Subnet.Addr().Is6()
		i := 0
		if six {
			i, n.EnableIPv6 = 1, true
		}
		if seen[i] {
			return errdefs.Invalidf("one subnet for each of IPv4 and IPv6 is supported; %s is one more", c.Subnet)
		}
		seen[i] = true
		c.Subnet = c.Subnet.Masked()
		if c.Gateway.IsValid() && !c.Subnet.Contains(c.Gateway) {
			return errdefs.Invalidf("no matching subnet for gateway %s", c.Gateway)
		}
		if _, err := ipam.NewPool(c.Subnet, c.IPRange); err != nil {
			return errdefs.As(errdefs.ErrInvalidArgument, err)
		}
		n.UserSubnet = true
		n.IPAM.Config = append(n.IPAM.Config, c)
	}
	if !n.EnableIPv4 && !n.EnableIPv6 {
		return errdefs.Invalidf("IPv4 or IPv6 must be enabled")
	}
	return nil
}

// make gives a planned network addresses and a link, and records it. The
// caller holds changing.
func (m *Manager) make(n *bridgeNetwork) error {
	used, err := m.prefixesInUse()
	if err != nil {
		return err
	}
	if err := m.addresses(n, used); err != nil {
		return err
	}
	if err := n.openPools(); err != nil {
		return errdefs.As(errdefs.ErrInvalidArgument, err)
	}
	switch n.Driver {
	case driverBridge:
		n.Made = true
		if n.Link == "" {
			n.Link = n.Options[optBridgeName]
		}
		if n.Link == "" {
			n.Link = "br-" + n.ID[:12]
		}
		if other := m.byLink(n.Link); other != nil {
			return errdefs.Conflictf("network %s uses bridge %s already", other.Name, n.Link)
		}
		if _, err := m.conn.LinkByName(n.Link); err == nil {
			n.Made = false // the user's: used, never removed
		}
	case driverMacvlan:
		n.Link = n.Options[optParent]
	}
	// Recorded first: after a crash, the next start finishes the work.
	if err := m.save(n); err != nil {
		return err
	}
	if err := m.realize(n); err != nil {
		return errors.Join(err, m.undo(n))
	}
	m.mu.Lock()
	m.networks[n.ID] = n
	m.mu.Unlock()
	return nil
}

func (m *Manager) realize(n *bridgeNetwork) error {
	switch n.Driver {
	case driverBridge:
		if err := m.ensureBridge(n); err != nil {
			return err
		}
		if m.watcher == nil {
			return nil // at the start the table is written at once
		}
		return m.table.AddBridge(n.rules())
	case driverMacvlan:
		if n.Link == "" {
			return errdefs.Invalidf("a macvlan network needs a parent interface: -o parent=eth0")
		}
		return m.ensureParent(n)
	}
	return nil
}

func (m *Manager) undo(n *bridgeNetwork) error {
	var errs []error
	if n.isBridge() {
		errs = append(errs, m.table.RemoveBridge(n.Link))
	}
	if n.Made && !m.linkShared(n) {
		errs = append(errs, deleteLink(m.conn, n.Link))
	}
	return errors.Join(append(errs, m.erase(n.ID))...)
}

// ensureParent finds the parent of a macvlan. A name like eth0.50 that does not
// exist is made: the VLAN 50 of eth0.
func (m *Manager) ensureParent(n *bridgeNetwork) error {
	_, err := m.conn.LinkByName(n.Link)
	if !errors.Is(err, kernel.ErrNoLink) {
		return err
	}
	base, id, ok := vlanOf(n.Link)
	if !ok {
		return errdefs.Invalidf("parent interface %s: %w", n.Link, err)
	}
	l, err := m.conn.LinkByName(base)
	if err != nil {
		return errdefs.Invalidf("parent interface %s: %w", n.Link, err)
	}
	if err := m.conn.Do(kernel.NewVLAN(n.Link, l.Index, id)); err != nil {
		return fmt.Errorf("make interface %s: %w", n.Link, err)
	}
	n.Made = true
	return m.save(n)
}

// linkShared says whether another network has the same parent.
func (m *Manager) linkShared(n *bridgeNetwork) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, o := range m.networks {
		if o.ID != n.ID && o.Link == n.Link {
			o.Made = o.Made || n.Made // the last one removes it; it is remade after a restart
			return true
		}
	}
	return false
}

// vlanOf splits the name of a VLAN's interface. It is pure.
func vlanOf(link string) (base string, id uint16, ok bool) {
	i := strings.LastIndexByte(link, '.')
	if i <= 0 || len(link) > maxIfname {
		return "", 0, false
	}
	v, err := strconv.ParseUint(link[i+1:], 10, 12)
	return link[:i], uint16(v), err == nil && v > 0 && v < 4095
}

// addresses completes the subnets and gateways of a network.
func (m *Manager) addresses(n *bridgeNetwork, used []netip.Prefix) error {
	has := func(v6 bool) bool {
		return slices.ContainsFunc(n.IPAM.Config, func(c network.IPAMConfig) bool { return c.Subnet.Addr().Is6() == v6 })
	}
	if n.Driver != driverBridge && n.Driver != driverMacvlan {
		return nil
	}
	for _, c := range n.IPAM.Config {
		// A macvlan shares its parent's network on purpose.
		if n.isBridge() && ipam.Overlaps(c.Subnet, used) {
			return errdefs.Forbiddenf("invalid pool request: Pool overlaps with other one on this address space")
		}
	}
	for _, v6 := range []bool{false, true} {
		if has(v6) || v6 && !n.EnableIPv6 || !v6 && !n.EnableIPv4 {
			continue
		}
		subnet, err := ipam.Choose(m.cfg.supplies(v6), used)
		if err != nil {
			return errdefs.WithHint(errdefs.As(errdefs.ErrInvalidArgument, err),
				"remove networks that nobody uses with `network prune`, or name a --subnet")
		}
		n.IPAM.Config = append(n.IPAM.Config, network.IPAMConfig{Subnet: subnet})
	}
	for i := range n.IPAM.Config {
		c := &n.IPAM.Config[i]
		if !c.Gateway.IsValid() {
			c.Gateway = ipam.First(c.Subnet)
		}
	}
	return nil
}

// prefixesInUse are our networks' and the host's.
func (m *Manager) prefixesInUse() ([]netip.Prefix, error) {
	var used []netip.Prefix
	routes, err := m.conn.Routes()
	if err != nil {
		return nil, err
	}
	for _, r := range routes {
		used = append(used, r.Dst)
	}
	addrs, err := m.conn.Addresses()
	if err != nil {
		return nil, err
	}
	for _, a := range addrs {
		used = append(used, a.Prefix.Masked())
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, n := range m.networks {
		for _, c := range n.IPAM.Config {
			used = append(used, c.Subnet)
		}
	}
	return used, nil
}

// ensureBridge makes the bridge what it should be; it is safe to repeat.
func (m *Manager) ensureBridge(n *bridgeNetwork) error {
	l, err := m.conn.LinkByName(n.Link)
	if errors.Is(err, kernel.ErrNoLink) {
		if err := m.conn.Do(kernel.NewBridge(n.Link, macOf(n.ID), n.mtu(m.cfg.MTU))); err != nil {
			return fmt.Errorf("make bridge %s: %w", n.Link, err)
		}
		l, err = m.conn.LinkByName(n.Link)
	}
	if err != nil {
		return err
	}
	if l.Kind != "bridge" {
		return errdefs.Conflictf("interface %s is no bridge", n.Link)
	}
	m.mu.Lock()
	n.index = l.Index
	m.mu.Unlock()
	var reqs []kernel.Request
	for _, g := range n.gateways() {
		if g.Addr().Is6() {
			m.sysctl("ipv6/conf/"+n.Link+"/disable_ipv6", "0")
		}
		reqs = append(reqs, kernel.AddAddress(l.Index, g))
	}
	if err := m.conn.Do(append(reqs, kernel.LinkUp(l.Index))...); err != nil {
		return fmt.Errorf("set up bridge %s: %w", n.Link, err)
	}
	// Ports published on 127.0.0.1 are routed from the loopback to the bridge.
	m.sysctl("ipv4/conf/"+n.Link+"/route_localnet", "1")
	return nil
}

// sysctl sets what the machine may refuse; the consequence is in the log.
func (m *Manager) sysctl(name, value string) {
	if err := kernel.WriteSysctl(name, value); err != nil {
		m.log.Warn("a network setting cannot be made", "sysctl", name, "error", err)
	}
}

// macOf is a stable, locally administered hardware address.
func macOf(id string) net.HardwareAddr {
	sum := sha256.Sum256([]byte(id))
	return net.HardwareAddr{0x02, 0x42, sum[0], sum[1], sum[2], sum[3]}
}

// predefine makes the networks that are always there.
func (m *Manager) predefine() error {
	for _, p := range []struct{ name, driver string }{
		{network.NetworkBridge, driverBridge}, {network.NetworkHost, driverHost}, {network.NetworkNone, driverNull},
	} {
		if m.byName(p.name) != nil {
			continue
		}
		n := &bridgeNetwork{Network: network.Network{
			Name: p.name, ID: newID(), Created: time.Now().UTC(), Scope: "local", Driver: p.driver, EnableIPv4: true,
			IPAM: network.IPAM{Driver: "default"}, Options: map[string]string{}, Labels: map[string]string{},
		}}
		if p.driver == driverBridge {
			if err := m.planDefault(n); err != nil {
				return err
			}
		}
		if err := m.make(n); err != nil {
			return fmt.Errorf("network %s: %w", p.name, err)
		}
	}
	return nil
}

// planDefault gives the default network the subnet that users of Docker know,
// if it is free.
func (m *Manager) planDefault(n *bridgeNetwork) error {
	n.Link = m.cfg.Bridge
	n.Options = map[string]string{
		optBridgeName: m.cfg.Bridge, optICC: "true", optMasquerade: "true",
		"com.docker.network.bridge.default_bridge": "true", optBinding: m.cfg.BindAddress.String(),
	}
	subnet := m.cfg.Subnet
	if !subnet.IsValid() {
		used, err := m.prefixesInUse()
		if err != nil {
			return err
		}
		if subnet = netip.MustParsePrefix("172.17.0.0/16"); ipam.Overlaps(subnet, used) {
			return nil
		}
	}
	n.IPAM.Config = []network.IPAMConfig{{Subnet: subnet}}
	return nil
}
