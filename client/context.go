package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sort"

	"github.com/cleatlabs/cleat/internal/atomicfile"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

// DefaultContext is the context that is always there: the default socket.
const DefaultContext = "default"

// Context is a daemon by name, as stored in contexts/NAME/meta.json.
type Context struct {
	Name        string `json:"Name"`
	Description string `json:"Description,omitempty"`
	Host        string `json:"Host"`
	// UseTLS says that the connection is TLS; the context's own copies of
	// ca.pem, cert.pem and key.pem lie beside meta.json, those that were given.
	UseTLS        bool `json:"TLS,omitempty"`
	SkipTLSVerify bool `json:"SkipTLSVerify,omitempty"`

	dir string
}

// TLSMaterial is PEM text to store with a context.
type TLSMaterial struct{ CA, Cert, Key []byte }

func (m TLSMaterial) empty() bool { return len(m.CA)+len(m.Cert)+len(m.Key) == 0 }

// Contexts is the store of contexts in the configuration folder. Every call
// reads the files anew; writers replace whole files atomically.
type Contexts struct{ dir string }

// NewContexts opens the store of a configuration folder, which need not exist.
func NewContexts(configDir string) *Contexts { return &Contexts{dir: configDir} }

// Settings is config.json of the configuration folder.
type Settings struct {
	CurrentContext string `json:"currentContext,omitempty"`
	DetachKeys     string `json:"detachKeys,omitempty"`
	PsFormat       string `json:"psFormat,omitempty"`
	ImagesFormat   string `json:"imagesFormat,omitempty"`
}

// Settings reads config.json; a missing file is the zero Settings.
func (c *Contexts) Settings() (Settings, error) {
	var s Settings
	b, err := os.ReadFile(filepath.Join(c.dir, "config.json"))
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("%s: %w", filepath.Join(c.dir, "config.json"), err)
	}
	return s, nil
}

// setCurrent changes one key of config.json and keeps what else is in it.
func (c *Contexts) setCurrent(name string) error {
	path := filepath.Join(c.dir, "config.json")
	all := map[string]json.RawMessage{}
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return err
	default:
		if err := json.Unmarshal(b, &all); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	if name == DefaultContext {
		delete(all, "currentContext")
	} else {
		quoted, err := json.Marshal(name)
		if err != nil {
			return err
		}
		all["currentContext"] = quoted
	}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	return atomicfile.WriteJSON(path, all, 0o600)
}

// CurrentName says which context applies when no flag names one, and why.
func (c *Contexts) CurrentName(getenv func(string) string) (name, source string) {
	for _, v := range []string{"CLEAT_CONTEXT", "DOCKER_CONTEXT"} {
		if n := getenv(v); n != "" {
			return n, v
		}
	}
	if s, err := c.Settings(); err == nil && s.CurrentContext != "" {
		return s.CurrentContext, filepath.Join(c.dir, "config.json")
	}
	return DefaultContext, "default"
}

func (c *Contexts) path(name string) string { return filepath.Join(c.dir, "contexts", name) }

// ValidContextName refuses what could leave the store's folder.
func ValidContextName(name string) error {
	if name == DefaultContext {
		return errdefs.Invalidf("context %q is built in: choose another name", name)
	}
	if !regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$`).MatchString(name) {
		return errdefs.Invalidf("context name %q is invalid: use letters, digits and _.+- (at least two characters)", name)
	}
	return nil
}

// Get finds a context by name.
func (c *Contexts) Get(name string) (Context, error) {
	if name == DefaultContext {
		return Context{Name: name, Description: "The daemon of this machine", Host: DefaultHost}, nil
	}
	if err := ValidContextName(name); err != nil {
		return Context{}, err
	}
	b, err := os.ReadFile(filepath.Join(c.path(name), "meta.json"))
	if errors.Is(err, os.ErrNotExist) {
		return Context{}, errdefs.WithHint(errdefs.NotFoundf("context %q does not exist", name),
			"`cleat context ls` shows the contexts, `cleat context create` makes one")
	}
	if err != nil {
		return Context{}, err
	}
	var out Context
	if err := json.Unmarshal(b, &out); err != nil {
		return Context{}, fmt.Errorf("context %q: %w", name, err)
	}
	out.Name, out.dir = name, c.path(name)
	return out, nil
}

// List gives all contexts, the default first, then by name.
func (c *Contexts) List() ([]Context, error) {
	def, err := c.Get(DefaultContext)
	if err != nil {
		return nil, err
	}
	out := []Context{def}
	entries, err := os.ReadDir(filepath.Join(c.dir, "contexts"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		x, err := c.Get(e.Name())
		if err != nil {
			continue // not a context: a stray file, or one being removed just now
		}
		out = append(out, x)
	}
	sort.Slice(out[1:], func(i, j int) bool { return out[i+1].Name < out[j+1].Name })
	return out, nil
}

// Create stores a new context.
func (c *Contexts) Create(x Context, m TLSMaterial) error {
	if err := ValidContextName(x.Name); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(c.path(x.Name), "meta.json")); err == nil {
		return errdefs.As(errdefs.ErrAlreadyExists, fmt.Errorf("context %q already exists", x.Name))
	}
	return c.write(x, m)
}

// Update replaces a context. Empty material keeps the stored files as long as
// the context still uses TLS.
func (c *Contexts) Update(x Context, m TLSMaterial) error {
	if _, err := c.Get(x.Name); err != nil {
		return err
	}
	if x.Name == DefaultContext {
		return ValidContextName(x.Name)
	}
	return c.write(x, m)
}

func (c *Contexts) write(x Context, m TLSMaterial) error {
	if _, err := ParseHost(x.Host); err != nil {
		return err
	}
	if err := os.MkdirAll(c.path(x.Name), 0o700); err != nil {
		return err
	}
	for name, pem := range map[string][]byte{"ca.pem": m.CA, "cert.pem": m.Cert, "key.pem": m.Key} {
		p := filepath.Join(c.path(x.Name), name)
		if len(pem) == 0 {
			if m.empty() && x.UseTLS {
				continue
			}
			if err := os.Remove(p); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
			continue
		}
		if err := atomicfile.WriteFile(p, pem, 0o600); err != nil {
			return err
		}
	}
	return atomicfile.WriteJSON(filepath.Join(c.path(x.Name), "meta.json"), x, 0o600)
}

// Use makes a context the current one.
func (c *Contexts) Use(name string) error {
	if _, err := c.Get(name); err != nil {
		return err
	}
	return c.setCurrent(name)
}

// Remove deletes a context; the current one only with force, which falls back to the default.
func (c *Contexts) Remove(name string, force bool) error {
	if _, err := c.Get(name); err != nil {
		if force && errors.Is(err, errdefs.ErrNotFound) {
			return nil
		}
		return err
	}
	if name == DefaultContext {
		return errdefs.Invalidf("context %q is built in and cannot be removed", name)
	}
	s, err := c.Settings()
	if err != nil {
		return err
	}
	if s.CurrentContext == name {
		if !force {
			return errdefs.WithHint(errdefs.Conflictf("context %q is in use", name),
				"choose another with `cleat context use`, or remove it with --force")
		}
		if err := c.setCurrent(DefaultContext); err != nil {
			return err
		}
	}
	return os.RemoveAll(c.path(name))
}

// Endpoint gives the address that the context stands for.
func (x Context) Endpoint() Endpoint {
	ep := Endpoint{Host: x.Host, Source: "context " + x.Name}
	if !x.UseTLS {
		return ep
	}
	pick := func(name string) string {
		if p := filepath.Join(x.dir, name); x.dir != "" && fileExists(p) {
			return p
		}
		return ""
	}
	ep.TLS = &TLSFiles{CA: pick("ca.pem"), Cert: pick("cert.pem"), Key: pick("key.pem"), SkipVerify: x.SkipTLSVerify}
	return ep
}
