package rules

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// RedirectDNS makes port 53 of addr lead to the given ports of the same
// address, in the calling thread's namespace, so that port 53 of every address
// stays free for the container. With again it replaces what an earlier call
// made, which takes the kernel some 10 ms more: it waits for all processors
// before a table is forgotten.
func RedirectDNS(table string, addr netip.Addr, udp, tcp uint16, again bool) (err error) {
	conn, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	defer func() { err = errors.Join(err, conn.CloseLasting()) }()
	tab := &nftables.Table{Name: table, Family: nftables.TableFamilyIPv4}
	conn.AddTable(tab)
	if again {
		conn.DelTable(tab)
		conn.AddTable(tab)
	}
	accept := nftables.ChainPolicyAccept
	chain := conn.AddChain(&nftables.Chain{
		Name: "output", Table: tab, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookOutput,
		Priority: nftables.ChainPriorityNATDest, Policy: &accept,
	})
	for proto, port := range map[byte]uint16{unix.IPPROTO_UDP: udp, unix.IPPROTO_TCP: tcp} {
		conn.AddRule(&nftables.Rule{Table: tab, Chain: chain, Exprs: seq(
			network(16, 4), cmp(expr.CmpOpEq, addr.AsSlice()),
			l4proto(), cmp(expr.CmpOpEq, []byte{proto}),
			load(unix.NFT_REG_1, expr.PayloadBaseTransportHeader, 2, 2), cmp(expr.CmpOpEq, []byte{0, 53}),
			list(&expr.Immediate{Register: unix.NFT_REG_1, Data: addr.AsSlice()},
				&expr.Immediate{Register: unix.NFT_REG_2, Data: port4(port)[:2]},
				&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: unix.NFT_REG_1, RegProtoMin: unix.NFT_REG_2}),
		)})
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("write nftables table %s: %w", table, err)
	}
	return nil
}
