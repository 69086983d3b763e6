package client

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/distribution/reference"
	helper "github.com/docker/docker-credential-helpers/client"
	"github.com/docker/docker-credential-helpers/credentials"
	"github.com/moby/moby/api/types/registry"

	"github.com/cleatlabs/cleat/internal/atomicfile"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

// IndexServer is the key under which credentials of Docker Hub are kept.
const IndexServer = "https://index.docker.io/v1/"

// tokenUser is the user name that helpers give with an identity token.
const tokenUser = "<token>"

// AuthFile is ~/.docker/config.json (or DOCKER_CONFIG's), shared with the
// docker command: its auths, credsStore and credHelpers. What else is in the
// file is kept. Every call reads it anew.
type AuthFile struct {
	path   string
	getenv func(string) string
	// run makes the program of a credential helper; tests replace it.
	run func(name string) helper.ProgramFunc
}

// OpenAuthFile finds the file, which need not exist.
func OpenAuthFile(getenv func(string) string) *AuthFile {
	dir := getenv("DOCKER_CONFIG")
	if dir == "" {
		dir = filepath.Join(homeDir(getenv), ".docker")
	}
	return &AuthFile{path: filepath.Join(dir, "config.json"), getenv: getenv, run: func(name string) helper.ProgramFunc {
		return helper.NewShellProgramFunc("docker-credential-" + name)
	}}
}

// Path is where the file is.
func (f *AuthFile) Path() string { return f.path }

type authEntry struct {
	Auth          string `json:"auth,omitempty"`
	Username      string `json:"username,omitempty"`
	Password      string `json:"password,omitempty"`
	IdentityToken string `json:"identitytoken,omitempty"`
	RegistryToken string `json:"registrytoken,omitempty"`
}

type authDocument struct {
	all         map[string]json.RawMessage
	Auths       map[string]authEntry
	CredsStore  string
	CredHelpers map[string]string
	Proxies     map[string]ProxyConfig
}

// ProxyConfig is what the file says about proxies for containers of one daemon.
type ProxyConfig struct {
	HTTPProxy  string `json:"httpProxy,omitempty"`
	HTTPSProxy string `json:"httpsProxy,omitempty"`
	NoProxy    string `json:"noProxy,omitempty"`
	FTPProxy   string `json:"ftpProxy,omitempty"`
	AllProxy   string `json:"allProxy,omitempty"`
}

// Env gives the variables that containers get, in both spellings.
func (p ProxyConfig) Env() map[string]string {
	out := map[string]string{}
	for name, value := range map[string]string{"HTTP_PROXY": p.HTTPProxy, "HTTPS_PROXY": p.HTTPSProxy, "NO_PROXY": p.NoProxy, "FTP_PROXY": p.FTPProxy, "ALL_PROXY": p.AllProxy} {
		if value != "" {
			out[name], out[strings.ToLower(name)] = value, value
		}
	}
	return out
}

// Proxies gives the proxy settings for containers of the daemon at host.
func (f *AuthFile) Proxies(host string) (ProxyConfig, error) {
	d, err := f.read()
	if err != nil {
		return ProxyConfig{}, err
	}
	if p, ok := d.Proxies[host]; ok {
		return p, nil
	}
	return d.Proxies["default"], nil
}

func (f *AuthFile) read() (*authDocument, error) {
	d := &authDocument{all: map[string]json.RawMessage{}}
	b, err := os.ReadFile(f.path)
	if errors.Is(err, os.ErrNotExist) || (err == nil && len(strings.TrimSpace(string(b))) == 0) {
		return d, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &d.all); err != nil {
		return nil, fmt.Errorf("%s: %w", f.path, err)
	}
	for key, into := range map[string]any{"auths": &d.Auths, "credsStore": &d.CredsStore, "credHelpers": &d.CredHelpers, "proxies": &d.Proxies} {
		if raw, ok := d.all[key]; ok {
			if err := json.Unmarshal(raw, into); err != nil {
				return nil, fmt.Errorf("%s: %s: %w", f.path, key, err)
			}
		}
	}
	return d, nil
}

func (f *AuthFile) write(d *authDocument) error {
	raw, err := json.Marshal(d.Auths)
	if err != nil {
		return err
	}
	d.all["auths"] = raw
	out, err := json.MarshalIndent(d.all, "", "\t")
	if err != nil {
		return err
	}
	path := f.path
	if p, err := filepath.EvalSymlinks(path); err == nil {
		path = p // a linked file stays linked
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return atomicfile.WriteFile(path, append(out, '\n'), 0o600)
}

// helperFor names the credential helper of a registry, or "".
func (d *authDocument) helperFor(server string) string {
	if h, ok := d.CredHelpers[server]; ok {
		return h
	}
	if h, ok := d.CredHelpers[hostOf(server)]; ok {
		return h
	}
	return d.CredsStore
}

// Get gives the credentials of a registry; none is the zero value but for ServerAddress.
func (f *AuthFile) Get(server string) (registry.AuthConfig, error) {
	out := registry.AuthConfig{ServerAddress: server}
	d, err := f.read()
	if err != nil {
		return out, err
	}
	if h := d.helperFor(server); h != "" {
		c, err := helper.Get(f.run(h), server)
		if credentials.IsErrCredentialsNotFound(err) {
			return out, nil
		}
		if err != nil {
			return out, fmt.Errorf("credential helper docker-credential-%s: %w", h, err)
		}
		if c.Username == tokenUser {
			out.IdentityToken = c.Secret
		} else {
			out.Username, out.Password = c.Username, c.Secret
		}
		return out, nil
	}
	entry, ok := d.Auths[server]
	if !ok {
		for key, e := range d.Auths {
			if hostOf(key) == hostOf(server) {
				entry, ok = e, true
				break
			}
		}
	}
	if !ok {
		return out, nil
	}
	return entry.config(server)
}

func (e authEntry) config(server string) (registry.AuthConfig, error) {
	out := registry.AuthConfig{Username: e.Username, Password: e.Password, ServerAddress: server, IdentityToken: e.IdentityToken, RegistryToken: e.RegistryToken}
	if e.Auth == "" {
		return out, nil
	}
	plain, err := base64.StdEncoding.DecodeString(e.Auth)
	if err != nil {
		return out, fmt.Errorf("credentials of %s: %w", server, err)
	}
	user, pass, ok := strings.Cut(string(plain), ":")
	if !ok || user == "" {
		return out, fmt.Errorf("credentials of %s: invalid auth entry", server)
	}
	out.Username, out.Password = user, strings.TrimRight(pass, "\x00")
	return out, nil
}

// Store keeps credentials; helperName says which credential helper took them,
// empty when they lie in the file.
func (f *AuthFile) Store(a registry.AuthConfig) (helperName string, err error) {
	d, err := f.read()
	if err != nil {
		return "", err
	}
	if d.Auths == nil {
		d.Auths = map[string]authEntry{}
	}
	if h := d.helperFor(a.ServerAddress); h != "" {
		c := &credentials.Credentials{ServerURL: a.ServerAddress, Username: a.Username, Secret: a.Password}
		if a.IdentityToken != "" {
			c.Username, c.Secret = tokenUser, a.IdentityToken
		}
		if err := helper.Store(f.run(h), c); err != nil {
			return h, fmt.Errorf("credential helper docker-credential-%s: %w", h, err)
		}
		// The empty entry tells the docker command that there is a login.
		d.Auths[a.ServerAddress] = authEntry{}
		return h, f.write(d)
	}
	e := authEntry{IdentityToken: a.IdentityToken}
	if a.Username != "" {
		e.Auth = base64.StdEncoding.EncodeToString([]byte(a.Username + ":" + a.Password))
	}
	d.Auths[a.ServerAddress] = e
	return "", f.write(d)
}

// Erase forgets the credentials of a registry; found says that there were any.
func (f *AuthFile) Erase(server string) (found bool, err error) {
	d, err := f.read()
	if err != nil {
		return false, err
	}
	for key := range d.Auths {
		if key == server || hostOf(key) == hostOf(server) {
			found = true
			delete(d.Auths, key)
		}
	}
	if h := d.helperFor(server); h != "" {
		herr := helper.Erase(f.run(h), server)
		if herr != nil && !credentials.IsErrCredentialsNotFound(herr) {
			return found, fmt.Errorf("credential helper docker-credential-%s: %w", h, herr)
		}
		found = found || herr == nil
	}
	if !found {
		return false, nil
	}
	return true, f.write(d)
}

// ServerOf gives the key of the credentials for an image reference.
func ServerOf(ref string) (string, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return "", errdefs.As(errdefs.ErrInvalidArgument, err)
	}
	return ServerKey(reference.Domain(named)), nil
}

// ServerKey maps what people call a registry to the key of its credentials.
func ServerKey(server string) string {
	switch h := hostOf(server); h {
	case "", "docker.io", "index.docker.io", "registry-1.docker.io":
		return IndexServer
	default:
		return h
	}
}

// hostOf strips scheme and path.
func hostOf(server string) string {
	if _, rest, ok := strings.Cut(server, "://"); ok {
		server = rest
	}
	host, _, _ := strings.Cut(server, "/")
	return host
}

// HeaderFor gives the X-Registry-Auth value for pulling or pushing ref.
func (f *AuthFile) HeaderFor(ref string) (string, error) {
	server, err := ServerOf(ref)
	if err != nil {
		return "", err
	}
	a, err := f.Get(server)
	if err != nil {
		return "", err
	}
	return EncodeAuth(a)
}

// EncodeAuth is the encoding of the X-Registry-Auth header.
func EncodeAuth(a registry.AuthConfig) (string, error) {
	b, err := json.Marshal(a)
	if err != nil {
		return "", err
	}
	return base64.URLEncoding.EncodeToString(b), nil
}
