package ipam

import (
	"errors"
	"net/netip"
	"testing"
)

func p(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func a(s string) netip.Addr   { return netip.MustParseAddr(s) }

func TestPool(t *testing.T) {
	for name, c := range map[string]struct {
		subnet, within string
		taken          []string
		want           []string // "" is none left
	}{
		"in order":         {"10.0.0.0/24", "", nil, []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"}},
		"around taken":     {"10.0.0.0/24", "", []string{"10.0.0.1", "10.0.0.3"}, []string{"10.0.0.2", "10.0.0.4"}},
		"all":              {"10.0.0.0/30", "", nil, []string{"10.0.0.1", "10.0.0.2", ""}},
		"point to point":   {"10.0.0.0/31", "", nil, []string{"10.0.0.0", "10.0.0.1", ""}},
		"one":              {"10.0.0.7/32", "", nil, []string{"10.0.0.7", ""}},
		"range":            {"10.0.0.0/24", "10.0.0.64/31", nil, []string{"10.0.0.64", "10.0.0.65", ""}},
		"range at the end": {"10.0.0.0/24", "10.0.0.254/31", nil, []string{"10.0.0.254", ""}},
		"end of all":       {"255.255.255.252/30", "", nil, []string{"255.255.255.253", "255.255.255.254", ""}},
		"six":              {"fd00::/64", "", []string{"fd00::1"}, []string{"fd00::2", "fd00::3"}},
		"six, end of all":  {"ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127", "", nil, []string{"ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			within := netip.Prefix{}
			if c.within != "" {
				within = p(c.within)
			}
			pool, err := NewPool(p(c.subnet), within)
			if err != nil {
				t.Fatal(err)
			}
			for _, x := range c.taken {
				if err := pool.Take(a(x)); err != nil {
					t.Fatal(err)
				}
			}
			for _, want := range c.want {
				got, err := pool.Next()
				if want == "" {
					if !errors.Is(err, ErrFull) && !errors.Is(err, ErrFull6) {
						t.Errorf("got %s, %v; want none left", got, err)
					}
				} else if err != nil || got != a(want) {
					t.Errorf("got %s, %v; want %s", got, err, want)
				}
			}
		})
	}
}

// What was given back comes last.
func TestReuse(t *testing.T) {
	pool, err := NewPool(p("10.0.0.0/29"), netip.Prefix{})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[netip.Addr]bool{}
	for range 6 {
		x, err := pool.Next()
		if err != nil || seen[x] {
			t.Fatal(x, err)
		}
		seen[x] = true
		pool.Release(x)
		pool.Release(x)
	}
	if x, _ := pool.Next(); x != a("10.0.0.1") {
		t.Errorf("after all others: %s", x)
	}
}

func TestTake(t *testing.T) {
	pool, err := NewPool(p("10.0.0.0/24"), p("10.0.0.128/25"))
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]error{
		"10.0.0.0": ErrOutside, "10.0.0.255": ErrOutside, "10.0.1.1": ErrOutside, "fd00::1": ErrOutside,
		"10.0.0.5": nil, "::ffff:10.0.0.6": nil, "10.0.0.200": nil,
	} {
		if err := pool.Take(a(addr)); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", addr, err, want)
		}
	}
	if err := pool.Take(a("10.0.0.6")); !errors.Is(err, ErrInUse) {
		t.Errorf("taken twice: %v", err)
	}
	if _, err := NewPool(p("10.0.0.0/24"), p("10.0.0.0/16")); err == nil {
		t.Error("a range larger than the subnet was accepted")
	}
}

func TestChoose(t *testing.T) {
	supplies := []Supply{{p("172.18.0.0/15"), 24}, {p("192.168.0.0/23"), 24}}
	for name, c := range map[string]struct {
		used []string
		want string
	}{
		"first":              {nil, "172.18.0.0/24"},
		"default routes":     {[]string{"0.0.0.0/0", "::/0"}, "172.18.0.0/24"},
		"after ours":         {[]string{"172.18.0.0/24", "172.18.1.0/24"}, "172.18.2.0/24"},
		"around a large one": {[]string{"172.18.0.0/16"}, "172.19.0.0/24"},
		"around a host":      {[]string{"172.18.0.77/32"}, "172.18.1.0/24"},
		"next supply":        {[]string{"172.16.0.0/12"}, "192.168.0.0/24"},
		"none":               {[]string{"172.16.0.0/12", "192.168.0.0/16"}, ""},
	} {
		var used []netip.Prefix
		for _, u := range c.used {
			used = append(used, p(u))
		}
		got, err := Choose(supplies, used)
		if c.want == "" {
			if !errors.Is(err, ErrNoSubnets) {
				t.Errorf("%s: %s, %v", name, got, err)
			}
		} else if err != nil || got != p(c.want) {
			t.Errorf("%s: %s, %v; want %s", name, got, err, c.want)
		}
	}
}

// Subnets never overlap, however many are chosen, and every address that a
// pool gives is its own.
func FuzzChoose(f *testing.F) {
	f.Add([]byte{172, 18, 0, 0, 20, 10, 0, 0, 0, 8}, uint8(24))
	f.Add([]byte{172, 18, 5, 0, 32}, uint8(30))
	f.Fuzz(func(t *testing.T, raw []byte, size uint8) {
		s := []Supply{{p("172.18.0.0/20"), int(size)}}
		if s[0].Validate() != nil {
			return
		}
		var used []netip.Prefix
		for ; len(raw) >= 5 && len(used) < 50; raw = raw[5:] {
			if u, err := netip.AddrFrom4([4]byte(raw)).Prefix(int(raw[4]) % 33); err == nil {
				used = append(used, u)
			}
		}
		for range 40 {
			got, err := Choose(s, used)
			if err != nil {
				return
			}
			if Overlaps(got, used) || !s[0].Base.Overlaps(got) {
				t.Fatalf("%s of %v", got, used)
			}
			pool, err := NewPool(got, netip.Prefix{})
			if err != nil {
				t.Fatal(err)
			}
			if x, err := pool.Next(); err == nil && !got.Contains(x) {
				t.Fatalf("%s of %s", x, got)
			}
			used = append(used, got)
		}
	})
}
