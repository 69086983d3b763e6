package network

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/cleatlabs/cleat/engine/network/ipam"
)

// Config of the Manager.
type Config struct {
	// Root keeps the networks, Run the namespaces.
	Root string `yaml:"root"`
	Run  string `yaml:"run"`
	// Bridge is the interface of the default network. Default "cleat0".
	Bridge string `yaml:"bridge"`
	// Subnet is the default network's. Default 172.17.0.0/16, or the first
	// free one of Pools where that is taken.
	Subnet netip.Prefix `yaml:"subnet"`
	// Table is the name of our nftables table. Default "cleat".
	Table string `yaml:"table"`
	// Pools are where networks without a subnet of their own get one. The
	// default gives 254 addresses to each, so that thousands of networks fit
	// beside the host's own routes.
	Pools []ipam.Supply `yaml:"pools"`
	// MTU of networks that name none; 0 is the kernel's.
	MTU int `yaml:"mtu"`
	// BindAddress is where ports are published that name no address of the
	// host. Default 0.0.0.0, every address.
	BindAddress netip.Addr `yaml:"bindAddress"`
	// ResolvConf is the host's. Default /etc/resolv.conf.
	ResolvConf string `yaml:"resolvConf"`
	// Spares is how many namespaces are made ahead of need, 0 or 1. Default 1;
	// -1 for none.
	Spares int `yaml:"spares"`
	// FallbackDNS is for containers on the default network when the host has
	// only resolvers on its own loopback. Default 8.8.8.8 and 8.8.4.4, as in
	// Docker.
	FallbackDNS []netip.Addr `yaml:"fallbackDNS"`
}

// Validate fills defaults and refuses what cannot work.
func (c *Config) Validate() error {
	if !filepath.IsAbs(c.Root) || !filepath.IsAbs(c.Run) {
		return errors.New("root and run must be absolute paths")
	}
	for p, v := range map[*string]string{&c.Bridge: "cleat0", &c.Table: "cleat", &c.ResolvConf: "/etc/resolv.conf"} {
		if *p == "" {
			*p = v
		}
	}
	if len(c.Bridge) > maxIfname {
		return fmt.Errorf("bridge: %q is longer than %d characters", c.Bridge, maxIfname)
	}
	if !c.BindAddress.IsValid() {
		c.BindAddress = netip.IPv4Unspecified()
	}
	if c.Pools == nil {
		for _, base := range []string{"172.18.0.0/15", "172.20.0.0/14", "172.24.0.0/13", "192.168.0.0/16"} {
			c.Pools = append(c.Pools, ipam.Supply{Base: netip.MustParsePrefix(base), Size: 24})
		}
		c.Pools = append(c.Pools, ipam.Supply{Base: c.privateV6(), Size: 64})
	}
	switch {
	case c.Spares == 0:
		c.Spares = 1
	case c.Spares < -1 || c.Spares > 1:
		return fmt.Errorf("spares: %d is not 1, or -1 for none", c.Spares)
	}
	if c.FallbackDNS == nil {
		c.FallbackDNS = []netip.Addr{netip.AddrFrom4([4]byte{8, 8, 8, 8}), netip.AddrFrom4([4]byte{8, 8, 4, 4})}
	}
	for _, p := range c.Pools {
		if err := p.Validate(); err != nil {
			return err
		}
	}
	if c.MTU < 0 || c.MTU > 65535 {
		return fmt.Errorf("mtu: %d is not between 0 and 65535", c.MTU)
	}
	return nil
}

// privateV6 is this daemon's own /48 of the unique local range (RFC 4193),
// the same at every start.
func (c *Config) privateV6() netip.Prefix {
	sum := sha256.Sum256([]byte("cleat network " + c.Root))
	var a [16]byte
	a[0] = 0xfd
	copy(a[1:6], sum[:])
	return netip.PrefixFrom(netip.AddrFrom16(a), 48)
}

// supplies are the pools of one family.
func (c *Config) supplies(v6 bool) []ipam.Supply {
	var s []ipam.Supply
	for _, p := range c.Pools {
		if p.Base.Addr().Is6() == v6 {
			s = append(s, p)
		}
	}
	return s
}

// maxIfname is the longest name of an interface (IFNAMSIZ less the NUL).
const maxIfname = 15
