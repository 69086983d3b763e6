// Package ipam decides which subnets networks get and which addresses their
// endpoints get. It is pure: it knows neither disk nor kernel. Its user is
// engine/network, which holds a lock around every call.
package ipam

import (
	"errors"
	"fmt"
	"net/netip"
)

// Docker's words for what can go wrong.
var (
	ErrInUse     = errors.New("Address already in use") //nolint:staticcheck // Docker's words
	ErrFull      = errors.New("no available IPv4 addresses on this network's address pools")
	ErrFull6     = errors.New("no available IPv6 addresses on this network's address pools")
	ErrOutside   = errors.New("Requested address is out of range") //nolint:staticcheck // Docker's words
	ErrNoSubnets = errors.New("all predefined address pools have been fully subnetted")
)

// Pool hands out the addresses of one subnet. An address given back is handed
// out again only after all others, so that a peer's stale neighbour or
// connection entries do not meet a new container.
type Pool struct {
	subnet, within netip.Prefix
	used           map[netip.Addr]struct{}
	next           netip.Addr
}

// NewPool returns the pool of subnet. Next takes addresses out of within, which
// may be the zero Prefix for the whole subnet.
func NewPool(subnet, within netip.Prefix) (*Pool, error) {
	if !within.IsValid() {
		within = subnet
	}
	subnet, within = subnet.Masked(), within.Masked()
	if !subnet.Contains(within.Addr()) || within.Bits() < subnet.Bits() {
		return nil, fmt.Errorf("invalid ip-range %s: it is not a part of subnet %s", within, subnet)
	}
	return &Pool{subnet: subnet, within: within, used: make(map[netip.Addr]struct{}), next: within.Addr()}, nil
}

// Subnet is the whole pool.
func (p *Pool) Subnet() netip.Prefix { return p.subnet }

// Contains says whether the address is one of the subnet's.
func (p *Pool) Contains(a netip.Addr) bool { return p.subnet.Contains(a) }

// Used counts the addresses taken.
func (p *Pool) Used() int { return len(p.used) }

// Take reserves one address. Outside gives ErrOutside, taken ErrInUse.
func (p *Pool) Take(a netip.Addr) error {
	a = a.Unmap()
	if !p.usable(a) {
		return ErrOutside
	}
	if _, ok := p.used[a]; ok {
		return ErrInUse
	}
	p.used[a] = struct{}{}
	return nil
}

// Next reserves a free address.
func (p *Pool) Next() (netip.Addr, error) {
	a := p.next
	for range p.tries() {
		if !a.IsValid() || !p.within.Contains(a) {
			a = p.within.Addr()
		}
		if _, ok := p.used[a]; !ok && p.usable(a) {
			p.used[a] = struct{}{}
			p.next = a.Next()
			return a, nil
		}
		a = a.Next()
	}
	if p.subnet.Addr().Is6() {
		return netip.Addr{}, ErrFull6
	}
	return netip.Addr{}, ErrFull
}

// tries is after how many looks at most a free address has been seen.
func (p *Pool) tries() int {
	host := p.within.Addr().BitLen() - p.within.Bits()
	most := len(p.used) + 3 // taken, network and broadcast address, one more
	if host < 31 {
		return min(most, 1<<host)
	}
	return most
}

// Release gives an address back; it is safe to repeat.
func (p *Pool) Release(a netip.Addr) { delete(p.used, a.Unmap()) }

func (p *Pool) usable(a netip.Addr) bool {
	if !p.subnet.Contains(a) {
		return false
	}
	host := p.subnet.Addr().BitLen() - p.subnet.Bits()
	if host < 2 { // point to point: every address is a host's
		return true
	}
	if a == p.subnet.Addr() { // network address, or the routers' anycast
		return false
	}
	return a.Is6() || a != Last(p.subnet)
}

// First is the first address of a subnet that a host can have: the gateway's
// by custom.
func First(p netip.Prefix) netip.Addr {
	p = p.Masked()
	if p.Addr().BitLen()-p.Bits() < 2 {
		return p.Addr()
	}
	return p.Addr().Next()
}

// Last is the last address of a subnet.
func Last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := range b {
		for bit := range 8 {
			if i*8+bit >= p.Bits() {
				b[i] |= 0x80 >> bit
			}
		}
	}
	a, _ := netip.AddrFromSlice(b) // as long as it was
	return a
}

// Supply is a range of addresses cut into subnets of one size.
type Supply struct {
	Base netip.Prefix `yaml:"base" json:"base"`
	Size int          `yaml:"size" json:"size"`
}

// Validate refuses what cannot be cut.
func (s Supply) Validate() error {
	if !s.Base.IsValid() || s.Size < s.Base.Bits() || s.Size > s.Base.Addr().BitLen() {
		return fmt.Errorf("address pool: base %s cannot be cut into subnets of size %d", s.Base, s.Size)
	}
	return nil
}

// Choose returns the first subnet of the supplies that overlaps nothing in use.
func Choose(supplies []Supply, used []netip.Prefix) (netip.Prefix, error) {
	for _, s := range supplies {
		base := s.Base.Masked()
		for a := base.Addr(); base.Contains(a); {
			candidate := netip.PrefixFrom(a, s.Size)
			other, clash := overlap(candidate, used)
			if !clash {
				return candidate, nil
			}
			// Go on after whichever is the larger: skipping whole foreign
			// networks keeps this short however small the subnets are.
			if other.Bits() < s.Size {
				candidate = other.Masked()
			}
			a = Last(candidate).Next()
			if !a.IsValid() {
				break
			}
		}
	}
	return netip.Prefix{}, ErrNoSubnets
}

// Overlaps says whether a prefix shares addresses with one in use. Default
// routes do not count.
func Overlaps(p netip.Prefix, used []netip.Prefix) bool {
	_, ok := overlap(p, used)
	return ok
}

func overlap(p netip.Prefix, used []netip.Prefix) (netip.Prefix, bool) {
	for _, u := range used {
		if u.Bits() > 0 && u.Overlaps(p) {
			return u, true
		}
	}
	return netip.Prefix{}, false
}
