package remote

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
)

// Credentials are a user's for one registry. The zero value is anonymous.
type Credentials struct {
	Username, Password string
	// IdentityToken is a refresh token, used instead of a password.
	IdentityToken string
	// RegistryToken is a bearer token, sent as it is.
	RegistryToken string
}

func (c Credentials) empty() bool { return c == Credentials{} }

// Client reaches registries. It is safe for concurrent use.
type Client struct {
	cfg   Config
	agent string

	mu         sync.Mutex
	transports map[string]http.RoundTripper // by host
}

// New returns a client. agent is the User-Agent that registries see.
func New(cfg Config, agent string) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Client{cfg: cfg, agent: agent, transports: make(map[string]http.RoundTripper)}, nil
}

// Close closes idle connections.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.transports {
		if i, ok := t.(interface{ CloseIdleConnections() }); ok {
			i.CloseIdleConnections()
		}
	}
	return nil
}

// Session is one user's dealings with registries: tokens are kept in it.
type Session struct {
	remotes.Resolver
	// Uploads tells how far pushes are.
	Uploads docker.StatusTracker
	hosts   docker.RegistryHosts
}

// Session returns a new session. Credentials are sent only to the registry
// itself, never to its mirrors.
func (c *Client) Session(cred Credentials) *Session {
	hosts := c.hosts(cred)
	tracker := docker.NewInMemoryTracker()
	header := http.Header{}
	header.Set("User-Agent", c.agent)
	return &Session{
		Resolver: docker.NewResolver(docker.ResolverOptions{Hosts: hosts, Tracker: tracker, Headers: header}),
		Uploads:  tracker,
		hosts:    hosts,
	}
}

func (c *Client) hosts(cred Credentials) docker.RegistryHosts {
	header := http.Header{}
	header.Set("User-Agent", c.agent)
	return func(registry string) ([]docker.RegistryHost, error) {
		var out []docker.RegistryHost
		for _, m := range c.mirrors(registry) {
			u, err := parseMirror(m)
			if err != nil {
				return nil, err
			}
			client, err := c.httpClient(u.Host)
			if err != nil {
				return nil, err
			}
			out = append(out, docker.RegistryHost{
				Client: client, Host: u.Host, Scheme: u.Scheme, Path: path.Join("/", u.Path, "v2"),
				Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve,
				Authorizer:   newAuthorizer(docker.WithAuthClient(client), docker.WithAuthHeader(header)),
			})
		}
		host := hostOf(registry)
		client, err := c.httpClient(host)
		if err != nil {
			return nil, err
		}
		h := docker.RegistryHost{
			Client: client, Host: host, Scheme: "https", Path: "/v2",
			Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve | docker.HostCapabilityPush,
			Authorizer: newAuthorizer(docker.WithAuthClient(client), docker.WithAuthHeader(header),
				docker.WithAuthCreds(func(string) (string, string, error) {
					if cred.IdentityToken != "" {
						return "", cred.IdentityToken, nil
					}
					return cred.Username, cred.Password, nil
				})),
		}
		if cred.RegistryToken != "" {
			h.Authorizer = nil
			h.Header = http.Header{"Authorization": {"Bearer " + cred.RegistryToken}}
		}
		return append(out, h), nil
	}
}

// oneAtATime serialises an authorizer: containerd's writes the expiry of a token
// while others may read it. Those who wait would have waited for the token anyway.
type oneAtATime struct {
	mu sync.Mutex
	docker.Authorizer
}

func newAuthorizer(opts ...docker.AuthorizerOpt) docker.Authorizer {
	return &oneAtATime{Authorizer: docker.NewDockerAuthorizer(opts...)}
}

func (a *oneAtATime) Authorize(ctx context.Context, r *http.Request) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.Authorizer.Authorize(ctx, r)
}

func (a *oneAtATime) AddResponses(ctx context.Context, rs []*http.Response) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.Authorizer.AddResponses(ctx, rs)
}

func (c *Client) mirrors(registry string) []string {
	if registry == dockerHubHost || registry == dockerHubIndex {
		registry = DockerHub
	}
	return c.cfg.Mirrors[registry]
}

// hostOf is where the API of a registry is served.
func hostOf(registry string) string {
	if registry == DockerHub || registry == dockerHubIndex {
		return dockerHubHost
	}
	return registry
}

func (c *Client) httpClient(host string) (*http.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.transports[host]
	if t == nil {
		conf, err := c.tlsConfig(host)
		if err != nil {
			return nil, err
		}
		plain := newTransport(conf)
		t = plain
		if conf.InsecureSkipVerify {
			t = &fallback{RoundTripper: docker.NewHTTPFallback(plain), plain: plain}
		}
		c.transports[host] = t
	}
	return &http.Client{Transport: t, CheckRedirect: checkRedirect}, nil
}

// fallback keeps the idle connections of the transport below in reach.
type fallback struct {
	http.RoundTripper
	plain *http.Transport
}

func (f *fallback) CloseIdleConnections() { f.plain.CloseIdleConnections() }

func newTransport(conf *tls.Config) *http.Transport {
	dialer := &net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           dialer.DialContext,
		TLSClientConfig:       conf,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: 60 * time.Second,
		ExpectContinueTimeout: 5 * time.Second,
		IdleConnTimeout:       30 * time.Second,
		MaxIdleConns:          20,
		MaxIdleConnsPerHost:   8,
	}
}

func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= 10 {
		return errors.New("stopped after 10 redirects")
	}
	if last := via[len(via)-1]; last.URL.Scheme == "https" && req.URL.Scheme == "http" {
		return fmt.Errorf("refused to follow a redirect from https to http (%s)", req.URL.Host)
	}
	return nil
}

// tlsConfig reads CertsDir/host, in the layout of Docker's certs.d.
func (c *Client) tlsConfig(host string) (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: c.cfg.insecure(host)} // #nosec G402: the configuration says so
	if c.cfg.CertsDir == "" {
		return conf, nil
	}
	dir := filepath.Join(c.cfg.CertsDir, filepath.Base(host))
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return conf, nil
	}
	if err != nil {
		return nil, fmt.Errorf("registry certificates: %w", err)
	}
	for _, e := range entries {
		file := filepath.Join(dir, e.Name())
		switch filepath.Ext(e.Name()) {
		case ".crt":
			pem, err := os.ReadFile(file)
			if err != nil {
				return nil, fmt.Errorf("registry certificates: %w", err)
			}
			if conf.RootCAs == nil {
				if conf.RootCAs, err = x509.SystemCertPool(); err != nil {
					conf.RootCAs = x509.NewCertPool()
				}
			}
			if !conf.RootCAs.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("registry certificates: %s holds no certificate", file)
			}
		case ".cert":
			pair, err := tls.LoadX509KeyPair(file, strings.TrimSuffix(file, ".cert")+".key")
			if err != nil {
				return nil, fmt.Errorf("registry certificates: %w", err)
			}
			conf.Certificates = append(conf.Certificates, pair)
		}
	}
	return conf, nil
}
