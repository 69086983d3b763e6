package kernel

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ForgetUDP removes the connection tracking entries of UDP flows to a port of
// this host, in the calling thread's namespace.
func ForgetUDP(to netip.AddrPort) error {
	f := &netlink.ConntrackFilter{}
	if err := f.AddProtocol(unix.IPPROTO_UDP); err != nil {
		return err
	}
	if err := f.AddPort(netlink.ConntrackOrigDstPort, to.Port()); err != nil {
		return err
	}
	if a := to.Addr(); !a.IsUnspecified() {
		if err := f.AddIP(netlink.ConntrackOrigDstIP, a.AsSlice()); err != nil {
			return err
		}
	}
	var family netlink.InetFamily = unix.AF_INET
	if to.Addr().Is6() {
		family = unix.AF_INET6
	}
	if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, f); err != nil {
		return fmt.Errorf("forget flows to %s: %w", to, err)
	}
	return nil
}
