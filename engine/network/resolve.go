package network

import (
	"context"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/cleatlabs/cleat/engine/network/kernel"
	"github.com/cleatlabs/cleat/engine/network/nameserver"
	"github.com/cleatlabs/cleat/engine/network/resolv"
	"github.com/cleatlabs/cleat/engine/network/rules"
)

// nameserverAddr is where containers on user networks ask, as in Docker.
func nameserverAddr() netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 0, 11}) }

// names are the DNS names of an endpoint: container name, aliases, short ID.
func (s *sandbox) names(e *endpoint) []string {
	r := s.state.Request
	all := append([]string{r.Name}, e.Settings.Aliases...)
	if len(s.id) >= 12 {
		all = append(all, s.id[:12])
	}
	if r.Hostname != "" {
		all = append(all, r.Hostname)
	}
	var out []string
	for _, n := range all {
		if n != "" && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

// namesNeeded says whether the sandbox has a network with name resolution. mu
// is held.
func (m *Manager) namesNeeded(s *sandbox) bool {
	return slices.ContainsFunc(s.state.Endpoints, func(e *endpoint) bool {
		n := m.networks[e.Network]
		return n != nil && !n.predefined()
	})
}

// serveNames starts the name server of a sandbox; again says that one has been
// there before, in an earlier life of the daemon or of the sandbox.
func (m *Manager) serveNames(s *sandbox, f *kernel.Fresh, again bool) error {
	var socks nameserver.Sockets
	err := f.Do(m.home, func() (err error) {
		if socks, err = nameserver.Listen(nameserverAddr()); err != nil {
			return err
		}
		udp, tcp := socks.Ports()
		return rules.RedirectDNS(m.cfg.Table, nameserverAddr(), udp, tcp, again)
	})
	if err != nil {
		if socks.UDP != nil {
			// The error that matters is the first.
			_ = socks.Close()
		}
		return err
	}
	s.dns = nameserver.Serve(socks, &view{m, s}, m.dialer(s), m.log)
	return nil
}

// dialer connects to upstream servers from the namespace that reaches them.
func (m *Manager) dialer(s *sandbox) nameserver.Dialer {
	return func(ctx context.Context, netw string, up nameserver.Upstream) (conn net.Conn, err error) {
		var d net.Dialer
		if !up.Inside {
			return d.DialContext(ctx, netw, up.Addr.String())
		}
		ns, err := kernel.OpenNamespace(s.path)
		if err != nil {
			return nil, err
		}
		defer ns.Close()
		err = ns.Do(m.home, func() (err error) {
			conn, err = d.DialContext(ctx, netw, up.Addr.String())
			return err
		})
		return conn, err
	}
}

// view is what one sandbox can resolve.
type view struct {
	m *Manager
	s *sandbox
}

// peers calls f for every endpoint in a network that the sandbox is in. mu is held.
func (v *view) peers(f func(owner *sandbox, e *endpoint, mine *endpoint) bool) {
	for _, mine := range v.s.state.Endpoints {
		if n := v.m.networks[mine.Network]; n == nil || n.predefined() {
			continue
		}
		for _, other := range v.m.sandboxes {
			if e := other.state.endpoint(mine.Network); e != nil && !f(other, e, mine) {
				return
			}
		}
	}
}

func (v *view) Lookup(name string) (addrs []netip.Addr, known bool) {
	v.m.mu.RLock()
	defer v.m.mu.RUnlock()
	v.peers(func(owner *sandbox, e, mine *endpoint) bool {
		if !v.matches(name, owner, e, mine) {
			return true
		}
		known = true
		for _, p := range []netip.Prefix{e.V4, e.V6} {
			if p.IsValid() {
				addrs = append(addrs, p.Addr())
			}
		}
		return true
	})
	return addrs, known
}

// matches says whether owner's endpoint e has the name: by itself, with the
// network's as domain, or as this sandbox's link.
func (v *view) matches(name string, owner *sandbox, e, mine *endpoint) bool {
	for _, n := range owner.names(e) {
		n = strings.ToLower(n)
		if n == name || n+"."+strings.ToLower(e.Name) == name {
			return true
		}
	}
	for _, l := range mine.Settings.Links {
		target, alias, ok := strings.Cut(l, ":")
		if !ok {
			alias = target
		}
		if strings.ToLower(alias) == name && (target == owner.state.Request.Name || target == owner.id) {
			return true
		}
	}
	return false
}

func (v *view) Reverse(addr netip.Addr) (name string, known bool) {
	v.m.mu.RLock()
	defer v.m.mu.RUnlock()
	v.peers(func(owner *sandbox, e, _ *endpoint) bool {
		if e.V4.Addr() == addr || e.V6.Addr() == addr {
			name, known = owner.state.Request.Name+"."+e.Name, true
		}
		return !known
	})
	return name, known
}

// Upstreams are the user's servers, asked from inside the container's network,
// or the host's, asked from the host. A container that is only in internal
// networks has none.
func (v *view) Upstreams() []nameserver.Upstream {
	v.m.mu.RLock()
	outside := slices.ContainsFunc(v.s.state.Endpoints, func(e *endpoint) bool {
		n := v.m.networks[e.Network]
		return n != nil && !n.Internal
	})
	own := v.s.state.Request.DNS
	v.m.mu.RUnlock()
	if !outside {
		return nil
	}
	servers := own
	if len(own) == 0 {
		servers = v.m.hostConf().Nameservers
	}
	var ups []nameserver.Upstream
	for _, a := range servers {
		ups = append(ups, nameserver.Upstream{Addr: netip.AddrPortFrom(a, 53), Inside: len(own) > 0})
	}
	return ups
}

// hostConf reads the host's resolv.conf anew, for it changes with the places
// that a laptop goes to.
func (m *Manager) hostConf() resolv.Conf {
	data, err := os.ReadFile(m.cfg.ResolvConf)
	if err != nil {
		m.log.Debug("no resolvers of the host", "error", err)
		return resolv.Conf{}
	}
	return resolv.Parse(data)
}

// files are the sandbox's hosts and resolv.conf. mu is held.
func (m *Manager) files(s *sandbox) (hosts, conf []byte) {
	r := s.state.Request
	var own, links []resolv.Host
	six := false
	for _, e := range s.state.Endpoints {
		six = six || e.V6.IsValid()
		for _, p := range []netip.Prefix{e.V4, e.V6} {
			if names := resolv.OwnNames(r.Hostname, r.Domainname); p.IsValid() && names != nil {
				own = append(own, resolv.Host{Addr: p.Addr(), Names: names})
			}
		}
		links = append(links, m.linkHosts(e)...)
	}
	hosts = resolv.Hosts(six, m.extraHosts(s), links, own)
	c := resolv.Merge(m.hostConf(), r.DNS, r.Search, r.Options)
	if m.namesNeeded(s) {
		return hosts, c.Internal(nameserverAddr()).Bytes()
	}
	if len(s.state.Endpoints) > 0 {
		c = m.reachable(c)
	}
	return hosts, c.Bytes()
}

// resolvedConf is where systemd-resolved lists the servers behind 127.0.0.53.
const resolvedConf = "/run/systemd/resolve/resolv.conf"

// reachable leaves out the servers on the host's loopback; where none is left,
// those behind systemd-resolved or those of the configuration take their place.
func (m *Manager) reachable(c resolv.Conf) resolv.Conf {
	out := c.WithoutLocal()
	if len(out.Nameservers) > 0 {
		return out
	}
	if data, err := os.ReadFile(resolvedConf); err == nil && slices.Contains(c.Nameservers, netip.AddrFrom4([4]byte{127, 0, 0, 53})) {
		out.Nameservers = resolv.Parse(data).WithoutLocal().Nameservers
	}
	if len(out.Nameservers) == 0 {
		m.log.Warn("the host has no resolver that a container can reach; using others", "servers", m.cfg.FallbackDNS)
		out.Nameservers = m.cfg.FallbackDNS
	}
	return out
}

// linkHosts are the hosts lines of links in the default network, which has no
// name server. mu is held.
func (m *Manager) linkHosts(e *endpoint) []resolv.Host {
	n := m.networks[e.Network]
	if n == nil || !n.predefined() {
		return nil
	}
	var hosts []resolv.Host
	for _, l := range e.Settings.Links {
		target, alias, ok := strings.Cut(l, ":")
		if !ok {
			alias = target
		}
		for _, other := range m.sandboxes {
			r := other.state.Request
			o := other.state.endpoint(e.Network)
			if o == nil || r.Name != target && other.id != target {
				continue
			}
			hosts = append(hosts, resolv.Host{Addr: o.V4.Addr(), Names: []string{alias, r.Hostname, r.Name}})
		}
	}
	return hosts
}

func (m *Manager) extraHosts(s *sandbox) []resolv.Host {
	var hosts []resolv.Host
	for _, x := range s.state.Request.ExtraHosts {
		name, addr, ok := strings.Cut(x, ":")
		if !ok {
			continue
		}
		for a := range strings.SplitSeq(addr, ",") {
			if a == "host-gateway" {
				if gw := m.hostGateway(s); gw.IsValid() {
					hosts = append(hosts, resolv.Host{Addr: gw, Names: []string{name}})
				}
				continue
			}
			if ip, err := netip.ParseAddr(strings.Trim(a, "[]")); err == nil {
				hosts = append(hosts, resolv.Host{Addr: ip, Names: []string{name}})
			}
		}
	}
	return hosts
}

// hostGateway is an address at which the container reaches this host: that of
// the default network's bridge, as in Docker. mu is held.
func (m *Manager) hostGateway(*sandbox) netip.Addr {
	n, err := m.find("bridge")
	if err != nil {
		return netip.Addr{}
	}
	return n.gateway(false)
}
