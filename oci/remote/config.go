// Package remote talks to image registries: where a registry is reached, with
// which certificates and credentials, and which errors of theirs are what.
//
// engine/image and apps use it. It builds on containerd's core/remotes/docker:
// downloads are resumed with Range requests and retried, uploads mount blobs
// from sibling repositories where the registry allows it. Package remote keeps one HTTP
// transport per registry for the life of the Client and writes nothing to disk.
package remote

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
)

// DockerHub is the registry of names without a host, and its hosts.
const (
	DockerHub      = "docker.io"
	dockerHubHost  = "registry-1.docker.io"
	dockerHubIndex = "index.docker.io"
)

// Config says how registries are reached.
type Config struct {
	// Insecure lists registries (host, host:port, or CIDR of addresses) whose
	// certificate is not verified, and which may speak plain HTTP. 127.0.0.0/8
	// and ::1 always belong to it, as in Docker.
	Insecure []string `yaml:"insecure" json:"insecure"`
	// Mirrors lists, by registry, URLs to be asked before the registry itself.
	// They are trusted to say what a tag means.
	Mirrors map[string][]string `yaml:"mirrors" json:"mirrors"`
	// CertsDir holds a folder for each registry (host:port) with *.crt as
	// additional authorities and NAME.cert with NAME.key as client certificates.
	CertsDir string `yaml:"certsDir" json:"certsDir"`
}

// Validate checks the configuration.
func (c *Config) Validate() error {
	for _, s := range c.Insecure {
		if strings.Contains(s, "/") {
			if _, err := netip.ParsePrefix(s); err != nil {
				return fmt.Errorf("registries: insecure %q is neither a host nor an address range: %w", s, err)
			}
		}
	}
	for registry, urls := range c.Mirrors {
		for _, u := range urls {
			if _, err := parseMirror(u); err != nil {
				return fmt.Errorf("registries: mirror of %s: %w", registry, err)
			}
		}
	}
	if c.CertsDir != "" && !filepath.IsAbs(c.CertsDir) {
		return fmt.Errorf("registries: certsDir %q is not an absolute path", c.CertsDir)
	}
	return nil
}

func parseMirror(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return nil, err
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "":
		return nil, fmt.Errorf("%q is not an http or https URL", s)
	case u.User != nil, u.RawQuery != "", u.Fragment != "":
		return nil, fmt.Errorf("%q may have a host and a path only", s)
	}
	return u, nil
}

// insecure says whether host (with or without port) may be reached without a
// valid certificate. Names are compared as written and are not looked up.
func (c *Config) insecure(host string) bool {
	bare := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		bare = h
	}
	addr, err := netip.ParseAddr(strings.Trim(bare, "[]"))
	isAddr := err == nil
	if bare == "localhost" || (isAddr && addr.IsLoopback()) {
		return true
	}
	for _, s := range c.Insecure {
		if s == host || s == bare {
			return true
		}
		if p, err := netip.ParsePrefix(s); err == nil && isAddr && p.Contains(addr) {
			return true
		}
	}
	return false
}
