// Package network gives containers and pods their networks: bridges, addresses,
// published ports, name resolution and isolation, with netlink, one nftables
// table of our own and an embedded DNS server. engine/container and engine/cri
// are its users.
//
// A sandbox is one network namespace. What the manager knows is on disk before
// it acts, so that Restore after a crash can adopt what lives and remove what
// does not.
package network
