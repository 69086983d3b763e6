package nameserver

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	maxPending   = 256              // questions in work for one container
	maxTCP       = 32               // connections of one container
	tcpIdle      = 10 * time.Second // between two questions of a connection
	askTimeout   = 4 * time.Second  // one upstream; a stub resolver waits 5
	maxMessage   = 65535
	maxUpstreams = 3
)

// Sockets are opened in the container's namespace by whoever makes the Server,
// which then owns them.
type Sockets struct {
	UDP *net.UDPConn
	TCP *net.TCPListener
}

// Listen opens the sockets on addr in the calling thread's namespace, on ports
// that are free.
func Listen(addr netip.Addr) (Sockets, error) {
	udp, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
	if err != nil {
		return Sockets{}, fmt.Errorf("listen for DNS: %w", err)
	}
	tcp, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
	if err != nil {
		return Sockets{}, errors.Join(fmt.Errorf("listen for DNS: %w", err), udp.Close())
	}
	return Sockets{udp, tcp}, nil
}

// Ports are the ports that Listen got.
func (s Sockets) Ports() (udp, tcp uint16) {
	return uint16(s.UDP.LocalAddr().(*net.UDPAddr).Port), uint16(s.TCP.Addr().(*net.TCPAddr).Port)
}

// Close closes both.
func (s Sockets) Close() error { return errors.Join(s.UDP.Close(), s.TCP.Close()) }

// Dialer connects to an upstream, from the host's or the container's namespace.
type Dialer func(ctx context.Context, network string, to Upstream) (net.Conn, error)

// Server answers the questions of one container.
type Server struct {
	socks  Sockets
	view   View
	dial   Dialer
	log    *slog.Logger
	cancel context.CancelFunc
	ctx    context.Context // ends with Close; bounds all questions in work
	slots  chan struct{}
	tcp    chan struct{}
	wg     sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

// Serve starts to answer. Close must follow.
func Serve(socks Sockets, view View, dial Dialer, log *slog.Logger) *Server {
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{
		socks: socks, view: view, dial: dial, log: log, ctx: ctx, cancel: cancel,
		slots: make(chan struct{}, maxPending), tcp: make(chan struct{}, maxTCP), conns: make(map[net.Conn]struct{}),
	}
	s.wg.Add(2)
	go s.serveUDP()
	go s.serveTCP()
	return s
}

// Close stops the server and waits for its goroutines.
func (s *Server) Close() error {
	s.cancel()
	err := s.socks.Close()
	s.mu.Lock()
	for c := range s.conns {
		err = errors.Join(err, c.Close())
	}
	s.mu.Unlock()
	s.wg.Wait()
	return err
}

func (s *Server) serveUDP() {
	defer s.wg.Done()
	buf := make([]byte, 4096)
	for {
		n, from, err := s.socks.UDP.ReadFromUDPAddrPort(buf)
		if err != nil {
			if s.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			continue // an ICMP error of an earlier answer
		}
		req := new(dns.Msg)
		if req.Unpack(buf[:n]) != nil {
			continue
		}
		if resp, forward := Answer(s.view, req); !forward {
			s.answerUDP(req, resp, from)
			continue
		}
		select {
		case s.slots <- struct{}{}:
		default:
			s.answerUDP(req, failure(req, dns.RcodeServerFailure), from)
			continue
		}
		s.wg.Add(1)
		go func() {
			defer s.wg.Done()
			defer func() { <-s.slots }()
			s.answerUDP(req, s.forward(req, "udp"), from)
		}()
	}
}

func (s *Server) answerUDP(req, resp *dns.Msg, to netip.AddrPort) {
	if resp == nil {
		return
	}
	resp.Truncate(sizeFor(req))
	b, err := resp.Pack()
	if err != nil {
		s.log.Debug("cannot encode a DNS answer", "error", err)
		return
	}
	// The client has gone if this fails; it asks again if it has not.
	if _, err := s.socks.UDP.WriteToUDPAddrPort(b, to); err != nil && s.ctx.Err() == nil {
		s.log.Debug("cannot send a DNS answer", "error", err)
	}
}

func (s *Server) serveTCP() {
	defer s.wg.Done()
	for {
		c, err := s.socks.TCP.Accept()
		if err != nil {
			if s.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			select { // out of descriptors, say
			case <-s.ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		select {
		case s.tcp <- struct{}{}:
		default:
			c.Close() // too many already; nothing was promised
			continue
		}
		if !s.track(c) {
			<-s.tcp
			continue
		}
		s.wg.Add(1)
		go func() {
			defer s.wg.Done()
			defer func() { <-s.tcp }()
			defer s.untrack(c)
			s.serveConn(c)
		}()
	}
}

// track remembers a connection for Close; false says that Close has begun.
func (s *Server) track(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		c.Close() // it was just accepted; nobody waits for the result
		return false
	}
	s.conns[c] = struct{}{}
	return true
}

func (s *Server) untrack(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.conns[c]; ok {
		delete(s.conns, c)
		c.Close() // its error says nothing about answers already sent
	}
}

func (s *Server) serveConn(c net.Conn) {
	var size [2]byte
	for s.ctx.Err() == nil {
		if c.SetDeadline(time.Now().Add(tcpIdle+askTimeout*maxUpstreams)) != nil {
			return
		}
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		buf := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(c, buf); err != nil {
			return
		}
		req := new(dns.Msg)
		if req.Unpack(buf) != nil {
			return
		}
		resp, forward := Answer(s.view, req)
		if forward {
			resp = s.forward(req, "tcp")
		}
		if resp == nil {
			return
		}
		out, err := resp.Pack()
		if err != nil || len(out) > maxMessage {
			return
		}
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...)); err != nil {
			return
		}
	}
}

// forward asks the upstreams in turn. A question that none answers is a server
// failure, which the client's library reports as such.
func (s *Server) forward(req *dns.Msg, network string) *dns.Msg {
	ups := s.view.Upstreams()
	for _, up := range ups[:min(len(ups), maxUpstreams)] {
		resp, err := s.ask(req, network, up)
		if err != nil {
			s.log.Debug("DNS upstream failed", "server", up.Addr, "error", err)
			continue
		}
		if resp.Rcode == dns.RcodeServerFailure || resp.Rcode == dns.RcodeRefused {
			continue
		}
		return resp
	}
	return failure(req, dns.RcodeServerFailure)
}

func (s *Server) ask(req *dns.Msg, network string, up Upstream) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(s.ctx, askTimeout)
	defer cancel()
	conn, err := s.dial(ctx, network, up)
	if err != nil {
		return nil, err
	}
	// A cancelled question must not wait for its answer.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // it is being closed anyway
	defer stop()
	c := dns.Conn{Conn: conn, UDPSize: maxUDP}
	defer c.Close() // nothing of it is needed any more
	out := req.Copy()
	out.Id = dns.Id() // not the client's: it may be guessable
	if o := out.IsEdns0(); o != nil {
		o.SetUDPSize(uint16(min(int(o.UDPSize()), maxUDP)))
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return nil, err
		}
	}
	if err := c.WriteMsg(out); err != nil {
		return nil, err
	}
	for {
		resp, err := c.ReadMsg()
		if err != nil {
			return nil, err
		}
		if resp.Id == out.Id && resp.Response && sameQuestion(out, resp) {
			resp.Id = req.Id
			return resp, nil
		}
	}
}

func sameQuestion(a, b *dns.Msg) bool {
	if len(b.Question) == 0 {
		return b.Rcode != dns.RcodeSuccess
	}
	return len(b.Question) == 1 && a.Question[0].Qtype == b.Question[0].Qtype && a.Question[0].Qclass == b.Question[0].Qclass &&
		dns.CanonicalName(a.Question[0].Name) == dns.CanonicalName(b.Question[0].Name)
}
