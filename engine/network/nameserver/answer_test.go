package nameserver

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// book is a View that knows two names.
type book struct{}

func (book) Lookup(name string) ([]netip.Addr, bool) {
	switch name {
	case "web":
		return []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::2")}, true
	case "four":
		return []netip.Addr{netip.MustParseAddr("10.0.0.4")}, true
	}
	return nil, false
}

func (book) Reverse(a netip.Addr) (string, bool) {
	return "web.net", a == netip.MustParseAddr("10.0.0.2") || a == netip.MustParseAddr("fd00::2")
}

func (book) Upstreams() []Upstream { return nil }

func TestAnswer(t *testing.T) {
	six := "2." + strings.Repeat("0.", 27) + "0.0.d.f.ip6.arpa."
	for name, c := range map[string]struct {
		name    string
		typ     uint16
		change  func(*dns.Msg)
		forward bool
		rcode   int
		want    string
	}{
		"A":              {"web.", dns.TypeA, nil, false, 0, "10.0.0.2"},
		"capitals":       {"WeB.", dns.TypeA, nil, false, 0, "10.0.0.2"},
		"AAAA":           {"web.", dns.TypeAAAA, nil, false, 0, "fd00::2"},
		"no AAAA":        {"four.", dns.TypeAAAA, nil, false, 0, ""},
		"MX of ours":     {"web.", dns.TypeMX, nil, false, 0, ""},
		"unknown":        {"example.org.", dns.TypeA, nil, true, 0, ""},
		"PTR":            {"2.0.0.10.in-addr.arpa.", dns.TypePTR, nil, false, 0, "web.net."},
		"PTR six":        {six, dns.TypePTR, nil, false, 0, "web.net."},
		"PTR elsewhere":  {"9.9.9.9.in-addr.arpa.", dns.TypePTR, nil, true, 0, ""},
		"PTR nonsense":   {"x.in-addr.arpa.", dns.TypePTR, nil, true, 0, ""},
		"class":          {"web.", dns.TypeA, func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }, true, 0, ""},
		"no question":    {"web.", dns.TypeA, func(m *dns.Msg) { m.Question = nil }, false, dns.RcodeNotImplemented, ""},
		"two questions":  {"web.", dns.TypeA, func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }, false, dns.RcodeNotImplemented, ""},
		"update":         {"web.", dns.TypeA, func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }, false, dns.RcodeNotImplemented, ""},
		"EDNS of future": {"web.", dns.TypeA, func(m *dns.Msg) { m.SetEdns0(4096, false); m.IsEdns0().SetVersion(3) }, false, dns.RcodeBadVers, ""},
	} {
		t.Run(name, func(t *testing.T) {
			req := new(dns.Msg).SetQuestion(c.name, c.typ)
			if c.change != nil {
				c.change(req)
			}
			resp, forward := Answer(book{}, req)
			if forward != c.forward {
				t.Fatalf("forward %v", forward)
			}
			if forward {
				return
			}
			if resp.Rcode != c.rcode || !resp.Response || resp.Id != req.Id {
				t.Errorf("response %v", resp)
			}
			var got string
			for _, r := range resp.Answer {
				got += strings.TrimPrefix(r.String(), r.Header().String())
			}
			if got != c.want {
				t.Errorf("answer %q, want %q", got, c.want)
			}
			if _, err := resp.Pack(); err != nil {
				t.Error(err)
			}
		})
	}
	if resp, forward := Answer(book{}, &dns.Msg{MsgHdr: dns.MsgHdr{Response: true}}); resp != nil || forward {
		t.Error("a response was answered: two servers would talk for ever")
	}
}

func TestSize(t *testing.T) {
	for edns, want := range map[uint16]int{0: 512, 100: 512, 1000: 1000, 4096: maxUDP} {
		m := new(dns.Msg).SetQuestion("a.", dns.TypeA)
		if edns > 0 {
			m.SetEdns0(edns, false)
		}
		if got := sizeFor(m); got != want {
			t.Errorf("EDNS %d: %d, want %d", edns, got, want)
		}
	}
}

// No message, however malformed, brings the server down or gets an answer that
// cannot be sent.
func FuzzAnswer(f *testing.F) {
	for _, n := range []string{"web.", "example.org.", "2.0.0.10.in-addr.arpa.", strings.Repeat("0.", 32) + "ip6.arpa."} {
		for _, typ := range []uint16{dns.TypeA, dns.TypePTR, dns.TypeANY} {
			m := new(dns.Msg).SetQuestion(n, typ)
			m.SetEdns0(1232, true)
			b, err := m.Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		}
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		req := new(dns.Msg)
		if req.Unpack(b) != nil {
			return
		}
		resp, forward := Answer(book{}, req)
		if forward {
			resp = failure(req, dns.RcodeServerFailure)
			if !sameQuestion(req, req) {
				t.Error("a question is not the same as itself")
			}
		}
		if resp == nil {
			return
		}
		resp.Truncate(sizeFor(req))
		if out, err := resp.Pack(); err == nil && len(out) > maxUDP {
			t.Errorf("%d bytes", len(out))
		}
	})
}
