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
	"sync/atomic"
	"syscall"
	"time"

	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

// relay is a port of the host that the daemon listens on for a container. The
// listener keeps other programs from the port, and passes on what the packet
// rules leave to it: connections to ::1, IPv6 to containers that have only
// IPv4, and neighbours on a network without communication between containers.
type relay struct {
	Proto  uint8
	Host   netip.AddrPort
	Target netip.AddrPort // not valid: refuse
	// Port is the container's, so that another endpoint can become the target.
	Port network.Port
}

// hold is a relay at work.
type hold struct {
	relay  // Host with the port that was got
	target atomic.Pointer[netip.AddrPort]
	close  func() error
}

func haveV6() bool {
	_, err := os.Stat("/proc/sys/net/ipv6")
	return err == nil
}

type portKey struct {
	proto uint8
	at    netip.AddrPort
}

// claim records that a sandbox has the port; the words for one that is taken
// are Docker's.
func (m *Manager) claim(id string, proto uint8, at netip.AddrPort) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, taken := m.held[portKey{proto, at}]; taken {
		return errdefs.WithHint(errdefs.Conflictf("Bind for %s failed: port is already allocated", at),
			"another container publishes it: see `cleat ps`, or publish another port")
	}
	m.held[portKey{proto, at}] = id
	return nil
}

func (m *Manager) unclaim(proto uint8, at netip.AddrPort) {
	m.mu.Lock()
	delete(m.held, portKey{proto, at})
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

// relay takes the port and begins to listen; port 0 takes a free one.
func (m *Manager) relay(id string, r relay) (*hold, error) {
	picked := r.Host.Port() == 0
	if !picked {
		if err := m.claim(id, r.Proto, r.Host); err != nil {
			return nil, err
		}
	}
	h := &hold{relay: r}
	h.target.Store(&r.Target)
	listen := h.listenTCP
	if r.Proto == unix.IPPROTO_UDP {
		listen = h.listenUDP
	}
	if err := listen(); err != nil {
		if !picked {
			m.unclaim(r.Proto, r.Host)
		}
		return nil, bindError(r.Host, err)
	}
	if picked {
		if err := m.claim(id, r.Proto, h.Host); err != nil {
			return nil, errors.Join(err, h.close())
		}
	}
	end := h.close
	h.close = func() error {
		err := end()
		m.unclaim(h.Proto, h.Host)
		return err
	}
	return h, nil
}

// family names the network for package net: IPv6 listeners leave IPv4 alone.
func family(name string, a netip.Addr) string {
	if a.Is4() {
		return name + "4"
	}
	return name + "6"
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

func (h *hold) listenTCP() error {
	l, err := net.ListenTCP(family("tcp", h.Host.Addr()), net.TCPAddrFromAddrPort(h.Host))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
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
			o.wg.Go(func() { h.passTCP(ctx, o, c) })
		}
	})
	h.Host = netip.AddrPortFrom(h.Host.Addr(), l.Addr().(*net.TCPAddr).AddrPort().Port())
	h.close = func() error {
		cancel()
		err := l.Close()
		o.end()
		return err
	}
	return nil
}

func (h *hold) passTCP(ctx context.Context, o *open, c *net.TCPConn) {
	defer o.remove(c)
	d := net.Dialer{Timeout: 10 * time.Second}
	var conn net.Conn
	err := net.ErrClosed
	if to := h.target.Load(); to.IsValid() {
		conn, err = d.DialContext(ctx, "tcp", to.String())
	}
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
