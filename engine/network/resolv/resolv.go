// Package resolv reads resolv.conf and builds the resolv.conf and hosts files
// of containers. It is pure; its user is engine/network.
package resolv

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
)

// Conf is the content of a resolv.conf.
type Conf struct {
	Nameservers []netip.Addr
	Search      []string
	Options     []string
}

// The limits of resolver libraries; a longer file is cut.
const (
	maxLine = 4096
	maxList = 64
)

// Parse reads a resolv.conf as resolver libraries do: unknown lines and
// malformed addresses are passed over, the last search or domain line counts.
func Parse(b []byte) Conf {
	var c Conf
	for line := range bytes.Lines(b) {
		if len(line) > maxLine {
			continue
		}
		s := string(line)
		if i := strings.IndexAny(s, "#;"); i >= 0 {
			s = s[:i]
		}
		f := strings.Fields(s)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			if a, err := netip.ParseAddr(f[1]); err == nil && len(c.Nameservers) < maxList {
				c.Nameservers = append(c.Nameservers, a)
			}
		case "search", "domain":
			c.Search = f[1:min(len(f), maxList)]
		case "options":
			c.Options = append(c.Options, f[1:]...)
			c.Options = c.Options[:min(len(c.Options), maxList)]
		}
	}
	return c
}

// Bytes is the file.
func (c Conf) Bytes() []byte {
	var b bytes.Buffer
	for _, n := range c.Nameservers {
		b.WriteString("nameserver " + n.String() + "\n")
	}
	if len(c.Search) > 0 {
		b.WriteString("search " + strings.Join(c.Search, " ") + "\n")
	}
	if len(c.Options) > 0 {
		b.WriteString("options " + strings.Join(c.Options, " ") + "\n")
	}
	return b.Bytes()
}

// Merge applies what the user asked for to the host's settings: each list that
// the user gave replaces the host's. A search list of only "." means none.
func Merge(host Conf, dns []netip.Addr, search, options []string) Conf {
	c := Conf{Nameservers: slices.Clone(host.Nameservers), Search: slices.Clone(host.Search), Options: slices.Clone(host.Options)}
	if len(dns) > 0 {
		c.Nameservers = slices.Clone(dns)
	}
	if len(search) > 0 {
		c.Search = slices.Clone(search)
	}
	if len(c.Search) == 1 && c.Search[0] == "." {
		c.Search = nil
	}
	if len(options) > 0 {
		c.Options = slices.Clone(options)
	}
	return c
}

// WithoutLocal leaves out resolvers that a container cannot reach because they
// listen on the host's loopback.
func (c Conf) WithoutLocal() Conf {
	c.Nameservers = slices.DeleteFunc(slices.Clone(c.Nameservers), func(a netip.Addr) bool {
		return a.Unmap().IsLoopback() || a.IsUnspecified()
	})
	return c
}

// Internal is the file of a container that asks the engine's own server at
// addr: search and options are kept, and names with dots too few go to the
// search list only when the user said so.
func (c Conf) Internal(addr netip.Addr) Conf {
	c.Nameservers = []netip.Addr{addr}
	if !slices.ContainsFunc(c.Options, func(o string) bool { return strings.HasPrefix(o, "ndots:") }) {
		c.Options = append(slices.Clone(c.Options), "ndots:0")
	}
	return c
}

// Host is a line of the hosts file.
type Host struct {
	Addr  netip.Addr
	Names []string
}

// Hosts builds a hosts file: the fixed lines, those of the user, those of
// links, and the container's own, which come last as in Docker.
func Hosts(ipv6 bool, extra, links, own []Host) []byte {
	var b bytes.Buffer
	b.WriteString("127.0.0.1\tlocalhost\n")
	if ipv6 {
		b.WriteString("::1\tlocalhost ip6-localhost ip6-loopback\n" +
			"fe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n")
	}
	for _, group := range [][]Host{extra, links, own} {
		for _, h := range group {
			b.WriteString(h.Addr.String() + "\t" + strings.Join(h.Names, " ") + "\n")
		}
	}
	return b.Bytes()
}

// OwnNames are the names of a container in its own hosts file.
func OwnNames(hostname, domain string) []string {
	switch {
	case hostname == "":
		return nil
	case domain != "":
		return []string{hostname + "." + domain, hostname}
	}
	if short, _, ok := strings.Cut(hostname, "."); ok && short != "" {
		return []string{hostname, short}
	}
	return []string{hostname}
}
