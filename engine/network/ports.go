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

	"github.com/cleatlabs/cleat/engine/network/kernel"
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
// the sandbox; they lead to the endpoint that portTarget names.
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
	for _, w := range all {
		got, err := m.grant(s, w)
		if err != nil {
			return fmt.Errorf("failed to set up container networking: driver failed programming external connectivity on endpoint %s (%s): %w",
				s.state.Request.Name, target.ID, err)
		}
		ports[w.port] = append(ports[w.port], got...)
	}
	m.mu.Lock()
	s.state.Ports = ports
	m.mu.Unlock()
	return m.aim(s)
}

// aim makes the sandbox's ports lead to the endpoint that they should lead to
// now, which joining and leaving networks may change.
func (m *Manager) aim(s *sandbox) error {
	if len(s.holds) == 0 {
		return nil
	}
	var v4, v6 netip.Addr
	m.mu.Lock()
	if target, _ := m.portTarget(s); target != nil {
		v4, v6 = target.V4.Addr(), target.V6.Addr()
	}
	old := s.state.Published
	var published []rules.Publish
	s.state.Proxied = nil
	for _, h := range s.holds {
		to, translate := aimOne(h.relay, v4, v6)
		h.target.Store(&to)
		h.Target = to
		s.state.Proxied = append(s.state.Proxied, h.relay)
		if translate {
			published = append(published, rules.Publish{Proto: h.Proto, Host: h.Host, Target: to})
		}
	}
	s.state.Published = published
	m.mu.Unlock()
	if slices.Equal(old, published) {
		return nil
	}
	err := errors.Join(m.table.Unpublish(old), m.table.Publish(published))
	m.forgetFlows(append(old, published...))
	return err
}

// aimOne is where a port of the host leads, given the addresses of the target
// endpoint (each may be absent), and whether packet rules can do it. It is pure.
func aimOne(r relay, v4, v6 netip.Addr) (to netip.AddrPort, translate bool) {
	same, other := v4, v6
	if r.Host.Addr().Is6() {
		same, other = v6, v4
	}
	switch {
	case same.IsValid():
		return netip.AddrPortFrom(same, r.Port.Num()), true
	case other.IsValid():
		return netip.AddrPortFrom(other, r.Port.Num()), false
	}
	return netip.AddrPort{}, false
}

// forgetFlows makes the kernel forget UDP peers of these ports: it would go on
// sending them where it did before.
func (m *Manager) forgetFlows(ports []rules.Publish) {
	for _, p := range ports {
		if p.Proto != unix.IPPROTO_UDP {
			continue
		}
		if err := kernel.ForgetUDP(p.Host); err != nil {
			m.log.Debug("old UDP flows are not forgotten", "port", p.Host, "error", err)
		}
	}
}

// portTarget is the endpoint that published ports lead to, and the address of
// the host that they are published on by default: the one with the default
// gateway. mu is held.
func (m *Manager) portTarget(s *sandbox) (*endpoint, netip.Addr) {
	for _, e := range byPriority(s.state.Endpoints) {
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

// anyPort is how often a free port is looked for: what is free for IPv4 may be
// taken for IPv6.
const anyPort = 50

// grant takes a host port for w.
func (m *Manager) grant(s *sandbox, w wish) ([]network.PortBinding, error) {
	if w.first == 0 {
		var last error
		for range anyPort {
			got, err := m.grantPort(s, w, 0)
			if !errors.Is(err, errdefs.ErrConflict) {
				return got, err
			}
			last = err
		}
		return nil, last
	}
	var last error
	for p := int(w.first); p <= int(w.last); p++ {
		got, err := m.grantPort(s, w, uint16(p))
		if err == nil || !errors.Is(err, errdefs.ErrConflict) {
			return got, err
		}
		last = err
	}
	if w.first != w.last {
		return nil, errdefs.Conflictf("Bind for %s:%d-%d failed: all ports are allocated", w.host, w.first, w.last)
	}
	return nil, last
}

func (m *Manager) grantPort(s *sandbox, w wish, port uint16) ([]network.PortBinding, error) {
	proto := uint8(unix.IPPROTO_TCP)
	if w.port.Proto() == network.UDP {
		proto = unix.IPPROTO_UDP
	}
	hosts := []netip.Addr{w.host}
	if w.host == netip.IPv4Unspecified() && haveV6() {
		hosts = append(hosts, netip.IPv6Unspecified())
	}
	var holds []*hold
	var bindings []network.PortBinding
	for _, host := range hosts {
		h, err := m.relay(s.id, relay{Proto: proto, Host: netip.AddrPortFrom(host, port), Port: w.port})
		if err != nil {
			for _, h := range holds {
				err = errors.Join(err, h.close())
			}
			return nil, err
		}
		port = h.Host.Port()
		holds = append(holds, h)
		bindings = append(bindings, network.PortBinding{HostIP: host, HostPort: strconv.Itoa(int(port))})
	}
	s.holds = append(s.holds, holds...)
	return bindings, nil
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
	err := m.table.Unpublish(published)
	m.forgetFlows(published)
	return err
}
