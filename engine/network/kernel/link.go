package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// brportIsolated is IFLA_BRPORT_ISOLATED, which the libraries lack.
const brportIsolated = 33

func newLink(flags int) (Request, *nl.IfInfomsg) {
	r := nl.NewNetlinkRequest(unix.RTM_NEWLINK, flags)
	m := nl.NewIfInfomsg(unix.AF_UNSPEC)
	r.AddData(m)
	return r, m
}

func addString(r Request, typ int, s string) { r.AddData(nl.NewRtAttr(typ, nl.ZeroTerminated(s))) }
func addUint32(r Request, typ int, v uint32) { r.AddData(nl.NewRtAttr(typ, nl.Uint32Attr(v))) }

// LinkUp sets an interface up.
func LinkUp(index int) Request {
	r, m := newLink(0)
	m.Index, m.Flags, m.Change = int32(index), unix.IFF_UP, unix.IFF_UP
	return r
}

// Veth describes a pair: one end here, the other in a namespace.
type Veth struct {
	Host, Peer string // names
	Master     int    // index of the bridge; 0: none
	MTU        int    // 0: the kernel's
	MAC        net.HardwareAddr
	NS         int // descriptor of the peer's namespace
}

// Request makes the pair with one message: the host's end comes up as a port
// of its bridge; the peer comes down, with its final name, in its namespace.
func (v Veth) Request() Request {
	r, m := newLink(unix.NLM_F_CREATE | unix.NLM_F_EXCL)
	m.Flags, m.Change = unix.IFF_UP, unix.IFF_UP
	addString(r, unix.IFLA_IFNAME, v.Host)
	if v.MTU > 0 {
		addUint32(r, unix.IFLA_MTU, uint32(v.MTU))
	}
	if v.Master > 0 {
		addUint32(r, unix.IFLA_MASTER, uint32(v.Master))
	}
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("veth"))
	peer := info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.VETH_INFO_PEER, nil)
	peer.AddChild(nl.NewIfInfomsg(unix.AF_UNSPEC))
	peer.AddRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(v.Peer))
	if v.MTU > 0 {
		peer.AddRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(v.MTU)))
	}
	if v.MAC != nil {
		peer.AddRtAttr(unix.IFLA_ADDRESS, []byte(v.MAC))
	}
	peer.AddRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(v.NS)))
	r.AddData(info)
	return r
}

// SetPort sets a bridge port: hairpin sends frames back through the port that
// they came by, isolated keeps it from talking to other isolated ports.
func SetPort(name string, hairpin, isolated bool) Request {
	r, _ := newLink(0)
	addString(r, unix.IFLA_IFNAME, name)
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_SLAVE_KIND, nl.NonZeroTerminated("bridge"))
	data := info.AddRtAttr(nl.IFLA_INFO_SLAVE_DATA, nil)
	if hairpin {
		data.AddRtAttr(nl.IFLA_BRPORT_MODE, []byte{1})
	}
	if isolated {
		data.AddRtAttr(brportIsolated, []byte{1})
	}
	r.AddData(info)
	return r
}

// Macvlan describes an interface on top of a parent, made in a namespace.
type Macvlan struct {
	Name   string
	Parent int
	Mode   uint32 // a MacvlanMode
	MTU    int
	MAC    net.HardwareAddr
	NS     int
}

// The modes of a macvlan, as the kernel numbers them.
const (
	MacvlanPrivate  uint32 = 1
	MacvlanVEPA     uint32 = 2
	MacvlanBridge   uint32 = 4
	MacvlanPassthru uint32 = 8
)

// Request makes the interface, down.
func (v Macvlan) Request() Request {
	r, _ := newLink(unix.NLM_F_CREATE | unix.NLM_F_EXCL)
	addString(r, unix.IFLA_IFNAME, v.Name)
	addUint32(r, unix.IFLA_LINK, uint32(v.Parent))
	addUint32(r, unix.IFLA_NET_NS_FD, uint32(v.NS))
	if v.MTU > 0 {
		addUint32(r, unix.IFLA_MTU, uint32(v.MTU))
	}
	if v.MAC != nil {
		r.AddData(nl.NewRtAttr(unix.IFLA_ADDRESS, []byte(v.MAC)))
	}
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("macvlan"))
	info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.IFLA_MACVLAN_MODE, nl.Uint32Attr(v.Mode))
	r.AddData(info)
	return r
}

// NewVLAN makes the 802.1q interface parent.id, up.
func NewVLAN(name string, parent int, id uint16) Request {
	r, m := newLink(unix.NLM_F_CREATE | unix.NLM_F_EXCL)
	m.Flags, m.Change = unix.IFF_UP, unix.IFF_UP
	addString(r, unix.IFLA_IFNAME, name)
	addUint32(r, unix.IFLA_LINK, uint32(parent))
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("vlan"))
	info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.IFLA_VLAN_ID, nl.Uint16Attr(id))
	r.AddData(info)
	return r
}

// NewBridge makes a bridge, down, with an address of its own so that it does
// not change with its ports.
func NewBridge(name string, mac net.HardwareAddr, mtu int) Request {
	r, _ := newLink(unix.NLM_F_CREATE | unix.NLM_F_EXCL)
	addString(r, unix.IFLA_IFNAME, name)
	r.AddData(nl.NewRtAttr(unix.IFLA_ADDRESS, []byte(mac)))
	if mtu > 0 {
		addUint32(r, unix.IFLA_MTU, uint32(mtu))
	}
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
	r.AddData(info)
	return r
}

// DeleteLink removes an interface, and a veth's other end, by name.
func DeleteLink(name string) Request {
	r := nl.NewNetlinkRequest(unix.RTM_DELLINK, 0)
	r.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	addString(r, unix.IFLA_IFNAME, name)
	return r
}

// AddAddress gives an interface an address. IPv6 addresses skip duplicate
// detection: the allocator has made sure that they are unique.
func AddAddress(index int, p netip.Prefix) Request {
	return address(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, index, p)
}

func address(typ, flags, index int, p netip.Prefix) Request {
	r := nl.NewNetlinkRequest(typ, flags)
	m := nl.NewIfAddrmsg(family(p.Addr()))
	m.Prefixlen = uint8(p.Bits())
	m.Index = uint32(index)
	if p.Addr().Is6() {
		m.Flags = unix.IFA_F_NODAD
		if p.Addr().IsLinkLocalUnicast() {
			m.Scope = unix.RT_SCOPE_LINK
		}
	}
	r.AddData(m)
	b := p.Addr().AsSlice()
	r.AddData(nl.NewRtAttr(unix.IFA_LOCAL, b))
	r.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, b))
	if p.Addr().Is4() && p.Bits() < 31 {
		r.AddData(nl.NewRtAttr(unix.IFA_BROADCAST, Broadcast(p).AsSlice()))
	}
	return r
}

// Broadcast is the last address of an IPv4 prefix.
func Broadcast(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	v := binary.BigEndian.Uint32(b[:]) | uint32(1<<(32-p.Bits())-1)
	binary.BigEndian.PutUint32(b[:], v)
	return netip.AddrFrom4(b)
}

func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// AddRoute routes dst by way of gw (or directly, when gw is not valid) through
// the interface.
func AddRoute(index int, dst netip.Prefix, gw netip.Addr) Request {
	return route(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, index, dst, gw)
}

func route(typ, flags, index int, dst netip.Prefix, gw netip.Addr) Request {
	r := nl.NewNetlinkRequest(typ, flags)
	m := &nl.RtMsg{RtMsg: unix.RtMsg{
		Family: uint8(family(dst.Addr())), Dst_len: uint8(dst.Bits()), Table: unix.RT_TABLE_MAIN,
		Protocol: unix.RTPROT_STATIC, Type: unix.RTN_UNICAST, Scope: unix.RT_SCOPE_UNIVERSE,
	}}
	if !gw.IsValid() && dst.Addr().Is4() {
		m.Scope = unix.RT_SCOPE_LINK
	}
	r.AddData(m)
	if dst.Bits() > 0 {
		r.AddData(nl.NewRtAttr(unix.RTA_DST, dst.Addr().AsSlice()))
	}
	if gw.IsValid() {
		r.AddData(nl.NewRtAttr(unix.RTA_GATEWAY, gw.AsSlice()))
	}
	addUint32(r, unix.RTA_OIF, uint32(index))
	return r
}

// Link is what this package reads of an interface.
type Link struct {
	Index, MTU, Master int
	Name, Kind, Alias  string
	Up                 bool
	MAC                net.HardwareAddr
}

// ErrNoLink says that there is no interface of that name.
var ErrNoLink = errors.New("no such network interface")

// LinkByName looks an interface up.
func (c *Conn) LinkByName(name string) (Link, error) {
	r := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
	r.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	addString(r, unix.IFLA_IFNAME, name)
	var l Link
	err := c.Dump(r, func(_ uint16, data []byte) { l, _ = parseLink(data) })
	if errors.Is(err, unix.ENODEV) {
		return Link{}, fmt.Errorf("%w: %s", ErrNoLink, name)
	}
	if err != nil {
		return Link{}, fmt.Errorf("look up interface %s: %w", name, err)
	}
	return l, nil
}

// Links lists all interfaces.
func (c *Conn) Links() ([]Link, error) {
	r := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
	r.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	var all []Link
	err := c.Dump(r, func(_ uint16, data []byte) {
		if l, ok := parseLink(data); ok {
			all = append(all, l)
		}
	})
	return all, err
}

func parseLink(b []byte) (Link, bool) {
	if len(b) < unix.SizeofIfInfomsg {
		return Link{}, false
	}
	l := Link{Index: int(int32(binary.NativeEndian.Uint32(b[4:]))), Up: binary.NativeEndian.Uint32(b[8:])&unix.IFF_UP != 0}
	attributes(b[unix.SizeofIfInfomsg:], func(typ uint16, v []byte) {
		switch {
		case typ == unix.IFLA_IFNAME:
			l.Name = text(v)
		case typ == unix.IFLA_IFALIAS:
			l.Alias = text(v)
		case typ == unix.IFLA_ADDRESS:
			l.MAC = append(net.HardwareAddr(nil), v...)
		case typ == unix.IFLA_MTU && len(v) == 4:
			l.MTU = int(binary.NativeEndian.Uint32(v))
		case typ == unix.IFLA_MASTER && len(v) == 4:
			l.Master = int(binary.NativeEndian.Uint32(v))
		case typ == unix.IFLA_LINKINFO:
			attributes(v, func(typ uint16, v []byte) {
				if typ == nl.IFLA_INFO_KIND {
					l.Kind = text(v)
				}
			})
		}
	})
	return l, true
}

// Address is an address of an interface.
type Address struct {
	Index  int
	Prefix netip.Prefix
}

// Addresses lists all addresses of the namespace.
func (c *Conn) Addresses() ([]Address, error) {
	r := nl.NewNetlinkRequest(unix.RTM_GETADDR, unix.NLM_F_DUMP)
	r.AddData(nl.NewIfAddrmsg(unix.AF_UNSPEC))
	var all []Address
	err := c.Dump(r, func(_ uint16, b []byte) {
		if len(b) < unix.SizeofIfAddrmsg {
			return
		}
		a := Address{Index: int(binary.NativeEndian.Uint32(b[4:]))}
		bits := int(b[1])
		attributes(b[unix.SizeofIfAddrmsg:], func(typ uint16, v []byte) {
			addr, ok := netip.AddrFromSlice(v)
			if ok && (typ == unix.IFA_LOCAL || typ == unix.IFA_ADDRESS && !a.Prefix.IsValid()) {
				a.Prefix = netip.PrefixFrom(addr, bits)
			}
		})
		if a.Prefix.IsValid() {
			all = append(all, a)
		}
	})
	return all, err
}

// Route is a route of the main tables.
type Route struct {
	Index   int
	Dst     netip.Prefix
	Gateway netip.Addr
}

// Routes lists the unicast routes of the namespace, default routes included.
func (c *Conn) Routes() ([]Route, error) {
	var all []Route
	for _, fam := range []int{unix.AF_INET, unix.AF_INET6} {
		r := nl.NewNetlinkRequest(unix.RTM_GETROUTE, unix.NLM_F_DUMP)
		r.AddData(&nl.RtMsg{RtMsg: unix.RtMsg{Family: uint8(fam)}})
		err := c.Dump(r, func(_ uint16, b []byte) {
			if rt, ok := parseRoute(fam, b); ok {
				all = append(all, rt)
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

func parseRoute(fam int, b []byte) (Route, bool) {
	if len(b) < unix.SizeofRtMsg || b[7] != unix.RTN_UNICAST {
		return Route{}, false
	}
	var rt Route
	dst := netip.IPv4Unspecified()
	if fam == unix.AF_INET6 {
		dst = netip.IPv6Unspecified()
	}
	bits := int(b[1])
	attributes(b[unix.SizeofRtMsg:], func(typ uint16, v []byte) {
		switch typ {
		case unix.RTA_DST:
			if a, ok := netip.AddrFromSlice(v); ok {
				dst = a
			}
		case unix.RTA_GATEWAY:
			rt.Gateway, _ = netip.AddrFromSlice(v)
		case unix.RTA_OIF:
			if len(v) == 4 {
				rt.Index = int(binary.NativeEndian.Uint32(v))
			}
		}
	})
	rt.Dst = netip.PrefixFrom(dst, bits)
	return rt, rt.Dst.IsValid()
}
