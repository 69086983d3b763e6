package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/cleatlabs/cleat/engine/network/kernel"
	"github.com/cleatlabs/cleat/engine/network/rules"
	"github.com/cleatlabs/cleat/internal/atomicfile"
)

// Restore adopts the sandboxes named, as an earlier life of the daemon left
// them, and removes all others and what a crash left of them.
func (m *Manager) Restore(_ context.Context, live []string) error {
	entries, err := os.ReadDir(m.cfg.Run)
	if err != nil {
		return err
	}
	ids := map[string]bool{}
	for _, e := range entries {
		ids[strings.TrimSuffix(e.Name(), ".json")] = true
	}
	var errs []error
	for id := range ids {
		if !slices.Contains(live, id) {
			errs = append(errs, m.removeFiles(id))
			continue
		}
		if err := m.adopt(id); err != nil {
			// The container runs on; only what the daemon does for it is missing.
			m.log.Error("the network of a container cannot be adopted", "container", id, "error", err)
		}
	}
	if err := m.rebuildRules(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(append(errs, m.removeStrayLinks())...)
}

func (m *Manager) adopt(id string) error {
	s := &sandbox{id: id, path: m.sandboxPath(id)}
	if err := atomicfile.ReadJSON(m.statePath(id), &s.state); err != nil {
		return err
	}
	m.mu.Lock()
	for _, e := range s.state.Endpoints {
		n := m.networks[e.Network]
		if n == nil {
			continue
		}
		for _, p := range []netip.Prefix{e.V4, e.V6} {
			if pool := n.pool(p.Addr().Is6()); p.IsValid() && pool != nil {
				if err := pool.Take(p.Addr()); err != nil {
					m.log.Warn("an address is in use twice", "address", p.Addr(), "container", id, "error", err)
				}
			}
		}
	}
	m.sandboxes[id] = s
	needDNS := m.namesNeeded(s)
	m.mu.Unlock()

	s.changing.Lock()
	defer s.changing.Unlock()
	var errs []error
	for _, r := range s.state.Proxied {
		h, err := m.relay(id, r)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		s.holds = append(s.holds, h)
	}
	if needDNS {
		errs = append(errs, m.inside(s, func(f *kernel.Fresh) error { return m.serveNames(s, f, true) }))
	}
	return errors.Join(errs...)
}

// rebuildRules makes the table what the networks and sandboxes say.
func (m *Manager) rebuildRules() error {
	m.mu.RLock()
	var bridges []rules.Bridge
	var ports []rules.Publish
	for _, n := range m.networks {
		if n.isBridge() {
			bridges = append(bridges, n.rules())
		}
	}
	for _, s := range m.sandboxes {
		ports = append(ports, s.state.Published...)
	}
	m.mu.RUnlock()
	return m.table.Replace(bridges, ports)
}

// removeStrayLinks removes ports of our bridges that belong to no sandbox.
func (m *Manager) removeStrayLinks() error {
	links, err := m.conn.Links()
	if err != nil {
		return err
	}
	m.mu.RLock()
	ours, known := map[int]bool{}, map[string]bool{}
	for _, n := range m.networks {
		if n.isBridge() && n.Made {
			ours[n.index] = true
		}
	}
	for _, s := range m.sandboxes {
		for _, e := range s.state.Endpoints {
			known[e.HostLink] = true
		}
	}
	m.mu.RUnlock()
	var errs []error
	for _, l := range links {
		if l.Kind == "veth" && ours[l.Master] && !known[l.Name] {
			if err := deleteLink(m.conn, l.Name); err != nil {
				errs = append(errs, fmt.Errorf("left by a crash: %w", err))
			}
		}
	}
	return errors.Join(errs...)
}
