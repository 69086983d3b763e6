package volume

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/volume"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

// plugins finds volume plugins in the configured folders when they are asked
// for, and keeps one client for each address.
type plugins struct {
	cfg Config

	mu    sync.Mutex
	known map[string]*plugin
}

func newPlugins(cfg Config) *plugins { return &plugins{cfg: cfg, known: make(map[string]*plugin)} }

// close ends idle connections.
func (ps *plugins) close() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for _, p := range ps.known {
		p.http.CloseIdleConnections()
	}
}

// address is where a plugin listens.
type address struct {
	URL string
	TLS *pluginTLS
}

type pluginTLS struct {
	InsecureSkipVerify        bool
	CAFile, CertFile, KeyFile string
}

// pluginFile is a .json spec.
type pluginFile struct {
	Name, Addr string
	TLSConfig  *pluginTLS
}

var errNoPlugin = errors.New("no such plugin")

// locate looks for name as Docker does: sockets first, then specs.
func (ps *plugins) locate(name string) (address, error) {
	if !localName.MatchString(name) {
		return address{}, errNoPlugin // it becomes a file name
	}
	for _, dir := range ps.cfg.PluginSockets {
		for _, p := range []string{filepath.Join(dir, name+".sock"), filepath.Join(dir, name, name+".sock")} {
			if fi, err := os.Stat(p); err == nil && fi.Mode().Type() == fs.ModeSocket {
				return address{URL: "unix://" + p}, nil
			}
		}
	}
	for _, dir := range ps.cfg.PluginSpecs {
		for _, p := range []string{filepath.Join(dir, name), filepath.Join(dir, name, name)} {
			for _, ext := range []string{".spec", ".json"} {
				data, err := os.ReadFile(p + ext)
				if errors.Is(err, fs.ErrNotExist) {
					continue
				}
				if err != nil {
					return address{}, err
				}
				return parseSpec(ext, data)
			}
		}
	}
	return address{}, errNoPlugin
}

func parseSpec(ext string, data []byte) (address, error) {
	if ext == ".spec" {
		return address{URL: strings.TrimSpace(string(data))}, nil
	}
	var f pluginFile
	if err := json.Unmarshal(data, &f); err != nil {
		return address{}, fmt.Errorf("plugin specification: %w", err)
	}
	a := address{URL: f.Addr}
	if t := f.TLSConfig; t != nil && (t.CAFile != "" || t.CertFile != "" || t.InsecureSkipVerify) {
		a.TLS = t
	}
	return a, nil
}

// names lists the plugins that can be found.
func (ps *plugins) names() []string {
	set := make(map[string]struct{})
	add := func(dirs []string, exts ...string) {
		for _, dir := range dirs {
			entries, err := os.ReadDir(dir)
			if err != nil {
				continue // absent, mostly
			}
			for _, e := range entries {
				if e.IsDir() {
					set[e.Name()] = struct{}{}
					continue
				}
				for _, ext := range exts {
					if n, ok := strings.CutSuffix(e.Name(), ext); ok {
						set[n] = struct{}{}
					}
				}
			}
		}
	}
	add(ps.cfg.PluginSockets, ".sock")
	add(ps.cfg.PluginSpecs, ".spec", ".json")
	for n := range set {
		if _, err := ps.locate(n); err != nil {
			delete(set, n)
		}
	}
	return slices.Sorted(maps.Keys(set))
}

// get returns the client of the plugin name.
func (ps *plugins) get(ctx context.Context, name string) (*plugin, error) {
	a, err := ps.locate(name)
	if errors.Is(err, errNoPlugin) {
		return nil, errdefs.WithHint(
			errdefs.NotFoundf("error looking up volume plugin %s: plugin %q not found", name, name),
			"start the plugin, so that its socket is in "+strings.Join(ps.cfg.PluginSockets, " or "))
	}
	if err != nil {
		return nil, errdefs.Internalf("error looking up volume plugin %s: %w", name, err)
	}
	key := fmt.Sprintf("%s\x00%s\x00%+v", name, a.URL, a.TLS)
	ps.mu.Lock()
	p := ps.known[key]
	if p == nil {
		if p, err = newPlugin(name, a, ps.cfg.PluginTimeout); err == nil {
			ps.known[key] = p
		}
	}
	ps.mu.Unlock()
	if err != nil {
		return nil, errdefs.Invalidf("error looking up volume plugin %s: %w", name, err)
	}
	return p, p.activate(ctx)
}

func newPlugin(name string, a address, timeout time.Duration) (*plugin, error) {
	u, err := url.Parse(a.URL)
	if err != nil {
		return nil, err
	}
	t := &http.Transport{MaxIdleConns: 2, IdleConnTimeout: 10 * time.Second}
	p := &plugin{name: name, timeout: timeout, http: &http.Client{Transport: t}, base: "http://plugin"}
	switch u.Scheme {
	case "unix":
		path := u.Path
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		}
	case "tcp", "http", "https":
		p.base = "http://" + u.Host
		if a.TLS != nil || u.Scheme == "https" {
			p.base = "https://" + u.Host
			if t.TLSClientConfig, err = clientTLS(a.TLS); err != nil {
				return nil, err
			}
		}
	default:
		return nil, fmt.Errorf("unknown protocol in the address %q", a.URL)
	}
	return p, nil
}

func clientTLS(c *pluginTLS) (*tls.Config, error) {
	out := &tls.Config{MinVersion: tls.VersionTLS12}
	if c == nil {
		return out, nil
	}
	out.InsecureSkipVerify = c.InsecureSkipVerify // the administrator's own choice
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, err
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", c.CAFile)
		}
	}
	if c.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, err
		}
		out.Certificates = []tls.Certificate{pair}
	}
	return out, nil
}

// find asks every plugin for a volume that is not among ours.
func (ps *plugins) find(ctx context.Context, name string) (record, error) {
	for _, n := range ps.names() {
		p, err := ps.get(ctx, n)
		if err != nil {
			continue // a plugin that does not answer has no volumes to offer
		}
		if _, err := p.inspect(ctx, name); err == nil {
			return record{Name: name, Driver: n}, nil
		}
	}
	return record{}, errdefs.NotFoundf("no such volume")
}

// list returns the volumes of all plugins.
func (ps *plugins) list(ctx context.Context) (all []volume.Volume, warnings []string) {
	for _, n := range ps.names() {
		p, err := ps.get(ctx, n)
		if errors.Is(err, errdefs.ErrInvalidArgument) {
			continue // a plugin for something else
		}
		var list []pluginVolume
		if err == nil {
			list, err = p.list(ctx)
		}
		if err != nil {
			warnings = append(warnings, fmt.Sprintf("list volumes of driver %s: %v", n, err))
			continue
		}
		scope := p.scope(ctx)
		for _, v := range list {
			r := record{Name: v.Name, Driver: n}
			a := r.api(v.Mountpoint, cmp.Or(scope, localDriver))
			a.CreatedAt = v.CreatedAt
			all = append(all, a)
		}
	}
	return all, warnings
}

// Drivers lists what volumes can be created with, for docker info.
func (s *Service) Drivers() []string { return append([]string{localDriver}, s.plugins.names()...) }
