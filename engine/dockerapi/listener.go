package dockerapi

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"sync"
	"time"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

// ListenConfig says where the API is served.
type ListenConfig struct {
	// Socket is the unix socket that is always there.
	Socket string `yaml:"socket"`
	// Group owns the unix sockets, so that its members may use the engine,
	// which makes them root. Default: root alone.
	Group string `yaml:"group"`
	// Hosts are more places: unix:///path or tcp://address:port. TCP needs TLS.
	Hosts []string `yaml:"hosts"`
	// TLS is for TCP: clients must show a certificate of CA.
	TLS TLSConfig `yaml:"tls"`
}

// Validate refuses what cannot or must not be served.
func (c *ListenConfig) Validate() error {
	if !filepath.IsAbs(c.Socket) {
		return fmt.Errorf("socket: %q is not an absolute path", c.Socket)
	}
	for _, h := range c.Hosts {
		u, err := url.Parse(h)
		if err != nil {
			return fmt.Errorf("hosts: %w", err)
		}
		switch {
		case u.Scheme == "unix" && u.Host == "" && filepath.IsAbs(u.Path):
		case u.Scheme == "tcp" && u.Port() != "":
			if c.TLS.CA == "" || c.TLS.Cert == "" || c.TLS.Key == "" {
				return fmt.Errorf("hosts: %s would give root to whoever reaches it: set tls.ca, tls.cert and tls.key", h)
			}
		default:
			return fmt.Errorf("hosts: %q is neither unix:///path nor tcp://address:port", h)
		}
	}
	return nil
}

// Listener serves a handler on sockets; it is a lifecycle.Component. It owns
// the sockets, the connections, and the requests on them.
type Listener struct {
	cfg     ListenConfig
	log     *slog.Logger
	handler http.Handler
	srv     *http.Server
	serving sync.WaitGroup
	// endStreams ends the context of every request, so that streams end and
	// connections that handlers took over are closed; endChanges the context
	// of those that change something.
	endStreams, endChanges context.CancelFunc

	mu sync.Mutex
	// fresh are connections on which nothing was asked yet.
	fresh map[net.Conn]struct{}
	// active counts the handlers at work; http.Server forgets those that took
	// their connection over. idle is closed when a stopping listener has none.
	active   int
	stopping bool
	idle     chan struct{}
	opened   []net.Listener
}

// NewListener returns a component; it opens nothing.
func NewListener(cfg ListenConfig, h http.Handler, log *slog.Logger) (*Listener, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("docker API: %w", err)
	}
	l := &Listener{cfg: cfg, log: log, handler: h, fresh: make(map[net.Conn]struct{}), idle: make(chan struct{})}
	var c contexts
	c.streams, l.endStreams = context.WithCancel(context.Background())
	c.changes, l.endChanges = context.WithCancel(context.Background())
	base := context.WithValue(c.streams, contextsKey{}, c)
	l.srv = &http.Server{
		Handler: l, ReadHeaderTimeout: time.Minute,
		BaseContext: func(net.Listener) context.Context { return base },
		ErrorLog:    slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ConnState:   l.connState,
	}
	return l, nil
}

// Name implements lifecycle.Component.
func (l *Listener) Name() string { return "docker API" }

// Start opens every socket before it serves the first.
func (l *Listener) Start(ctx context.Context) error {
	for _, h := range append([]string{"unix://" + l.cfg.Socket}, l.cfg.Hosts...) {
		o, err := l.listen(ctx, h)
		if err != nil {
			err = fmt.Errorf("listen on %s: %w", h, err)
			for _, o := range l.opened {
				err = errors.Join(err, o.Close())
			}
			return err
		}
		l.opened = append(l.opened, o)
	}
	for _, o := range l.opened {
		l.serving.Go(func() {
			if err := l.srv.Serve(o); !errors.Is(err, http.ErrServerClosed) {
				l.log.Error("the API is not served any more", "address", o.Addr(), "error", err)
			}
		})
	}
	return nil
}

// Addrs are where Start listens, in the order of the configuration.
func (l *Listener) Addrs() []net.Addr {
	var out []net.Addr
	for _, o := range l.opened {
		out = append(out, o.Addr())
	}
	return out
}

func (l *Listener) listen(ctx context.Context, host string) (net.Listener, error) {
	u, err := url.Parse(host)
	if err != nil {
		return nil, err
	}
	if u.Scheme == "unix" {
		return listenUnix(u.Path, l.cfg.Group)
	}
	certs := newCertificates(l.cfg.TLS, l.log)
	if _, err := certs.config(nil); err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	o, err := lc.Listen(ctx, "tcp", u.Host)
	if err != nil {
		return nil, err
	}
	return tls.NewListener(o, &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: certs.config}), nil
}

func (l *Listener) connState(c net.Conn, s http.ConnState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s != http.StateNew {
		delete(l.fresh, c)
		return
	}
	l.fresh[c] = struct{}{}
	if l.stopping {
		_ = c.Close() // nothing was asked
	}
}

// ServeHTTP implements http.Handler for the http.Server.
func (l *Listener) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	if l.stopping {
		l.mu.Unlock()
		w.Header().Set("Connection", "close")
		http.Error(w, `{"message":"the engine is stopping"}`, http.StatusServiceUnavailable)
		return
	}
	l.active++
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.active--
		if l.stopping && l.active == 0 {
			close(l.idle)
		}
	}()
	l.handler.ServeHTTP(w, r)
}

// politely is how long Stop lets requests that change something finish, and
// then again how long it waits for them once they are told to give up.
const politely = 3 * time.Second

// Stop closes the sockets and ends streams at once; requests that change
// something get a moment to finish and be answered. It is safe to call for a
// listener that was never started.
func (l *Listener) Stop(ctx context.Context) error {
	l.mu.Lock()
	if l.stopping {
		l.mu.Unlock()
		return nil
	}
	l.stopping = true
	if l.active == 0 {
		close(l.idle)
	}
	for c := range l.fresh {
		_ = c.Close() // nothing was asked
	}
	l.mu.Unlock()
	l.endStreams()
	soft, cancel := context.WithTimeout(ctx, politely)
	defer cancel()
	err := l.srv.Shutdown(soft)
	l.endChanges()
	if errors.Is(err, context.DeadlineExceeded) {
		err = l.srv.Close()
	}
	hard, cancel := context.WithTimeout(ctx, politely)
	defer cancel()
	select {
	case <-l.idle:
	case <-hard.Done():
		err = errors.Join(err, errdefs.Unavailablef("requests are still at work"))
	}
	l.serving.Wait()
	return err
}
