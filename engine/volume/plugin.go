package volume

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

// plugin is a client of Docker's volume plugin protocol, version 1.2: POST of
// JSON to /VolumeDriver.*, an Err in the answer when it failed.
type plugin struct {
	name    string
	http    *http.Client
	base    string // scheme and host
	timeout time.Duration

	mu     sync.Mutex
	active bool
	known  string // scope, once asked for
}

const (
	pluginMedia = "application/vnd.docker.plugins.v1.2+json"
	// maxAnswer bounds what a plugin may make us read.
	maxAnswer = 16 << 20
)

type pluginVolume struct {
	Name       string
	Mountpoint string
	CreatedAt  string
	Status     map[string]any
}

// activate does the handshake once.
func (p *plugin) activate(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.active {
		return nil
	}
	var got struct{ Implements []string }
	if err := p.call(ctx, "Plugin.Activate", nil, &got); err != nil {
		return err
	}
	if !slices.Contains(got.Implements, "VolumeDriver") {
		return errdefs.Invalidf("plugin %q does not implement VolumeDriver", p.name)
	}
	p.active = true
	return nil
}

func (p *plugin) create(ctx context.Context, name string, opts map[string]string) error {
	if opts == nil {
		opts = map[string]string{}
	}
	return p.do(ctx, "Create", map[string]any{"Name": name, "Opts": opts}, &pluginAnswer{})
}

func (p *plugin) remove(ctx context.Context, name string) error {
	return p.do(ctx, "Remove", map[string]any{"Name": name}, &pluginAnswer{})
}

func (p *plugin) mount(ctx context.Context, name, user string) (string, error) {
	var a pluginAnswer
	if err := p.do(ctx, "Mount", map[string]any{"Name": name, "ID": user}, &a); err != nil {
		return "", err
	}
	if !filepath.IsAbs(a.Mountpoint) {
		return "", fmt.Errorf("volume plugin %q returned no absolute mount point: %q", p.name, a.Mountpoint)
	}
	return filepath.Clean(a.Mountpoint), nil
}

func (p *plugin) unmount(ctx context.Context, name, user string) error {
	return p.do(ctx, "Unmount", map[string]any{"Name": name, "ID": user}, &pluginAnswer{})
}

func (p *plugin) inspect(ctx context.Context, name string) (pluginVolume, error) {
	var a pluginAnswer
	if err := p.do(ctx, "Get", map[string]any{"Name": name}, &a); err != nil {
		return pluginVolume{}, err
	}
	if a.Volume == nil || a.Volume.Name != name {
		return pluginVolume{}, errdefs.NotFoundf("no such volume")
	}
	return *a.Volume, nil
}

func (p *plugin) list(ctx context.Context) ([]pluginVolume, error) {
	var a pluginAnswer
	err := p.do(ctx, "List", map[string]any{}, &a)
	return a.Volumes, err
}

// scope is "local" unless the plugin says "global".
func (p *plugin) scope(ctx context.Context) string {
	p.mu.Lock()
	known := p.known
	p.mu.Unlock()
	if known != "" {
		return known
	}
	var a pluginAnswer
	if err := p.do(ctx, "Capabilities", map[string]any{}, &a); err != nil {
		// Plugins from before the method answer 404: they are local. Others may
		// be able to tell later.
		return localDriver
	}
	known = localDriver
	if a.Capabilities.Scope == "global" {
		known = "global"
	}
	p.mu.Lock()
	p.known = known
	p.mu.Unlock()
	return known
}

// pluginAnswer is the union of all answers.
type pluginAnswer struct {
	Err          string
	Mountpoint   string
	Volume       *pluginVolume
	Volumes      []pluginVolume
	Capabilities struct{ Scope string }
}

// pluginError is what a plugin answered.
type pluginError struct{ method, msg string }

func (e *pluginError) Error() string { return "VolumeDriver." + e.method + ": " + e.msg }

func (p *plugin) do(ctx context.Context, method string, req any, a *pluginAnswer) error {
	if err := p.activate(ctx); err != nil {
		return err
	}
	if err := p.call(ctx, "VolumeDriver."+method, req, a); err != nil {
		return err
	}
	if a.Err != "" {
		return &pluginError{method, a.Err}
	}
	return nil
}

func (p *plugin) call(ctx context.Context, path string, req, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	body := []byte{}
	if req != nil {
		var err error
		if body, err = json.Marshal(req); err != nil {
			return err
		}
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, p.base+"/"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Accept", pluginMedia)
	r.Header.Set("Content-Type", "application/json")
	resp, err := p.http.Do(r)
	if err != nil {
		return errdefs.Unavailablef("volume plugin %q cannot be reached: %w", p.name, err)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return errdefs.Unavailablef("volume plugin %q: %w", p.name, err)
	}
	if resp.StatusCode != http.StatusOK {
		var a pluginAnswer
		if json.Unmarshal(data, &a) == nil && a.Err != "" {
			return fmt.Errorf("%s: %s", path, a.Err)
		}
		return fmt.Errorf("%s: volume plugin %q answered %s", path, p.name, resp.Status)
	}
	if err := json.Unmarshal(data, answer); err != nil {
		return fmt.Errorf("%s: volume plugin %q answered no JSON: %w", path, p.name, err)
	}
	return nil
}
