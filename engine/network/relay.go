package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

// relay is a port that the daemon passes on itself: IPv6 addresses of the host
// to containers, which packet rules cannot do for ::1, nor for containers that
// have only IPv4.
type relay struct {
	Proto        uint8
	Host, Target netip.AddrPort
}

// hold keeps a port of the host from being taken by others, and may relay.
type hold struct {
	at    netip.AddrPort
	close func() error
}

func haveV6() bool {
	_, err := os.Stat("/proc/sys/net/ipv6")
	return err == nil
}

func portKey(proto uint8, at netip.AddrPort) string { return fmt.Sprintf("%d %s", proto, at) }

// claim records the port as the sandbox's; the words for a port of another
// container are Docker's.
func (m *Manager) claim(id string, proto uint8, at netip.AddrPort) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if other, ok := m.held[portKey(proto, at)]; ok && other != id {
		return errdefs.WithHint(errdefs.Conflictf("Bind for %s failed: port is already allocated", at),
			"another container publishes it: see `cleat ps`, or publish another port")
	}
	m.held[portKey(proto, at)] = id
	return nil
}

func (m *Manager) unclaim(proto uint8, at netip.AddrPort) {
	m.mu.Lock()
	delete(m.held, portKey(proto, at))
	m.mu.Unlock()
}

func bindError(at netip.AddrPort, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return errdefs.WithHint(errdefs.Conflictf("failed to bind host port %s: address already in use", at),
			"another program listens there; publish another port")
	}
	if errors.Is(err, syscall.EADDRNOTAVAIL) {
		return errdefs.Invalidf("failed to bind host port %s: cannot assign requested address", at)
	}
	return fmt.Errorf("failed to bind host port %s: %w", at, err)
}

// hold binds an IPv4 port without listening: packets never reach it, because
// the rules translate them first.
func (m *Manager) hold(id string, proto uint8, at netip.AddrPort) (*hold, error) {
	if at.Port() != 0 {
		if err := m.claim(id, proto, at); err != nil {
			return nil, err
		}
	}
	typ := unix.SOCK_STREAM
	if proto == unix.IPPROTO_UDP {
		typ = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(unix.AF_INET, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err = unix.Bind(fd, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}); err == nil {
		var sa unix.Sockaddr
		if sa, err = unix.Getsockname(fd); err == nil {
			if in, ok := sa.(*unix.SockaddrInet4); ok {
				got := netip.AddrPortFrom(at.Addr(), uint16(in.Port))
				if at.Port() == 0 {
					err = m.claim(id, proto, got)
				}
				at = got
			}
		}
	}
	if err != nil {
		m.unclaim(proto, at)
		return nil, errors.Join(bindError(at, err), unix.Close(fd))
	}
	return &hold{at: at, close: func() error {
		m.unclaim(proto, at)
		return unix.Close(fd)
	}}, nil
}

// relay listens on an IPv6 port and passes on what comes.
func (m *Manager) relay(id string, r relay) (*hold, error) {
	if err := m.claim(id, r.Proto, r.Host); err != nil {
		return nil, err
	}
	var h *hold
	var err error
	if r.Proto == unix.IPPROTO_UDP {
		h, err = relayUDP(r)
	} else {
		h, err = relayTCP(r)
	}
	if err != nil {
		m.unclaim(r.Proto, r.Host)
		return nil, bindError(r.Host, err)
	}
	end := h.close
	h.close = func() error {
		m.unclaim(r.Proto, r.Host)
		return end()
	}
	return h, nil
}

// open counts connections and closes them when the relay ends.
type open struct {
	mu    sync.Mutex
	ended bool
	all   map[net.Conn]struct{}
	wg    sync.WaitGroup
}

func (o *open) add(c net.Conn) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended {
		return false
	}
	o.all[c] = struct{}{}
	return true
}

func (o *open) remove(c net.Conn) {
	o.mu.Lock()
	delete(o.all, c)
	o.mu.Unlock()
	// It is done with, whatever Close says.
	_ = c.Close()
}

func (o *open) end() {
	o.mu.Lock()
	o.ended = true
	for c := range o.all {
		_ = c.Close() // its goroutine notices
	}
	o.mu.Unlock()
	o.wg.Wait()
}

func relayTCP(r relay) (*hold, error) {
	l, err := net.ListenTCP("tcp6", net.TCPAddrFromAddrPort(r.Host))
	if err != nil {
		return nil, err
	}
	o := &open{all: map[net.Conn]struct{}{}}
	o.wg.Go(func() {
		for {
			c, err := l.AcceptTCP()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				time.Sleep(50 * time.Millisecond) // out of descriptors, say
				continue
			}
			if !o.add(c) {
				_ = c.Close() // the relay ends
				return
			}
			o.wg.Go(func() { passTCP(o, c, r.Target) })
		}
	})
	at := l.Addr().(*net.TCPAddr).AddrPort()
	return &hold{at: netip.AddrPortFrom(r.Host.Addr(), at.Port()), close: func() error {
		err := l.Close()
		o.end()
		return err
	}}, nil
}

func passTCP(o *open, c *net.TCPConn, target netip.AddrPort) {
	defer o.remove(c)
	d := net.Dialer{Timeout: 10 * time.Second}
	conn, err := d.DialContext(context.Background(), "tcp", target.String())
	if err != nil {
		_ = c.SetLinger(0) // refused there, so refused here
		return
	}
	if !o.add(conn) {
		_ = conn.Close() // the relay ends
		return
	}
	defer o.remove(conn)
	to := conn.(*net.TCPConn)
	var wg sync.WaitGroup
	wg.Go(func() { pipe(to, c) })
	pipe(c, to)
	wg.Wait()
}

// pipe copies one direction and passes its end on.
func pipe(dst, src *net.TCPConn) {
	if _, err := io.Copy(dst, src); err != nil {
		_ = src.Close() // broken: end the other direction too
	}
	_ = dst.CloseWrite() // a connection that is gone needs no end
}

// udpIdle is how long a UDP peer is remembered.
const udpIdle = 90 * time.Second

func relayUDP(r relay) (*hold, error) {
	l, err := net.ListenUDP("udp6", net.UDPAddrFromAddrPort(r.Host))
	if err != nil {
		return nil, err
	}
	o := &open{all: map[net.Conn]struct{}{}}
	o.wg.Go(func() { passUDP(o, l, r.Target) })
	at := l.LocalAddr().(*net.UDPAddr).AddrPort()
	return &hold{at: netip.AddrPortFrom(r.Host.Addr(), at.Port()), close: func() error {
		err := l.Close()
		o.end()
		return err
	}}, nil
}

func passUDP(o *open, l *net.UDPConn, target netip.AddrPort) {
	var mu sync.Mutex
	peers := map[netip.AddrPort]*net.UDPConn{}
	buf := make([]byte, 64<<10)
	for {
		n, from, err := l.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		mu.Lock()
		c := peers[from]
		mu.Unlock()
		if c == nil {
			if c, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(target)); err != nil {
				continue
			}
			if !o.add(c) {
				_ = c.Close() // the relay ends
				return
			}
			mu.Lock()
			peers[from] = c
			mu.Unlock()
			o.wg.Go(func() {
				answerUDP(l, c, from)
				mu.Lock()
				delete(peers, from)
				mu.Unlock()
				o.remove(c)
			})
		}
		// Datagrams may be lost; so may this one.
		_, _ = c.Write(buf[:n])
	}
}

// answerUDP passes answers back until none has come for a while.
func answerUDP(l, c *net.UDPConn, to netip.AddrPort) {
	buf := make([]byte, 64<<10)
	for {
		if c.SetReadDeadline(time.Now().Add(udpIdle)) != nil {
			return
		}
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		if _, err := l.WriteToUDPAddrPort(buf[:n], to); err != nil {
			return
		}
	}
}
