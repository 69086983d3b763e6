package rules

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Bridge is what the table knows of a network.
type Bridge struct {
	Name       string
	Masquerade bool // what leaves gets the host's address
	Internal   bool // nothing enters or leaves
	Quiet      bool // its containers do not talk to each other
}

// Publish is one port of the host that leads to a container.
type Publish struct {
	Proto  uint8          // unix.IPPROTO_TCP or UDP
	Host   netip.AddrPort // an unspecified address means every address of the host
	Target netip.AddrPort // of the same family
}

// The sets and maps of the table.
const (
	setBridges  = "bridges"
	setMasq     = "masquerade"
	setInternal = "internal"
	setSame     = "same"
	setQuiet    = "quiet"
	mapDNAT4    = "dnat4"
	mapAny4     = "dnat4_any"
	mapDNAT6    = "dnat6"
	mapAny6     = "dnat6_any"
)

type setPlan struct {
	name      string
	key, data []nftables.SetDatatype
}

func sets() []setPlan {
	ifname, proto, port := nftables.TypeIFName, nftables.TypeInetProto, nftables.TypeInetService
	ip4, ip6 := nftables.TypeIPAddr, nftables.TypeIP6Addr
	type dt = []nftables.SetDatatype
	return []setPlan{
		{setBridges, dt{ifname}, nil},
		{setMasq, dt{ifname}, nil},
		{setInternal, dt{ifname}, nil},
		{setQuiet, dt{ifname}, nil},
		{setSame, dt{ifname, ifname}, nil},
		{mapDNAT4, dt{proto, ip4, port}, dt{ip4, port}},
		{mapAny4, dt{proto, port}, dt{ip4, port}},
		{mapDNAT6, dt{proto, ip6, port}, dt{ip6, port}},
		{mapAny6, dt{proto, port}, dt{ip6, port}},
	}
}

type chainPlan struct {
	name     string
	typ      nftables.ChainType
	hook     *nftables.ChainHook
	priority int
	rules    [][]expr.Any
}

// chains is the whole rule set.
func chains() []chainPlan {
	translate := join(dnat4(), dnat6())
	return []chainPlan{
		// What comes from a wire must not claim to be for the loopback: ports
		// published on 127.0.0.1 are for this host alone.
		{"raw", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, -300, [][]expr.Any{
			seq(ifname(expr.MetaKeyIIFNAME), cmp(expr.CmpOpNeq, name16("lo")), family(unix.NFPROTO_IPV4),
				network(16, 1), cmp(expr.CmpOpEq, []byte{127}), verdict(expr.VerdictDrop)),
		}},
		// Containers that must not talk to each other reach a neighbour's
		// published port by the daemon: their bridge ports are isolated, and
		// with br_netfilter a translated frame would go straight to one.
		{"prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, -100, join([][]expr.Any{
			seq(ifname(expr.MetaKeyIIFNAME), in(setQuiet), verdict(expr.VerdictAccept)),
		}, translate)},
		{"output", nftables.ChainTypeNAT, nftables.ChainHookOutput, -100, translate},
		{"postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, 100, [][]expr.Any{
			// A container that reaches a neighbour by a published port: the
			// answer must come back this way.
			seq(sameBridge(), translated(), masquerade()),
			seq(sameBridge(), verdict(expr.VerdictAccept)),
			seq(ifname(expr.MetaKeyIIFNAME), in(setMasq), masquerade()),
			// This host itself, whose 127.0.0.1 means nothing elsewhere; and,
			// with br_netfilter, a container that reaches itself: a bridged
			// frame has no input interface here.
			seq(list(&expr.Meta{Key: expr.MetaKeyIIF, Register: unix.NFT_REG_1}), cmp(expr.CmpOpEq, native32(0)),
				ifname(expr.MetaKeyOIFNAME), in(setBridges), translated(), masquerade()),
		}},
		{"forward", nftables.ChainTypeFilter, nftables.ChainHookForward, 0, [][]expr.Any{
			seq(ctBits(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), verdict(expr.VerdictAccept)),
			seq(sameBridge(), verdict(expr.VerdictAccept)),
			seq(ifname(expr.MetaKeyIIFNAME), in(setInternal), verdict(expr.VerdictDrop)),
			seq(ifname(expr.MetaKeyOIFNAME), in(setInternal), verdict(expr.VerdictDrop)),
			seq(translated(), verdict(expr.VerdictAccept)),
			// Neither other networks nor other hosts reach what is not published.
			seq(ifname(expr.MetaKeyOIFNAME), in(setBridges), verdict(expr.VerdictDrop)),
		}},
	}
}

// dnat4 looks a packet up by (protocol, address, port), then by (protocol,
// port) if the address is this host's.
func dnat4() [][]expr.Any {
	nat := &expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: unix.NFT_REG_1, RegProtoMin: unix.NFT_REG32_01}
	return [][]expr.Any{
		seq(family(unix.NFPROTO_IPV4), l4proto(), load(unix.NFT_REG32_01, expr.PayloadBaseNetworkHeader, 16, 4),
			load(unix.NFT_REG32_02, expr.PayloadBaseTransportHeader, 2, 2), lookup(mapDNAT4), list(nat)),
		seq(family(unix.NFPROTO_IPV4), local(), l4proto(), load(unix.NFT_REG32_01, expr.PayloadBaseTransportHeader, 2, 2),
			lookup(mapAny4), list(nat)),
	}
}

// dnat6 is the same for IPv6. ::1 is left out: the kernel routes nothing from
// it to a bridge, so the daemon's own listener serves it.
func dnat6() [][]expr.Any {
	nat := &expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV6, RegAddrMin: unix.NFT_REG_1, RegProtoMin: unix.NFT_REG_2}
	six := seq(family(unix.NFPROTO_IPV6), network6(24), cmp(expr.CmpOpNeq, netip.IPv6Loopback().AsSlice()))
	return [][]expr.Any{
		seq(six, l4proto(), load(unix.NFT_REG32_01, expr.PayloadBaseNetworkHeader, 24, 16),
			load(unix.NFT_REG32_05, expr.PayloadBaseTransportHeader, 2, 2), lookup(mapDNAT6), list(nat)),
		seq(six, local(), l4proto(), load(unix.NFT_REG32_01, expr.PayloadBaseTransportHeader, 2, 2),
			lookup(mapAny6), list(nat)),
	}
}

// The pieces of rules. All use the first 32-bit registers (NFT_REG_1).

func seq(parts ...[]expr.Any) []expr.Any {
	var all []expr.Any
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func join(parts ...[][]expr.Any) [][]expr.Any {
	var all [][]expr.Any
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func list(e ...expr.Any) []expr.Any { return e }

func family(f byte) []expr.Any {
	return list(&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: unix.NFT_REG_1}, &expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte{f}})
}

func ifname(key expr.MetaKey) []expr.Any { return list(&expr.Meta{Key: key, Register: unix.NFT_REG_1}) }

func cmp(op expr.CmpOp, data []byte) []expr.Any {
	return list(&expr.Cmp{Op: op, Register: unix.NFT_REG_1, Data: data})
}

func load(reg uint32, base expr.PayloadBase, offset, length uint32) []expr.Any {
	return list(&expr.Payload{DestRegister: reg, Base: base, Offset: offset, Len: length})
}

func network(offset, length uint32) []expr.Any {
	return load(unix.NFT_REG_1, expr.PayloadBaseNetworkHeader, offset, length)
}

func network6(offset uint32) []expr.Any { return network(offset, 16) }

func l4proto() []expr.Any {
	return list(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: unix.NFT_REG_1})
}

func in(set string) []expr.Any {
	return list(&expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: set})
}

func lookup(m string) []expr.Any {
	return list(&expr.Lookup{SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, IsDestRegSet: true, SetName: m})
}

func sameBridge() []expr.Any {
	return seq(ifname(expr.MetaKeyIIFNAME), list(&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: unix.NFT_REG_2}), in(setSame))
}

func local() []expr.Any {
	return list(&expr.Fib{Register: unix.NFT_REG_1, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: native32(unix.RTN_LOCAL)})
}

// dnatStatus is IPS_DST_NAT of the kernel's connection tracking.
const dnatStatus = 1 << 5

func translated() []expr.Any { return ctBits(expr.CtKeySTATUS, dnatStatus) }

func ctBits(key expr.CtKey, bits uint32) []expr.Any {
	return list(&expr.Ct{Key: key, Register: unix.NFT_REG_1},
		&expr.Bitwise{SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: 4, Mask: native32(bits), Xor: native32(0)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: unix.NFT_REG_1, Data: native32(0)})
}

func masquerade() []expr.Any { return list(&expr.Masq{}) }

func verdict(k expr.VerdictKind) []expr.Any { return list(&expr.Verdict{Kind: k}) }

func native32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

func name16(s string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, s)
	return b
}

// elements are the set elements of one bridge.
func (b Bridge) elements() map[string][]nftables.SetElement {
	n := name16(b.Name)
	m := map[string][]nftables.SetElement{
		setBridges: {{Key: n}},
		setSame:    {{Key: append(name16(b.Name), n...)}},
	}
	if b.Masquerade {
		m[setMasq] = []nftables.SetElement{{Key: n}}
	}
	if b.Quiet {
		m[setQuiet] = []nftables.SetElement{{Key: n}}
	}
	if b.Internal {
		m[setInternal] = []nftables.SetElement{{Key: n}}
	}
	return m
}

// element is the map element of one published port and the map it belongs to.
func (p Publish) element() (string, nftables.SetElement) {
	key := []byte{p.Proto, 0, 0, 0}
	m := mapAny4
	if p.Target.Addr().Is6() {
		m = mapAny6
	}
	if !p.Host.Addr().IsUnspecified() {
		key = append(key, p.Host.Addr().AsSlice()...)
		if m = mapDNAT4; p.Target.Addr().Is6() {
			m = mapDNAT6
		}
	}
	key = append(key, port4(p.Host.Port())...)
	return m, nftables.SetElement{Key: key, Val: append(p.Target.Addr().AsSlice(), port4(p.Target.Port())...)}
}

// port4 is a port in network order, padded to a register.
func port4(p uint16) []byte { return []byte{byte(p >> 8), byte(p), 0, 0} }
