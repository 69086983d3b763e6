package network

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// udpIdle is how long a UDP peer is remembered, udpPeers how many at most.
const (
	udpIdle  = 90 * time.Second
	udpPeers = 4096
)

func (h *hold) listenUDP() error {
	l, err := net.ListenUDP(family("udp", h.Host.Addr()), net.UDPAddrFromAddrPort(h.Host))
	if err != nil {
		return err
	}
	if h.Host.Addr().IsUnspecified() {
		if err := askForLocal(l, h.Host.Addr().Is6()); err != nil {
			return errors.Join(err, l.Close())
		}
	}
	o := &open{all: map[net.Conn]struct{}{}}
	o.wg.Go(func() { h.passUDP(o, l) })
	h.Host = netip.AddrPortFrom(h.Host.Addr(), l.LocalAddr().(*net.UDPAddr).AddrPort().Port())
	h.close = func() error {
		err := l.Close()
		o.end()
		return err
	}
	return nil
}

// askForLocal makes the kernel say which of the host's addresses a datagram
// was sent to: the answer must come from the same.
func askForLocal(l *net.UDPConn, six bool) error {
	raw, err := l.SyscallConn()
	if err != nil {
		return err
	}
	level, opt := unix.IPPROTO_IP, unix.IP_PKTINFO
	if six {
		level, opt = unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO
	}
	return errors.Join(raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, opt, 1) }), err)
}

// udpPeer is who sent a datagram, to which address (as the control message with
// which an answer is sent from there), and who answers.
type udpPeer struct {
	from   netip.AddrPort
	local  string
	target netip.AddrPort
}

func (h *hold) passUDP(o *open, l *net.UDPConn) {
	var mu sync.Mutex
	peers := map[udpPeer]*net.UDPConn{}
	buf, oob := make([]byte, 64<<10), make([]byte, 128)
	for {
		n, oobn, _, from, err := l.ReadMsgUDPAddrPort(buf, oob)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		to := h.target.Load()
		if err != nil || !to.IsValid() {
			continue
		}
		key := udpPeer{from, answerFrom(oob[:oobn]), *to}
		mu.Lock()
		c, many := peers[key], len(peers) >= udpPeers
		mu.Unlock()
		if c == nil {
			if many {
				continue // a flood; datagrams may be lost
			}
			if c, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(*to)); err != nil {
				continue
			}
			if !o.add(c) {
				_ = c.Close() // the relay ends
				return
			}
			mu.Lock()
			peers[key] = c
			mu.Unlock()
			o.wg.Go(func() {
				answerUDP(l, c, key)
				mu.Lock()
				delete(peers, key)
				mu.Unlock()
				o.remove(c)
			})
		}
		// Datagrams may be lost; so may this one.
		_, _ = c.Write(buf[:n])
	}
}

// answerUDP passes answers back until none has come for a while.
func answerUDP(l, c *net.UDPConn, to udpPeer) {
	buf := make([]byte, 64<<10)
	for {
		if c.SetReadDeadline(time.Now().Add(udpIdle)) != nil {
			return
		}
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		if _, _, err := l.WriteMsgUDPAddrPort(buf[:n], []byte(to.local), to.from); err != nil {
			return
		}
	}
}

// answerFrom turns the control message of a received datagram into the one
// that sends from the address it came to; "" leaves the choice to the kernel.
func answerFrom(oob []byte) string {
	all, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return ""
	}
	for _, c := range all {
		switch {
		case c.Header.Level == unix.IPPROTO_IP && c.Header.Type == unix.IP_PKTINFO && len(c.Data) >= unix.SizeofInet4Pktinfo:
			// index, spec_dst, addr: no index, so that the route decides.
			return controlMessage(unix.IPPROTO_IP, unix.IP_PKTINFO, append(make([]byte, 4), append(c.Data[4:8:8], 0, 0, 0, 0)...))
		case c.Header.Level == unix.IPPROTO_IPV6 && c.Header.Type == unix.IPV6_PKTINFO && len(c.Data) >= unix.SizeofInet6Pktinfo:
			data := append([]byte(nil), c.Data[:unix.SizeofInet6Pktinfo]...)
			if a := netip.AddrFrom16([16]byte(data[:16])); !a.IsLinkLocalUnicast() {
				clear(data[16:])
			}
			return controlMessage(unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, data)
		}
	}
	return ""
}

func controlMessage(level, typ int32, data []byte) string {
	b := make([]byte, unix.CmsgSpace(len(data)))
	head := unix.CmsgLen(0)
	if head == 16 { // 64 bits
		binary.NativeEndian.PutUint64(b, uint64(unix.CmsgLen(len(data))))
	} else {
		binary.NativeEndian.PutUint32(b, uint32(unix.CmsgLen(len(data))))
	}
	binary.NativeEndian.PutUint32(b[head-8:], uint32(level))
	binary.NativeEndian.PutUint32(b[head-4:], uint32(typ))
	copy(b[head:], data)
	return string(b)
}
