package network

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

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
	n, e, err := m.allot(s, ref, want)
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

// allot is reserve, after the addresses that it may need have been freed.
func (m *Manager) allot(s *sandbox, ref string, want *network.EndpointSettings) (*bridgeNetwork, *endpoint, error) {
	if err := m.bury(want, false); err != nil {
		return nil, nil, err
	}
	try := func() (*bridgeNetwork, *endpoint, error) {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.reserve(s, ref, want)
	}
	n, e, err := try()
	if errors.Is(err, ipam.ErrFull) || errors.Is(err, ipam.ErrFull6) {
		if err := m.bury(want, true); err != nil {
			return nil, nil, err
		}
		return try()
	}
	return n, e, err
}

// manyDying is how many closed endpoints may wait before they are looked at.
const manyDying = 64

// bury gives back the addresses of closed endpoints whose interfaces the kernel
// has taken down. Until then an old interface could answer for a new
// container's address. Interfaces with an address that is wanted, or all of
// them, are removed at once, which takes the kernel some 20 ms.
func (m *Manager) bury(want *network.EndpointSettings, all bool) error {
	static := want != nil && want.IPAMConfig != nil && (want.IPAMConfig.IPv4Address.IsValid() || want.IPAMConfig.IPv6Address.IsValid())
	m.mu.RLock()
	n := len(m.dying)
	m.mu.RUnlock()
	if n == 0 || !static && !all && n < manyDying {
		return nil
	}
	m.burying.Lock()
	defer m.burying.Unlock()
	m.mu.RLock()
	dying := slices.Clone(m.dying)
	m.mu.RUnlock()
	links, err := m.conn.Links()
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, l := range links {
		there[l.Name] = true
	}
	gone := map[*endpoint]bool{}
	for _, e := range dying {
		wanted := static && (e.V4.Addr() == want.IPAMConfig.IPv4Address || e.V6.IsValid() && e.V6.Addr() == want.IPAMConfig.IPv6Address)
		if there[e.HostLink] && (all || wanted) {
			if err := deleteLink(m.conn, e.HostLink); err != nil {
				return err
			}
			there[e.HostLink] = false
		}
		gone[e] = !there[e.HostLink]
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dying = slices.DeleteFunc(m.dying, func(e *endpoint) bool {
		if gone[e] {
			m.release(e)
		}
		return gone[e]
	})
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
		e.MAC = endpointMAC(e)
	}
	if e.Link = want.DriverOpts[optIfname]; e.Link == "" {
		e.Link = freeName(s.state.Endpoints)
	} else if slices.ContainsFunc(s.state.Endpoints, func(x *endpoint) bool { return x.Link == e.Link }) {
		m.release(e)
		return nil, nil, errdefs.Invalidf("interface name %s is used twice", e.Link)
	}
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

// endpointMAC is a locally administered address made of the IP address, so that
// what neighbours remember stays true when the IP address comes back.
func endpointMAC(e *endpoint) network.HardwareAddr {
	if e.V4.IsValid() {
		a := e.V4.Addr().As4()
		return network.HardwareAddr{0x02, 0x42, a[0], a[1], a[2], a[3]}
	}
	return network.HardwareAddr(macOf(e.V6.Addr().String()))
}

// plug makes the endpoint's link and gives it its addresses.
func (m *Manager) plug(n *bridgeNetwork, e *endpoint, f *kernel.Fresh) error {
	make := m.plugBridge
	if n.Driver == driverMacvlan {
		make = m.plugMacvlan
	}
	if err := make(n, e, f); err != nil {
		return err
	}
	l, err := f.Conn.LinkByName(e.Link)
	if err != nil {
		return err
	}
	sysctls := endpointSysctls(e)
	if haveV6() {
		// Neighbours must not be able to give the container IPv6 routes or
		// addresses that nobody asked for.
		first := [2]string{"net.ipv6.conf." + e.Link + ".disable_ipv6", "1"}
		if e.V6.IsValid() {
			first = [2]string{"net.ipv6.conf." + e.Link + ".accept_ra", "0"}
		}
		sysctls = append([][2]string{first}, sysctls...)
	}
	if len(sysctls) > 0 {
		if err := f.Do(m.home, func() error { return writeSysctls(sysctls, e.Link) }); err != nil {
			return err
		}
	}
	var reqs []kernel.Request
	for _, a := range []netip.Prefix{e.V4, e.V6} {
		if a.IsValid() {
			reqs = append(reqs, kernel.AddAddress(l.Index, a))
		}
	}
	if c := e.Settings.IPAMConfig; c != nil {
		for _, a := range c.LinkLocalIPs {
			bits := 16
			if a.Is6() {
				bits = 64
			}
			reqs = append(reqs, kernel.AddAddress(l.Index, netip.PrefixFrom(a.Unmap(), bits)))
		}
	}
	if err := f.Conn.Do(append(reqs, kernel.LinkUp(l.Index))...); err != nil {
		return fmt.Errorf("set up %s: %w", e.Link, err)
	}
	return nil
}

// endpointSysctls are those of the driver option: "net.X.conf.IFNAME.K=V,...".
// It is pure.
func endpointSysctls(e *endpoint) [][2]string {
	var all [][2]string
	for pair := range strings.SplitSeq(e.Settings.DriverOpts[optSysctls], ",") {
		if k, v, ok := strings.Cut(pair, "="); ok {
			all = append(all, [2]string{strings.ReplaceAll(k, "IFNAME", e.Link), v})
		}
	}
	return all
}

func (m *Manager) plugBridge(n *bridgeNetwork, e *endpoint, f *kernel.Fresh) error {
	quiet := !n.option(optICC, true)
	pair := func() error {
		m.mu.RLock()
		master := n.index
		m.mu.RUnlock()
		reqs := []kernel.Request{kernel.Veth{
			Host: e.HostLink, Peer: e.Link, Master: master, MTU: n.mtu(m.cfg.MTU), MAC: net.HardwareAddr(e.MAC), NS: f.FD(),
		}.Request()}
		if quiet || m.hairpin {
			reqs = append(reqs, kernel.SetPort(e.HostLink, m.hairpin, quiet))
		}
		return m.conn.Do(reqs...)
	}
	err := pair()
	if err == nil {
		return nil
	}
	if _, gone := m.conn.LinkByName(n.Link); errors.Is(gone, kernel.ErrNoLink) {
		// Somebody removed the bridge: the network is to work nevertheless.
		m.log.Warn("a bridge has disappeared; made again", "bridge", n.Link, "network", n.Name)
		if err := m.ensureBridge(n); err != nil {
			return err
		}
		err = pair()
	}
	if errors.Is(err, unix.EXFULL) {
		return errdefs.As(errdefs.ErrExhausted, fmt.Errorf("network %s has as many containers as a Linux bridge has ports", n.Name))
	}
	if err != nil {
		return fmt.Errorf("make a veth pair: %w", err)
	}
	return nil
}

func (m *Manager) plugMacvlan(n *bridgeNetwork, e *endpoint, f *kernel.Fresh) error {
	parent, err := m.conn.LinkByName(n.Link)
	if err != nil {
		return err
	}
	mode, _ := macvlanMode(n.Options[optMode]) // checked at create
	err = m.conn.Do(kernel.Macvlan{
		Name: e.Link, Parent: parent.Index, Mode: mode, MTU: n.mtu(m.cfg.MTU), MAC: net.HardwareAddr(e.MAC), NS: f.FD(),
	}.Request())
	if err != nil {
		return fmt.Errorf("make a macvlan on %s: %w", n.Link, err)
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

// byPriority puts the endpoint that gives the default gateway first: the
// highest priority, then the network's name, as Docker does.
func byPriority(all []*endpoint) []*endpoint {
	return slices.SortedFunc(slices.Values(all), func(a, b *endpoint) int {
		return cmp.Or(cmp.Compare(b.Settings.GwPriority, a.Settings.GwPriority), strings.Compare(a.Name, b.Name))
	})
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
	ordered := byPriority(s.state.Endpoints)
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
