// Package rules owns the packet rules of engine/network: one nftables table in
// the host's namespace and a small one in each namespace with name resolution.
//
// The rules themselves never change: they look things up in sets and maps, so
// that publishing a port or adding a network is adding elements. plan.go holds
// the table as data and is pure; Table applies it, keeps what it should
// contain in memory, and puts it back when another program removes a part of
// it. Tables of others are neither read nor changed.
package rules
