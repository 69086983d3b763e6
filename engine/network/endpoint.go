package network

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/engine/network/ipam"
	"github.com/cleatlabs/cleat/engine/network/kernel"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

// endpoint is a sandbox's place in a network.
type endpoint struct {
	ID       string
	Network  string // ID
	Name     string // of the network
	HostLink string // our end; "" for a macvlan
	Link     string // in the sandbox
	MAC      network.HardwareAddr
	V4, V6   netip.Prefix
	Settings network.EndpointSettings // as asked for
}

func (e *endpoint) addr(v6 bool) netip.Addr {
	if v6 {
		return e.V6.Addr()
	}
	return e.V4.Addr()
}

// join adds a network to the sandbox: addresses, link, routes of the subnet.
func (m *Manager) join(s *sandbox, ref string, want *network.EndpointSettings) error {
	m.mu.Lock()
	n, e, err := m.reserve(s, ref, want)
	m.mu.Unlock()
	if err != nil || e == nil {
		return err
	}
	if err := m.inside(s, func(f *kernel.Fresh) error { return m.plug(n, e, f) }); err != nil {
		m.mu.Lock()
		s.state.Endpoints = slices.DeleteFunc(s.state.Endpoints, func(x *endpoint) bool { return x == e })
		m.release(e)
		m.mu.Unlock()
		return fmt.Errorf("join network %s: %w", n.Name, err)
	}
	m.announce(s, e, events.ActionConnect)
	return nil
}

func (m *Manager) announce(s *sandbox, e *endpoint, action events.Action) {
	m.mu.RLock()
	n := m.networks[e.Network]
	m.mu.RUnlock()
	if n != nil {
		m.publish(action, n, map[string]string{"container": s.id})
	}
}

// reserve finds the network and takes addresses. mu is held. The networks none
// and host have no endpoints.
func (m *Manager) reserve(s *sandbox, ref string, want *network.EndpointSettings) (*bridgeNetwork, *endpoint, error) {
	n, err := m.find(ref)
	if err != nil {
		return nil, nil, err
	}
	if n.Driver == driverNull {
		return n, nil, nil
	}
	if n.Driver == driverHost {
		return nil, nil, errdefs.Invalidf("container cannot be connected to network %s", n.Name)
	}
	if s.state.endpoint(n.ID) != nil {
		return nil, nil, errdefs.Forbiddenf("endpoint with name %s already exists in network %s", s.state.Request.Name, n.Name)
	}
	if want == nil {
		want = &network.EndpointSettings{}
	}
	if err := checkEndpoint(n, want); err != nil {
		return nil, nil, err
	}
	e := &endpoint{ID: newID(), Network: n.ID, Name: n.Name, Settings: *want.Copy(), MAC: want.MacAddress}
	if err := m.allocate(n, e); err != nil {
		m.release(e)
		return nil, nil, err
	}
	if e.MAC == nil {
		e.MAC = randomMAC()
	}
	e.Link = freeName(s.state.Endpoints)
	if n.isBridge() {
		e.HostLink = "v" + e.ID[:maxIfname-2]
	}
	s.state.Endpoints = append(s.state.Endpoints, e)
	return n, e, nil
}

func (m *Manager) allocate(n *bridgeNetwork, e *endpoint) error {
	for _, p := range n.pools {
		six := p.Subnet().Addr().Is6()
		var want netip.Addr
		if c := e.Settings.IPAMConfig; c != nil {
			if want = c.IPv4Address; six {
				want = c.IPv6Address
			}
		}
		var err error
		if want.IsValid() {
			err = p.Take(want)
		} else {
			want, err = p.Next()
		}
		if err != nil {
			var class error = errdefs.ErrPermissionDenied
			if errors.Is(err, ipam.ErrOutside) {
				class = errdefs.ErrInvalidArgument
			}
			return errdefs.As(class, err)
		}
		prefix := netip.PrefixFrom(want, p.Subnet().Bits())
		if six {
			e.V6 = prefix
		} else {
			e.V4 = prefix
		}
	}
	return nil
}

// release gives the addresses back. mu is held.
func (m *Manager) release(e *endpoint) {
	n := m.networks[e.Network]
	if n == nil {
		return
	}
	for _, a := range []netip.Prefix{e.V4, e.V6} {
		if p := n.pool(a.Addr().Is6()); a.IsValid() && p != nil {
			p.Release(a.Addr())
		}
	}
}

// freeName is the first ethN that no endpoint has.
func freeName(all []*endpoint) string {
	for i := 0; ; i++ {
		name := fmt.Sprintf("eth%d", i)
		if !slices.ContainsFunc(all, func(e *endpoint) bool { return e.Link == name }) {
			return name
		}
	}
}

// randomMAC is a locally administered address that no other container has had,
// so that neighbours' caches do not lead astray.
func randomMAC() network.HardwareAddr {
	mac := make(net.HardwareAddr, 6)
	// crypto/rand.Read never fails.
	_, _ = rand.Read(mac)
	mac[0] = mac[0]&^1 | 2
	return network.HardwareAddr(mac)
}

// plug makes the endpoint's link and gives it its addresses.
func (m *Manager) plug(n *bridgeNetwork, e *endpoint, f *kernel.Fresh) error {
	mac, mtu := net.HardwareAddr(e.MAC), n.mtu(m.cfg.MTU)
	if n.Driver == driverMacvlan {
		parent, err := m.conn.LinkByName(n.Link)
		if err != nil {
			return err
		}
		mode, _ := macvlanMode(n.Options[optMode]) // checked at create
		err = m.conn.Do(kernel.Macvlan{Name: e.Link, Parent: parent.Index, Mode: mode, MTU: mtu, MAC: mac, NS: f.FD()}.Request())
		if err != nil {
			return fmt.Errorf("make a macvlan on %s: %w", n.Link, err)
		}
	} else {
		reqs := []kernel.Request{kernel.Veth{Host: e.HostLink, Peer: e.Link, Master: n.index, MTU: mtu, MAC: mac, NS: f.FD()}.Request()}
		if !n.option(optICC, true) {
			reqs = append(reqs, kernel.Isolate(e.HostLink))
		}
		if err := m.conn.Do(reqs...); err != nil {
			return fmt.Errorf("make a veth pair: %w", err)
		}
	}
	l, err := f.Conn.LinkByName(e.Link)
	if err != nil {
		return err
	}
	var reqs []kernel.Request
	if !e.V6.IsValid() {
		reqs = append(reqs, kernel.NoLinkLocal(e.Link))
	}
	for _, a := range []netip.Prefix{e.V4, e.V6} {
		if a.IsValid() {
			reqs = append(reqs, kernel.AddAddress(l.Index, a))
		}
	}
	if err := f.Conn.Do(append(reqs, kernel.LinkUp(l.Index))...); err != nil {
		return fmt.Errorf("set up %s: %w", e.Link, err)
	}
	return nil
}

// leave removes the endpoint's link.
func (m *Manager) leave(s *sandbox, e *endpoint) error {
	if e.HostLink != "" {
		return deleteLink(m.conn, e.HostLink)
	}
	return m.inside(s, func(f *kernel.Fresh) error { return deleteLink(f.Conn, e.Link) })
}

type gatewayRoute struct {
	link string
	dst  netip.Prefix
	via  netip.Addr
}

// gatewayRoutes are the default routes that the sandbox should have, one per
// family: by the first endpoint, in order of priority, whose network leads
// outside. mu is held.
func (m *Manager) gatewayRoutes(s *sandbox) []gatewayRoute {
	ordered := slices.Clone(s.state.Endpoints)
	slices.SortStableFunc(ordered, func(a, b *endpoint) int { return b.Settings.GwPriority - a.Settings.GwPriority })
	var routes []gatewayRoute
	for _, v6 := range []bool{false, true} {
		dst := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if v6 {
			dst = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		for _, e := range ordered {
			n := m.networks[e.Network]
			if n == nil || n.Internal || !e.addr(v6).IsValid() || !n.gateway(v6).IsValid() {
				continue
			}
			routes = append(routes, gatewayRoute{e.Link, dst, n.gateway(v6)})
			break
		}
	}
	return routes
}

// settings are the endpoint's operational data. mu is held.
func (m *Manager) settings(s *sandbox, e *endpoint) *network.EndpointSettings {
	out := e.Settings.Copy()
	out.NetworkID, out.EndpointID, out.MacAddress = e.Network, e.ID, e.MAC
	n := m.networks[e.Network]
	if e.V4.IsValid() {
		out.IPAddress, out.IPPrefixLen = e.V4.Addr(), e.V4.Bits()
	}
	if e.V6.IsValid() {
		out.GlobalIPv6Address, out.GlobalIPv6PrefixLen = e.V6.Addr(), e.V6.Bits()
	}
	if n != nil && !n.Internal {
		out.Gateway, out.IPv6Gateway = n.gateway(false), n.gateway(true)
		if !e.V6.IsValid() {
			out.IPv6Gateway = netip.Addr{}
		}
	}
	if n != nil && !n.predefined() {
		out.DNSNames = s.names(e)
	}
	return out
}
