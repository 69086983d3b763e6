package network

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/engine/network/rules"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

// wish is one port to publish.
type wish struct {
	port        network.Port
	host        netip.Addr // unspecified: every address
	first, last uint16     // 0: any
}

// wishes lists what a request asks for, in a fixed order. It is pure.
func wishes(r *SandboxRequest, bind netip.Addr) ([]wish, error) {
	var all []wish
	ports := slices.SortedFunc(maps.Keys(r.Ports), func(a, b network.Port) int { return strings.Compare(a.String(), b.String()) })
	for _, p := range ports {
		if p.Proto() != network.TCP && p.Proto() != network.UDP {
			return nil, errdefs.NotImplementedf("publishing %s ports is not there; TCP and UDP are", p.Proto())
		}
		bindings := r.Ports[p]
		if len(bindings) == 0 && r.Ports[p] != nil {
			bindings = []network.PortBinding{{}}
		}
		for _, b := range bindings {
			w := wish{port: p, host: b.HostIP.Unmap()}
			if !b.HostIP.IsValid() {
				w.host = bind
			}
			var err error
			if w.first, w.last, err = parseRange(b.HostPort); err != nil {
				return nil, errdefs.Invalidf("invalid port specification: %q", b.HostPort)
			}
			all = append(all, w)
		}
	}
	if r.PublishAll {
		exposed := slices.SortedFunc(maps.Keys(r.Exposed), func(a, b network.Port) int { return strings.Compare(a.String(), b.String()) })
		for _, p := range exposed {
			if len(r.Ports[p]) == 0 && (p.Proto() == network.TCP || p.Proto() == network.UDP) {
				all = append(all, wish{port: p, host: bind})
			}
		}
	}
	return all, nil
}

func parseRange(s string) (first, last uint16, err error) {
	if s == "" {
		return 0, 0, nil
	}
	a, b, isRange := strings.Cut(s, "-")
	if !isRange {
		b = a
	}
	lo, err := strconv.ParseUint(a, 10, 16)
	if err != nil {
		return 0, 0, err
	}
	hi, err := strconv.ParseUint(b, 10, 16)
	if err != nil || hi < lo {
		return 0, 0, errors.New("no range")
	}
	return uint16(lo), uint16(hi), nil
}

// publishPorts publishes what the sandbox's request asks for. Ports belong to
// the sandbox; they lead to its first endpoint in a bridge network.
func (m *Manager) publishPorts(s *sandbox) error {
	m.mu.RLock()
	target, bind := m.portTarget(s)
	m.mu.RUnlock()
	all, err := wishes(&s.state.Request, bind)
	if err != nil || len(all) == 0 {
		return err
	}
	if target == nil {
		return nil // nothing leads to networks none and internal
	}
	ports := network.PortMap{}
	var published []rules.Publish
	var relays []relay
	for _, w := range all {
		got, err := m.grant(s, w, target)
		if err != nil {
			return fmt.Errorf("failed to set up container networking: driver failed programming external connectivity on endpoint %s (%s): %w",
				s.state.Request.Name, target.ID, err)
		}
		ports[w.port] = append(ports[w.port], got.bindings...)
		published = append(published, got.publish...)
		relays = append(relays, got.relays...)
	}
	m.mu.Lock()
	s.state.Ports, s.state.Published, s.state.Proxied = ports, published, relays
	m.mu.Unlock()
	return m.table.Publish(published)
}

func (m *Manager) portTarget(s *sandbox) (*endpoint, netip.Addr) {
	for _, e := range s.state.Endpoints {
		n := m.networks[e.Network]
		if n == nil || !n.isBridge() || n.Internal {
			continue
		}
		bind := m.cfg.BindAddress
		if a, err := netip.ParseAddr(n.Options[optBinding]); err == nil {
			bind = a
		}
		return e, bind
	}
	return nil, netip.Addr{}
}

// granted is one published port.
type granted struct {
	bindings []network.PortBinding
	publish  []rules.Publish
	relays   []relay
}

// grant takes a host port for w, with everything that makes it lead to target.
func (m *Manager) grant(s *sandbox, w wish, target *endpoint) (*granted, error) {
	if w.first == 0 {
		for range 20 { // the kernel's choice for IPv4 may be taken for IPv6
			g, err := m.grantPort(s, w, 0, target)
			if !errors.Is(err, errdefs.ErrConflict) {
				return g, err
			}
		}
		return nil, errdefs.Conflictf("no free port was found for %s", w.port)
	}
	var last error
	for p := int(w.first); p <= int(w.last); p++ {
		g, err := m.grantPort(s, w, uint16(p), target)
		if err == nil || !errors.Is(err, errdefs.ErrConflict) {
			return g, err
		}
		last = err
	}
	if w.first != w.last {
		return nil, errdefs.Conflictf("all ports of %s:%d-%d are allocated", w.host, w.first, w.last)
	}
	return nil, last
}

func (m *Manager) grantPort(s *sandbox, w wish, port uint16, target *endpoint) (*granted, error) {
	proto := uint8(unix.IPPROTO_TCP)
	if w.port.Proto() == network.UDP {
		proto = unix.IPPROTO_UDP
	}
	g := &granted{}
	var holds []*hold
	fail := func(err error) (*granted, error) {
		for _, h := range holds {
			err = errors.Join(err, h.close())
		}
		return nil, err
	}
	every := w.host.IsUnspecified()
	if w.host.Is4() {
		host, err := m.hold(s.id, proto, netip.AddrPortFrom(w.host, port))
		if err != nil {
			return fail(err)
		}
		holds, port = append(holds, host), host.at.Port()
		if target.V4.IsValid() {
			g.publish = append(g.publish, rules.Publish{Proto: proto, Host: host.at, Target: netip.AddrPortFrom(target.V4.Addr(), w.port.Num())})
		}
		g.bindings = append(g.bindings, network.PortBinding{HostIP: w.host, HostPort: strconv.Itoa(int(port))})
	}
	if w.host.Is6() || every && haveV6() {
		host := w.host
		if host.Is4() {
			host = netip.IPv6Unspecified()
		}
		at := netip.AddrPortFrom(host, port)
		to := netip.AddrPortFrom(target.V4.Addr(), w.port.Num())
		if target.V6.IsValid() {
			to = netip.AddrPortFrom(target.V6.Addr(), w.port.Num())
		}
		h, err := m.relay(s.id, relay{Proto: proto, Host: at, Target: to})
		if err != nil {
			return fail(err)
		}
		holds = append(holds, h)
		if target.V6.IsValid() {
			g.publish = append(g.publish, rules.Publish{Proto: proto, Host: h.at, Target: to})
		}
		g.relays = append(g.relays, relay{Proto: proto, Host: h.at, Target: to})
		g.bindings = append(g.bindings, network.PortBinding{HostIP: host, HostPort: strconv.Itoa(int(h.at.Port()))})
	}
	s.holds = append(s.holds, holds...)
	return g, nil
}

// unpublish ends what publishPorts began.
func (m *Manager) unpublish(s *sandbox) error {
	m.mu.Lock()
	published := s.state.Published
	s.state.Published, s.state.Proxied, s.state.Ports = nil, nil, nil
	m.mu.Unlock()
	if len(published) == 0 {
		return nil
	}
	return m.table.Unpublish(published)
}
