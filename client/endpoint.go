package client

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// DefaultHost is where our daemon listens when nobody says otherwise.
const DefaultHost = "unix:///run/cleat/engine.sock"

// Endpoint is the address of a daemon and how to authenticate to it.
type Endpoint struct {
	// Host is a URL: unix://, tcp://, ssh:// or (Windows) npipe://.
	Host string
	// TLS is nil for plain connections.
	TLS *TLSFiles
	// Source says where the address came from, for messages ("--host", "context staging", ...).
	Source string
}

// TLSFiles names PEM files. Empty names are allowed: no CA means the system's
// roots, no certificate means an anonymous client.
type TLSFiles struct {
	CA, Cert, Key string
	// SkipVerify accepts any certificate of the server.
	SkipVerify bool
}

// Address gives the parts of the host URL.
type Address struct {
	// Proto is unix, npipe, tcp or ssh.
	Proto string
	// Addr is a socket path, or host:port, or an ssh host.
	Addr string
	// Path is a prefix of the API on tcp, and the remote socket on ssh.
	Path string
	// User and Port belong to ssh.
	User, Port string
}

// ParseHost reads the forms that people write: a URL, a socket path, or host:port.
func ParseHost(host string) (Address, error) {
	host = strings.TrimSpace(host)
	if host == "" {
		return Address{}, errors.New("the daemon's address is empty")
	}
	proto, rest, ok := strings.Cut(host, "://")
	if !ok {
		if strings.HasPrefix(host, "/") {
			return Address{Proto: "unix", Addr: host}, nil
		}
		proto, rest = "tcp", host
	}
	switch proto {
	case "unix", "npipe":
		if rest == "" {
			return Address{}, fmt.Errorf("invalid daemon address %q: no path after %s://", host, proto)
		}
		return Address{Proto: proto, Addr: rest}, nil
	case "tcp", "http", "https":
		return parseTCP(host, rest)
	case "ssh":
		return parseSSH(host)
	case "fd":
		return Address{}, fmt.Errorf("invalid daemon address %q: fd:// is for daemons only", host)
	default:
		return Address{}, fmt.Errorf("invalid daemon address %q: unknown protocol %q (use unix, tcp or ssh)", host, proto)
	}
}

func parseTCP(host, rest string) (Address, error) {
	u, err := url.Parse("tcp://" + rest)
	if err != nil || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return Address{}, fmt.Errorf("invalid daemon address %q: expected tcp://HOST:PORT", host)
	}
	if u.Hostname() == "" && u.Port() == "" {
		return Address{}, fmt.Errorf("invalid daemon address %q: expected tcp://HOST:PORT", host)
	}
	name := u.Hostname()
	if name == "" {
		name = "localhost"
	}
	return Address{Proto: "tcp", Addr: name, Port: u.Port(), Path: strings.TrimSuffix(u.Path, "/")}, nil
}

func parseSSH(host string) (Address, error) {
	u, err := url.Parse(host)
	switch {
	case err != nil:
		return Address{}, fmt.Errorf("invalid daemon address %q: %w", host, err)
	case u.Hostname() == "":
		return Address{}, fmt.Errorf("invalid daemon address %q: no host name", host)
	case u.RawQuery != "" || u.Fragment != "":
		return Address{}, fmt.Errorf("invalid daemon address %q: query and fragment are not allowed", host)
	}
	if _, set := u.User.Password(); set {
		return Address{}, fmt.Errorf("invalid daemon address %q: a password is not allowed, use keys", host)
	}
	a := Address{Proto: "ssh", Addr: u.Hostname(), User: u.User.Username(), Port: u.Port(), Path: u.Path}
	if a.Path == "/" {
		a.Path = ""
	}
	// An argument that begins with a dash would be an option of ssh.
	if strings.HasPrefix(a.Addr, "-") || strings.HasPrefix(a.User, "-") {
		return Address{}, fmt.Errorf("invalid daemon address %q: host and user must not begin with a dash", host)
	}
	return a, nil
}

// hostPort gives what to dial, with Docker's default ports.
func (a Address) hostPort(secure bool) string {
	port := a.Port
	if port == "" {
		port = "2375"
		if secure {
			port = "2376"
		}
	}
	return net.JoinHostPort(a.Addr, port)
}

// config loads the files. Errors name the file.
func (t *TLSFiles) config() (*tls.Config, error) {
	if t == nil {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: t.SkipVerify} //nolint:gosec // asked for by --tls without --tlsverify
	if t.CA != "" && !t.SkipVerify {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, fmt.Errorf("reading the CA certificate: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no PEM certificate", t.CA)
		}
	}
	if t.Cert != "" || t.Key != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, fmt.Errorf("loading the client certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// Selection is what flags say about the daemon to use.
type Selection struct {
	Host      string
	Context   string
	TLS       bool
	TLSVerify bool
	// CA, Cert and Key are --tlscacert, --tlscert and --tlskey; empty means ca.pem, cert.pem
	// and key.pem of the certificates' folder.
	CA, Cert, Key string
}

// Resolve finds the daemon's address: --host, --context, CLEAT_HOST, DOCKER_HOST,
// CLEAT_CONTEXT, DOCKER_CONTEXT, the current context, then the default socket.
func Resolve(s Selection, getenv func(string) string, contexts *Contexts) (Endpoint, error) {
	if s.Host != "" && s.Context != "" {
		return Endpoint{}, errors.New("conflicting options: cannot specify both --host and --context")
	}
	byHost := func(host, source string) (Endpoint, error) {
		if _, err := ParseHost(host); err != nil {
			return Endpoint{}, err
		}
		return Endpoint{Host: host, TLS: tlsSelection(s, getenv), Source: source}, nil
	}
	if s.Host != "" {
		return byHost(s.Host, "--host")
	}
	name, source := s.Context, "--context"
	if name == "" {
		for _, v := range []string{"CLEAT_HOST", "DOCKER_HOST"} {
			if h := getenv(v); h != "" {
				return byHost(h, v)
			}
		}
		name, source = contexts.CurrentName(getenv)
	}
	if name == DefaultContext {
		return byHost(DefaultHost, "the default address")
	}
	c, err := contexts.Get(name)
	if err != nil {
		return Endpoint{}, fmt.Errorf("%w (chosen by %s)", err, source)
	}
	ep := c.Endpoint()
	ep.Source = "context " + name
	return ep, nil
}

// tlsSelection applies the rules of docker's --tls flags: --tlsverify (or
// DOCKER_TLS_VERIFY) checks the server, --tls alone does not.
func tlsSelection(s Selection, getenv func(string) string) *TLSFiles {
	verify := s.TLSVerify
	if !verify && !s.TLS {
		verify = firstEnv(getenv, "CLEAT_TLS_VERIFY", "DOCKER_TLS_VERIFY") != ""
	}
	if !verify && !s.TLS {
		return nil
	}
	dir := firstEnv(getenv, "CLEAT_CERT_PATH", "DOCKER_CERT_PATH")
	if dir == "" {
		dir = ConfigDir(getenv)
	}
	pick := func(given, name string) string {
		if given != "" {
			return given
		}
		if p := filepath.Join(dir, name); fileExists(p) {
			return p
		}
		return ""
	}
	return &TLSFiles{CA: pick(s.CA, "ca.pem"), Cert: pick(s.Cert, "cert.pem"), Key: pick(s.Key, "key.pem"), SkipVerify: !verify}
}

func firstEnv(getenv func(string) string, names ...string) string {
	for _, n := range names {
		if v := getenv(n); v != "" {
			return v
		}
	}
	return ""
}

func fileExists(p string) bool {
	_, err := os.Stat(p)
	return err == nil
}

// ConfigDir is the folder of contexts and settings: CLEAT_CONFIG, else ~/.cleat.
func ConfigDir(getenv func(string) string) string {
	if d := getenv("CLEAT_CONFIG"); d != "" {
		return d
	}
	return filepath.Join(homeDir(getenv), ".cleat")
}

func homeDir(getenv func(string) string) string {
	if h := firstEnv(getenv, "HOME", "USERPROFILE"); h != "" {
		return h
	}
	h, err := os.UserHomeDir()
	if err != nil {
		return "."
	}
	return h
}
