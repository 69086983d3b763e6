package resolv

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
)

func addrs(s ...string) (all []netip.Addr) {
	for _, a := range s {
		all = append(all, netip.MustParseAddr(a))
	}
	return all
}

func TestParse(t *testing.T) {
	for in, want := range map[string]string{
		"":                             "",
		"nameserver 10.0.0.1\n":        "nameserver 10.0.0.1\n",
		"nameserver\t10.0.0.1 # x\n":   "nameserver 10.0.0.1\n",
		"# nameserver 10.0.0.1\n":      "",
		"nameserver fe80::1%eth0\n":    "nameserver fe80::1%eth0\n",
		"nameserver nonsense\nsearch":  "",
		"search a b\nsearch c\n":       "search c\n",
		"domain a\n":                   "search a\n",
		"options ndots:2\noptions x\n": "options ndots:2 x\n",
		"nameserver 10.0.0.1":          "nameserver 10.0.0.1\n",
		"nameserver 10.0.0.1\r\n":      "nameserver 10.0.0.1\n",
	} {
		if got := string(Parse([]byte(in)).Bytes()); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestMerge(t *testing.T) {
	host := Conf{Nameservers: addrs("127.0.0.53", "::1", "10.0.0.1"), Search: []string{"corp"}, Options: []string{"edns0"}}
	for name, c := range map[string]struct {
		conf Conf
		want string
	}{
		"host":      {Merge(host, nil, nil, nil), "nameserver 127.0.0.53\nnameserver ::1\nnameserver 10.0.0.1\nsearch corp\noptions edns0\n"},
		"reachable": {Merge(host, nil, nil, nil).WithoutLocal(), "nameserver 10.0.0.1\nsearch corp\noptions edns0\n"},
		"user":      {Merge(host, addrs("1.1.1.1"), []string{"a", "b"}, []string{"ndots:1"}), "nameserver 1.1.1.1\nsearch a b\noptions ndots:1\n"},
		"no search": {Merge(host, nil, []string{"."}, nil).WithoutLocal(), "nameserver 10.0.0.1\noptions edns0\n"},
		"internal":  {Merge(host, nil, nil, nil).Internal(addrs("127.0.0.11")[0]), "nameserver 127.0.0.11\nsearch corp\noptions edns0 ndots:0\n"},
		"ndots":     {Merge(host, nil, nil, []string{"ndots:5"}).Internal(addrs("127.0.0.11")[0]), "nameserver 127.0.0.11\nsearch corp\noptions ndots:5\n"},
	} {
		if got := string(c.conf.Bytes()); got != c.want {
			t.Errorf("%s:\n%s\nwant:\n%s", name, got, c.want)
		}
	}
	if len(host.Options) != 1 || host.Search[0] != "corp" {
		t.Error("the host's settings were changed")
	}
}

func TestHosts(t *testing.T) {
	got := string(Hosts(false, []Host{{addrs("1.2.3.4")[0], []string{"x"}}}, []Host{{addrs("10.0.0.2")[0], []string{"db", "a"}}},
		[]Host{{addrs("10.0.0.3")[0], OwnNames("me", "corp")}}))
	want := "127.0.0.1\tlocalhost\n1.2.3.4\tx\n10.0.0.2\tdb a\n10.0.0.3\tme.corp me\n"
	if got != want {
		t.Errorf("hosts:\n%s", got)
	}
	if !strings.Contains(string(Hosts(true, nil, nil, nil)), "::1\tlocalhost") {
		t.Error("no ::1")
	}
	for _, c := range [][3]string{{"me", "", "me"}, {"me.corp", "", "me.corp me"}, {"", "x", ""}, {"me", "corp", "me.corp me"}} {
		if got := strings.Join(OwnNames(c[0], c[1]), " "); got != c[2] {
			t.Errorf("%v: %q", c, got)
		}
	}
}

// Whatever is read is written so that it is read the same again.
func FuzzParse(f *testing.F) {
	f.Add([]byte("nameserver 1.1.1.1\nsearch a b\noptions ndots:1 rotate\n"))
	f.Add([]byte("nameserver ::1%x\r\n;\ndomain  a#b\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		once := Parse(b).Bytes()
		if len(once) > 3*maxLine {
			return // longer lines than a reader takes
		}
		if twice := Parse(once).Bytes(); !bytes.Equal(once, twice) {
			t.Errorf("%q became %q", once, twice)
		}
	})
}
