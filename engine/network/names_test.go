package network

import (
	"context"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
	"github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/engine/network/kernel"
)

// query asks the name server of a sandbox at its well-known address.
func (r *rig) query(box *Sandbox, netw, name string, typ uint16) *dns.Msg {
	r.t.Helper()
	var c net.Conn
	check(r.t, r.in(box, func() (err error) { c, err = net.Dial(netw, "127.0.0.11:53"); return err }))
	defer c.Close()
	q := new(dns.Msg).SetQuestion(dns.Fqdn(name), typ)
	resp, _, err := (&dns.Client{Net: netw, Timeout: patient}).ExchangeWithConn(q, &dns.Conn{Conn: c})
	check(r.t, err)
	return resp
}

// lookup is the addresses of a name, or the code of a failure.
func (r *rig) lookup(box *Sandbox, name string) string {
	resp := r.query(box, "udp", name, dns.TypeA)
	if resp.Rcode != dns.RcodeSuccess {
		return dns.RcodeToString[resp.Rcode]
	}
	var all []string
	for _, a := range resp.Answer {
		if a, ok := a.(*dns.A); ok {
			all = append(all, a.A.String())
		}
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// upstream answers as a resolver in another network: every A question with
// 203.0.113.1, "big." with more than a datagram takes.
func (r *rig) upstream(box *Sandbox, seen func(net.Addr)) {
	r.t.Helper()
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		seen(w.RemoteAddr())
		resp := new(dns.Msg).SetReply(q)
		n := 1
		if strings.HasPrefix(q.Question[0].Name, "big.") {
			n = 100
		}
		for range n {
			if q.Question[0].Qtype == dns.TypeA {
				resp.Answer = append(resp.Answer, &dns.A{
					Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 5}, A: net.IP{203, 0, 113, 1},
				})
			}
		}
		if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
			resp.Truncate(1232)
		}
		if err := w.WriteMsg(resp); err != nil {
			r.t.Log(err)
		}
	})
	var pc net.PacketConn
	var l net.Listener
	check(r.t, r.in(box, func() (err error) {
		if pc, err = net.ListenPacket("udp", ":53"); err != nil {
			return err
		}
		l, err = net.Listen("tcp", ":53")
		return err
	}))
	var wg sync.WaitGroup
	var up []*dns.Server
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: handler}, {Listener: l, Handler: handler}} {
		ready := make(chan struct{})
		s.NotifyStartedFunc = func() { close(ready) }
		wg.Go(func() {
			if err := s.ActivateAndServe(); err != nil {
				r.t.Log(err)
			}
		})
		<-ready
		up = append(up, s)
	}
	r.t.Cleanup(func() {
		for _, s := range up {
			check(r.t, s.ShutdownContext(context.Background()))
		}
		wg.Wait()
	})
}

func TestNames(t *testing.T) {
	r := newRig(t)
	r.create("net", subnet("10.71.0.0/24"))
	r.create("other", subnet("10.72.0.0/24"))
	web := r.run("web", on("net", &network.EndpointSettings{Aliases: []string{"www", "Pool"}}))
	two := r.run("two", on("net", &network.EndpointSettings{Aliases: []string{"pool"}}))
	linked := r.run("linked", on("net", &network.EndpointSettings{Links: []string{"web:db", "two"}}))
	far := r.run("far", on("other", nil))
	var mu sync.Mutex
	var clients []string
	r.upstream(nil, func(a net.Addr) { mu.Lock(); clients = append(clients, a.String()); mu.Unlock() })

	w, b := ip(web, "net"), ip(two, "net")
	for _, c := range []struct {
		box        *Sandbox
		name, want string
	}{
		{two, "web", w}, {two, "WEB", w}, {two, "www", w}, {two, "web.net", w}, {two, web.ID[:12], w}, {web, "web", w},
		{linked, "pool", w + " " + b}, {linked, "db", w}, {linked, "two", b}, {two, "db", "203.0.113.1"},
		{far, "web", "203.0.113.1"}, {web, "example.org", "203.0.113.1"},
	} {
		if got := r.lookup(c.box, c.name); got != c.want {
			t.Errorf("%s asks for %s: %q, want %q", c.box.ID[:6], c.name, got, c.want)
		}
	}
	if got := r.query(two, "udp", "web", dns.TypeAAAA); got.Rcode != dns.RcodeSuccess || len(got.Answer) != 0 {
		t.Errorf("AAAA of an IPv4 container: %v", got)
	}
	ptr := r.query(two, "udp", "2.0.71.10.in-addr.arpa", dns.TypePTR)
	if len(ptr.Answer) != 1 || ptr.Answer[0].(*dns.PTR).Ptr != "web.net." {
		t.Errorf("PTR: %v", ptr)
	}
	if got := r.query(two, "udp", "big.example", dns.TypeA); !got.Truncated || len(got.Answer) == 0 {
		t.Errorf("a big answer by UDP has %d records, truncated %v", len(got.Answer), got.Truncated)
	}
	if got := r.query(two, "tcp", "big.example", dns.TypeA); len(got.Answer) != 100 {
		t.Errorf("a big answer by TCP has %d records", len(got.Answer))
	}
	if got := r.query(two, "tcp", "web", dns.TypeA); len(got.Answer) != 1 {
		t.Errorf("TCP: %v", got)
	}
	mu.Lock()
	for _, c := range clients {
		if !strings.HasPrefix(c, wireHere+":") {
			t.Errorf("the host's resolver was asked from %s", c)
		}
	}
	mu.Unlock()

	check(t, r.m.Rename(r.ctx, web.ID, "shop"))
	if got := r.lookup(two, "shop"); got != w {
		t.Errorf("the new name resolves to %q", got)
	}
	_, err := r.m.Connect(r.ctx, web.ID, "other", &network.EndpointSettings{Aliases: []string{"visitor"}})
	check(t, err)
	if got := r.lookup(far, "visitor"); !strings.HasPrefix(got, "10.72.0.") {
		t.Errorf("after connect: %q", got)
	}
	if got := r.lookup(two, "visitor"); got != "203.0.113.1" {
		t.Errorf("an alias of another network resolves: %q", got)
	}
	r.close("two")
	if got := r.lookup(linked, "two"); got != "203.0.113.1" {
		t.Errorf("a closed container resolves: %q", got)
	}
}

// A container may have a name server of its own on port 53.
func TestContainerOwnsPort53(t *testing.T) {
	r := newRig(t)
	r.create("net")
	a := r.run("a", on("net", nil))
	r.upstream(a, func(net.Addr) {})
	b := r.run("b", on("net", nil), func(q *SandboxRequest) { q.DNS = []netip.Addr{a.Endpoints["net"].IPAddress} })
	// b's server is in its own network, where this host need not reach it.
	if got := r.lookup(b, "example.org"); got != "203.0.113.1" {
		t.Errorf("own server: %q", got)
	}
	if got := r.lookup(a, "b"); got != ip(b, "net") {
		t.Errorf("a container that listens on port 53 resolves %q", got)
	}
}

// No question leaves an internal network.
func TestInternalNamesStayInside(t *testing.T) {
	r := newRig(t)
	r.create("shut", internal)
	a, b := r.run("a", on("shut", nil)), r.run("b", on("shut", nil))
	asked := false
	r.upstream(nil, func(net.Addr) { asked = true })
	if got := r.lookup(a, "b"); got != ip(b, "shut") {
		t.Errorf("b is %q", got)
	}
	if got := r.lookup(a, "example.org"); got != "SERVFAIL" {
		t.Errorf("a name from outside is %q", got)
	}
	if asked {
		t.Error("a question went outside")
	}
}

func TestFiles(t *testing.T) {
	r := newRig(t)
	r.create("net", subnet("10.73.0.0/24"))
	r.run("db")
	a := r.run("a", on("bridge", &network.EndpointSettings{Links: []string{"db:store"}}), func(q *SandboxRequest) {
		q.ExtraHosts = []string{"up:host-gateway", "x:192.0.2.7", "six:[fd00::7]"}
		q.Domainname = "corp"
	})
	db, err := r.m.Inspect(r.ctx, "bridge")
	check(t, err)
	for _, want := range []string{
		"127.0.0.1\tlocalhost\n", db.IPAM.Config[0].Gateway.String() + "\tup\n", "192.0.2.7\tx\n", "fd00::7\tsix\n",
		db.Containers[id64("db")].IPv4Address.Addr().String() + "\tstore db", ip(a, "bridge") + "\ta.corp a\n",
	} {
		if !strings.Contains(string(a.Hosts), want) {
			t.Errorf("no %q in hosts:\n%s", want, a.Hosts)
		}
	}
	if got := string(a.ResolvConf); got != "nameserver "+wireThere+"\nsearch corp.example\n" {
		t.Errorf("resolv.conf:\n%s", got)
	}
	u := r.run("u", on("net", nil))
	if got := string(u.ResolvConf); got != "nameserver 127.0.0.11\nsearch corp.example\noptions ndots:0\n" {
		t.Errorf("resolv.conf on a user network:\n%s", got)
	}
	own := r.run("own", func(q *SandboxRequest) {
		q.DNS, q.Search, q.Options = []netip.Addr{netip.MustParseAddr("192.0.2.1")}, []string{"."}, []string{"ndots:3"}
	})
	if got := string(own.ResolvConf); got != "nameserver 192.0.2.1\noptions ndots:3\n" {
		t.Errorf("resolv.conf of the user's:\n%s", got)
	}
	// Only loopback resolvers: a container on the default network needs others.
	check(t, os.WriteFile(r.cfg.ResolvConf, []byte("nameserver 127.0.0.53\n"), 0o644))
	lone := r.run("lone")
	if got := string(lone.ResolvConf); !strings.Contains(got, "nameserver ") || strings.Contains(got, "127.") {
		t.Errorf("resolv.conf where the host's resolver is local:\n%s", got)
	}
}

// With br_netfilter off, frames between neighbours do not meet the rules.
func TestWithoutBridgeFilter(t *testing.T) {
	for _, v := range []string{"0", "1"} {
		t.Run("bridge-nf-call="+v, func(t *testing.T) {
			for _, name := range []string{"bridge/bridge-nf-call-iptables", "bridge/bridge-nf-call-ip6tables"} {
				if err := kernel.WriteSysctl(name, v); err != nil {
					t.Skip(err)
				}
			}
			t.Run("isolation", TestIsolation)
			t.Run("ports", TestPublishedPorts)
		})
	}
}
