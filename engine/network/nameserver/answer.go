package nameserver

import (
	"math/rand/v2"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// View is what one container can resolve. Its methods are called from several
// goroutines.
type View interface {
	// Lookup returns the addresses of a name, in lower case and without the
	// final dot; known says that the name exists, with or without addresses
	// of a family.
	Lookup(name string) (addrs []netip.Addr, known bool)
	// Reverse returns the full name of an address, without the final dot.
	Reverse(addr netip.Addr) (name string, known bool)
	// Upstreams are the servers to forward to, in order of preference; none
	// means that names from outside do not resolve.
	Upstreams() []Upstream
}

// Upstream is a server that questions are forwarded to.
type Upstream struct {
	Addr netip.AddrPort
	// Inside says that the container's namespace, not the host's, reaches it.
	Inside bool
}

// ttl is short: containers come and go.
const ttl = 10

// Sizes of UDP messages: what every client takes, and what we take and offer
// at most, which avoids fragments.
const (
	minUDP = 512
	maxUDP = 1232
)

// Answer decides on a request. Forward says that an upstream has to be asked;
// then there is no response yet.
func Answer(v View, req *dns.Msg) (resp *dns.Msg, forward bool) {
	if req.Response {
		return nil, false
	}
	if req.Opcode != dns.OpcodeQuery || len(req.Question) != 1 {
		return failure(req, dns.RcodeNotImplemented), false
	}
	if o := req.IsEdns0(); o != nil && o.Version() != 0 {
		r := failure(req, dns.RcodeBadVers)
		r.SetEdns0(maxUDP, false)
		return r, false
	}
	q := req.Question[0]
	if q.Qclass != dns.ClassINET {
		return nil, true
	}
	name := strings.ToLower(strings.TrimSuffix(q.Name, "."))
	if q.Qtype == dns.TypePTR {
		addr, ok := fromArpa(name)
		if !ok {
			return nil, true
		}
		target, ok := v.Reverse(addr)
		if !ok {
			return nil, true
		}
		r := reply(req)
		r.Answer = []dns.RR{&dns.PTR{Hdr: header(q), Ptr: dns.Fqdn(target)}}
		return r, false
	}
	addrs, known := v.Lookup(name)
	if !known {
		return nil, true
	}
	// A name of ours is answered here whatever the type: asking elsewhere
	// for its IPv6 address would tell the world, wait, and bring NXDOMAIN.
	r := reply(req)
	for _, a := range addrs {
		switch {
		case q.Qtype == dns.TypeA && a.Is4():
			r.Answer = append(r.Answer, &dns.A{Hdr: header(q), A: a.AsSlice()})
		case q.Qtype == dns.TypeAAAA && a.Is6():
			r.Answer = append(r.Answer, &dns.AAAA{Hdr: header(q), AAAA: a.AsSlice()})
		}
	}
	if len(r.Answer) > 1 {
		rand.Shuffle(len(r.Answer), func(i, j int) { r.Answer[i], r.Answer[j] = r.Answer[j], r.Answer[i] })
	}
	return r, false
}

func header(q dns.Question) dns.RR_Header {
	return dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: ttl}
}

func reply(req *dns.Msg) *dns.Msg {
	r := new(dns.Msg).SetReply(req)
	r.RecursionAvailable = true
	if req.IsEdns0() != nil {
		r.SetEdns0(maxUDP, false)
	}
	return r
}

func failure(req *dns.Msg, code int) *dns.Msg {
	r := reply(req)
	r.Rcode = code
	return r
}

// sizeFor is how much the client of a UDP request takes.
func sizeFor(req *dns.Msg) int {
	if o := req.IsEdns0(); o != nil {
		return min(max(int(o.UDPSize()), minUDP), maxUDP)
	}
	return minUDP
}

// fromArpa reads the name of a reverse question.
func fromArpa(name string) (netip.Addr, bool) {
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		p := strings.Split(rest, ".")
		if len(p) != 4 {
			return netip.Addr{}, false
		}
		a, err := netip.ParseAddr(p[3] + "." + p[2] + "." + p[1] + "." + p[0])
		return a, err == nil && a.Is4()
	}
	rest, ok := strings.CutSuffix(name, ".ip6.arpa")
	if !ok || len(rest) != 63 {
		return netip.Addr{}, false
	}
	var b strings.Builder
	for i := range 32 {
		if i > 0 && i%4 == 0 {
			b.WriteByte(':')
		}
		b.WriteByte(rest[62-2*i])
	}
	a, err := netip.ParseAddr(b.String())
	return a, err == nil && a.Is6()
}
