package network

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"
)

func TestWishes(t *testing.T) {
	bind := netip.IPv4Unspecified()
	for name, c := range map[string]struct {
		ports, exposed string // "80/tcp=127.0.0.1:8080 ..." and "80/tcp ..."
		all            bool
		want           string // "80/tcp 127.0.0.1 8080-8080;..."
		err            string
	}{
		"given":      {"80/tcp=127.0.0.1:8080", "", false, "80/tcp 127.0.0.1 8080-8080", ""},
		"everywhere": {"80/tcp=:8080", "", false, "80/tcp 0.0.0.0 8080-8080", ""},
		"random":     {"80/tcp=:", "", false, "80/tcp 0.0.0.0 0-0", ""},
		"zero":       {"80/tcp=:0", "", false, "80/tcp 0.0.0.0 0-0", ""},
		"range":      {"80/udp=:8000-8010", "", false, "80/udp 0.0.0.0 8000-8010", ""},
		"exposed":    {"80/tcp=:8080", "80/tcp 81/tcp", true, "80/tcp 0.0.0.0 8080-8080;81/tcp 0.0.0.0 0-0", ""},
		"not all":    {"", "80/tcp", false, "", ""},
		"backwards":  {"80/tcp=:9-8", "", false, "", "invalid port specification"},
		"too large":  {"80/tcp=:70000", "", false, "", "invalid port specification"},
		"word":       {"80/tcp=:http", "", false, "", "invalid port specification"},
		"sctp":       {"80/sctp=:80", "", false, "", "sctp"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &SandboxRequest{PublishAll: c.all, Ports: network.PortMap{}, Exposed: network.PortSet{}}
			for s := range strings.FieldsSeq(c.ports) {
				port, at, _ := strings.Cut(s, "=")
				i := strings.LastIndex(at, ":")
				b := network.PortBinding{HostPort: at[i+1:]}
				if i > 0 {
					b.HostIP = netip.MustParseAddr(at[:i])
				}
				p := network.MustParsePort(port)
				r.Ports[p] = append(r.Ports[p], b)
			}
			for s := range strings.FieldsSeq(c.exposed) {
				r.Exposed[network.MustParsePort(s)] = struct{}{}
			}
			all, err := wishes(r, bind)
			if c.err != "" {
				fails(t, err, c.err)
				return
			}
			check(t, err)
			var got []string
			for _, w := range all {
				got = append(got, w.port.String()+" "+w.host.String()+" "+itoa(w.first)+"-"+itoa(w.last))
			}
			if g := strings.Join(got, ";"); g != c.want {
				t.Errorf("%q, want %q", g, c.want)
			}
		})
	}
}

func itoa(v uint16) string { return netip.AddrPortFrom(netip.IPv4Unspecified(), v).String()[len("0.0.0.0:"):] }

func TestAimOne(t *testing.T) {
	v4, v6 := netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::2")
	for name, c := range map[string]struct {
		host   string
		v4, v6 netip.Addr
		want   string
		rules  bool
	}{
		"4 to 4":  {"0.0.0.0:8080", v4, v6, "10.0.0.2:80", true},
		"6 to 6":  {"[::]:8080", v4, v6, "[fd00::2]:80", true},
		"6 to 4":  {"[::]:8080", v4, netip.Addr{}, "10.0.0.2:80", false},
		"4 to 6":  {"0.0.0.0:8080", netip.Addr{}, v6, "[fd00::2]:80", false},
		"nowhere": {"0.0.0.0:8080", netip.Addr{}, netip.Addr{}, "invalid AddrPort", false},
	} {
		to, rules := aimOne(relay{Proto: unix.IPPROTO_TCP, Host: netip.MustParseAddrPort(c.host), Port: network.MustParsePort("80/tcp")}, c.v4, c.v6)
		if to.String() != c.want || rules != c.rules {
			t.Errorf("%s: %s, %v", name, to, rules)
		}
	}
}

func TestSysctlPath(t *testing.T) {
	for _, c := range [][3]string{
		{"net.ipv4.ip_forward", "", "ipv4/ip_forward"}, {"net/ipv4/ip_forward", "", "ipv4/ip_forward"},
		{"net.ipv4.conf.eth0.100.x", "eth0.100", "ipv4/conf/eth0.100/x"}, {"kernel.x", "", ""}, {"net...x", "", ""}, {"net./../x", "", ""},
	} {
		if got, _ := sysctlPath(c[0], c[1]); got != c[2] {
			t.Errorf("%s: %q, want %q", c[0], got, c[2])
		}
	}
}

func TestVLANOf(t *testing.T) {
	for in, want := range map[string]uint16{"eth0.50": 50, "eth0": 0, "eth0.0": 0, "eth0.4095": 0, "eth0.x": 0, ".5": 0, "a.b.7": 7, "averyveryverylong.5": 0} {
		if _, id, ok := vlanOf(in); ok != (want != 0) || ok && id != want {
			t.Errorf("%s: %d, %v", in, id, ok)
		}
	}
}

func TestConfig(t *testing.T) {
	c := Config{Root: "/a", Run: "/b"}
	check(t, c.Validate())
	check(t, c.Validate()) // again, with everything filled in
	if c.Bridge != "cleat0" || c.Table != "cleat" || len(c.supplies(true)) != 1 || len(c.supplies(false)) == 0 {
		t.Errorf("%+v", c)
	}
	for _, bad := range []Config{{}, {Root: "a", Run: "/b"}, {Root: "/a", Run: "/b", MTU: -1}, {Root: "/a", Run: "/b", Bridge: "sixteencharacter"}, {Root: "/a", Run: "/b", Spares: 9}} {
		if bad.Validate() == nil {
			t.Errorf("accepted: %+v", bad)
		}
	}
}

// The control message that an answer is sent with says the address, and not
// the interface, that the question came to.
func TestAnswerFrom(t *testing.T) {
	data := make([]byte, unix.SizeofInet4Pktinfo)
	binary.NativeEndian.PutUint32(data, 7)
	copy(data[4:], []byte{192, 0, 2, 1})
	copy(data[8:], []byte{192, 0, 2, 1})
	out := answerFrom([]byte(controlMessage(unix.IPPROTO_IP, unix.IP_PKTINFO, data)))
	all, err := unix.ParseSocketControlMessage([]byte(out))
	check(t, err)
	if len(all) != 1 || all[0].Header.Type != unix.IP_PKTINFO || string(all[0].Data[:8]) != "\x00\x00\x00\x00\xc0\x00\x02\x01" {
		t.Errorf("%v", all)
	}
	if answerFrom(nil) != "" || answerFrom([]byte("xx")) != "" {
		t.Error("a control message out of nothing")
	}
}
