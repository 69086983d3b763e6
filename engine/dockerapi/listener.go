package dockerapi

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"time"
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

// TLSConfig names PEM files. Certificate and key are read again when they
// change, so that they can be renewed without a restart.
type TLSConfig struct {
	CA   string `yaml:"ca"`
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
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
		case u.Scheme == "unix" && filepath.IsAbs(u.Path):
		case u.Scheme == "tcp" && u.Host != "":
			if c.TLS.CA == "" || c.TLS.Cert == "" || c.TLS.Key == "" {
				return fmt.Errorf("hosts: %s would give root to whoever reaches it: set tls.ca, tls.cert and tls.key", h)
			}
		default:
			return fmt.Errorf("hosts: %q is neither unix:///path nor tcp://address:port", h)
		}
	}
	return nil
}

// Listener serves a handler on sockets; it is a lifecycle.Component.
type Listener struct {
	cfg ListenConfig
	log *slog.Logger
	srv *http.Server
	wg  sync.WaitGroup
	// cancel ends streams and connections that handlers took over.
	cancel context.CancelFunc

	mu    sync.Mutex
	conns map[net.Conn]struct{} // open, taken over ones included
	paths []string
}

// NewListener returns a component; it opens nothing.
func NewListener(cfg ListenConfig, h http.Handler, log *slog.Logger) (*Listener, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("docker API: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &Listener{cfg: cfg, log: log, conns: map[net.Conn]struct{}{}, cancel: cancel}
	l.srv = &http.Server{
		Handler: h, ReadHeaderTimeout: time.Minute,
		BaseContext: func(net.Listener) context.Context { return withBase(ctx) },
		ErrorLog:    slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		// Connections that handlers take over leave the server's own books.
		ConnState: func(c net.Conn, s http.ConnState) {
			l.mu.Lock()
			defer l.mu.Unlock()
			switch s {
			case http.StateNew:
				l.conns[c] = struct{}{}
			case http.StateClosed:
				delete(l.conns, c)
			}
		},
	}
	return l, nil
}

// Name implements lifecycle.Component.
func (l *Listener) Name() string { return "docker API" }

// Start opens every socket before it serves the first.
func (l *Listener) Start(ctx context.Context) error {
	var open []net.Listener
	fail := func(err error) error {
		for _, o := range open {
			err = errors.Join(err, o.Close())
		}
		return err
	}
	for _, h := range append([]string{"unix://" + l.cfg.Socket}, l.cfg.Hosts...) {
		o, err := l.listen(ctx, h)
		if err != nil {
			return fail(err)
		}
		open = append(open, o)
	}
	for _, o := range open {
		l.wg.Go(func() {
			if err := l.srv.Serve(o); !errors.Is(err, http.ErrServerClosed) {
				l.log.Error("the API is not served any more", "address", o.Addr(), "error", err)
			}
		})
	}
	return nil
}

func (l *Listener) listen(ctx context.Context, host string) (net.Listener, error) {
	u, err := url.Parse(host)
	if err != nil {
		return nil, err
	}
	if u.Scheme == "tcp" {
		cfg, err := l.cfg.TLS.server()
		if err != nil {
			return nil, err
		}
		var lc net.ListenConfig
		o, err := lc.Listen(ctx, "tcp", u.Host)
		if err != nil {
			return nil, err
		}
		return tls.NewListener(o, cfg), nil
	}
	return l.listenUnix(u.Path)
}

// listenUnix makes the socket, in the place of one that nobody serves.
func (l *Listener) listenUnix(path string) (net.Listener, error) {
	if c, err := net.Dial("unix", path); err == nil {
		return nil, errors.Join(fmt.Errorf("%s is served by another program", path), c.Close())
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return nil, err
	}
	o, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	l.paths = append(l.paths, path)
	if err := l.permit(path); err != nil {
		return nil, errors.Join(err, o.Close())
	}
	return o, nil
}

func (l *Listener) permit(path string) error {
	if l.cfg.Group != "" {
		g, err := user.LookupGroup(l.cfg.Group)
		if err != nil {
			return err
		}
		gid, err := strconv.Atoi(g.Gid)
		if err != nil {
			return err
		}
		if err := os.Chown(path, -1, gid); err != nil {
			return err
		}
	}
	return os.Chmod(path, 0o660)
}

// Stop ends requests in work and streams. Those that change something finish.
func (l *Listener) Stop(ctx context.Context) error {
	const politely = 3 * time.Second
	soft, cancel := context.WithTimeout(ctx, politely)
	defer cancel()
	l.cancel()
	err := l.srv.Shutdown(soft)
	if errors.Is(err, context.DeadlineExceeded) {
		err = l.srv.Close() // streams that would follow for ever
	}
	l.mu.Lock()
	for c := range l.conns {
		_ = c.Close() // taken over; its handler notices
	}
	l.mu.Unlock()
	l.wg.Wait()
	return err
}

// server is the TLS side of TCP: nobody without a certificate gets in.
func (c TLSConfig) server() (*tls.Config, error) {
	pem, err := os.ReadFile(c.CA)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", c.CA)
	}
	keeper := &certKeeper{cfg: c}
	if _, err := keeper.get(nil); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, GetCertificate: keeper.get,
	}, nil
}

// certKeeper reads the certificate again when its file has changed.
type certKeeper struct {
	cfg TLSConfig

	mu   sync.Mutex
	cert *tls.Certificate
	from time.Time
}

func (k *certKeeper) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	st, err := os.Stat(k.cfg.Cert)
	if err == nil && k.cert != nil && st.ModTime().Equal(k.from) {
		return k.cert, nil
	}
	if err == nil {
		var pair tls.Certificate
		if pair, err = tls.LoadX509KeyPair(k.cfg.Cert, k.cfg.Key); err == nil {
			k.cert, k.from = &pair, st.ModTime()
			return k.cert, nil
		}
	}
	if k.cert != nil {
		return k.cert, nil // half-written: the old one serves on
	}
	return nil, err
}
