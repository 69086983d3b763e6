package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/engine/network/kernel"
	"github.com/cleatlabs/cleat/engine/network/nameserver"
	"github.com/cleatlabs/cleat/engine/network/rules"
	"github.com/cleatlabs/cleat/internal/atomicfile"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

// sandboxState is what a later life of the daemon needs; it is in run/ID.json.
// The run folder ends with the machine's uptime, as the namespaces do.
type sandboxState struct {
	Request   SandboxRequest
	Endpoints []*endpoint
	Ports     network.PortMap
	Published []rules.Publish
	// Proxied are the ports that the daemon itself relays.
	Proxied []relay
}

func (s *sandboxState) endpoint(networkID string) *endpoint {
	for _, e := range s.Endpoints {
		if e.Network == networkID {
			return e
		}
	}
	return nil
}

// sandbox is an open namespace.
type sandbox struct {
	id   string
	path string

	// changing serialises Setup, Connect, Disconnect and Close.
	changing sync.Mutex
	fresh    *kernel.Fresh // between Open and Setup
	state    sandboxState  // guarded by Manager.mu
	dns      *nameserver.Server
	holds    []*hold
}

func (m *Manager) sandboxPath(id string) string { return filepath.Join(m.cfg.Run, id) }
func (m *Manager) statePath(id string) string   { return filepath.Join(m.cfg.Run, id+".json") }

func (m *Manager) sandbox(id string) (*sandbox, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	s := m.sandboxes[id]
	if s == nil {
		return nil, errdefs.NotFoundf("container %s has no network sandbox", id)
	}
	return s, nil
}

// Open makes the namespace of r, or adopts the one that it names, and pins it.
func (m *Manager) Open(_ context.Context, r SandboxRequest) (string, error) {
	if r.ID == "" || r.ID != filepath.Base(r.ID) {
		return "", errdefs.Invalidf("invalid sandbox ID %q", r.ID)
	}
	s := &sandbox{id: r.ID, path: m.sandboxPath(r.ID), state: sandboxState{Request: r}}
	m.mu.Lock()
	_, exists := m.sandboxes[r.ID]
	if !exists {
		m.sandboxes[r.ID] = s
	}
	m.mu.Unlock()
	if exists {
		return "", errdefs.Conflictf("container %s has a network sandbox already", r.ID)
	}
	err := m.open(s, r)
	if err != nil {
		m.mu.Lock()
		delete(m.sandboxes, r.ID)
		m.mu.Unlock()
		return "", err
	}
	return s.path, nil
}

func (m *Manager) open(s *sandbox, r SandboxRequest) (err error) {
	if r.Adopt == "" {
		s.fresh, err = m.spare.take(m.home)
	} else {
		s.fresh, err = m.enter(r.Adopt)
	}
	if err != nil {
		return err
	}
	if err := s.fresh.Pin(s.path); err != nil {
		return errors.Join(err, s.letGo())
	}
	return nil
}

// enter opens an existing namespace with a socket in it.
func (m *Manager) enter(path string) (*kernel.Fresh, error) {
	ns, err := kernel.OpenNamespace(path)
	if err != nil {
		return nil, err
	}
	f := &kernel.Fresh{Namespace: ns}
	err = ns.Do(m.home, func() (err error) {
		if f.Conn, err = kernel.Dial(); err != nil {
			return err
		}
		return f.Conn.Do(kernel.LinkUp(1))
	})
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (s *sandbox) letGo() error {
	if s.fresh == nil {
		return nil
	}
	err := s.fresh.Close()
	s.fresh = nil
	return err
}

// inside calls f with a socket in the sandbox's namespace.
func (m *Manager) inside(s *sandbox, f func(*kernel.Fresh) error) error {
	if s.fresh != nil {
		return f(s.fresh)
	}
	fresh, err := m.enter(s.path)
	if err != nil {
		return err
	}
	return errors.Join(f(fresh), fresh.Close())
}

// Setup fills the namespace that Open made. On an error, Close must follow.
func (m *Manager) Setup(_ context.Context, r SandboxRequest) (*Sandbox, error) {
	s, err := m.sandbox(r.ID)
	if err != nil {
		return nil, err
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	defer m.spare.more()
	m.mu.Lock()
	s.state.Request = r
	m.mu.Unlock()
	for _, ref := range joinOrder(r.Endpoints) {
		if err := m.join(s, ref, r.Endpoints[ref]); err != nil {
			return nil, err
		}
	}
	if err := m.settle(s); err != nil {
		return nil, err
	}
	if err := m.publishPorts(s); err != nil {
		return nil, err
	}
	if len(r.Sysctls) > 0 {
		var all [][2]string
		for _, k := range slices.Sorted(maps.Keys(r.Sysctls)) {
			all = append(all, [2]string{k, r.Sysctls[k]})
		}
		if err := m.inside(s, func(f *kernel.Fresh) error { return f.Do(m.home, func() error { return writeSysctls(all, "") }) }); err != nil {
			return nil, err
		}
	}
	if err := s.letGo(); err != nil {
		return nil, err
	}
	return m.report(s), m.saveSandbox(s)
}

// joinOrder is the order of joining: the network that gives the default
// gateway first, which is eth0.
func joinOrder(endpoints map[string]*network.EndpointSettings) []string {
	names := make([]string, 0, len(endpoints))
	for name := range endpoints {
		names = append(names, name)
	}
	priority := func(name string) int {
		if e := endpoints[name]; e != nil {
			return e.GwPriority
		}
		return 0
	}
	slices.SortFunc(names, func(a, b string) int {
		if d := priority(b) - priority(a); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	return names
}

// writeSysctls writes sysctls of the calling thread's namespace. The name of
// link may have dots of its own.
func writeSysctls(sysctls [][2]string, link string) error {
	for _, kv := range sysctls {
		name, err := sysctlPath(kv[0], link)
		if err != nil {
			return err
		}
		if err := kernel.WriteSysctl(name, kv[1]); err != nil {
			return errdefs.As(errdefs.ErrInvalidArgument, err)
		}
	}
	return nil
}

// sysctlPath turns net.ipv4.conf.eth0.x into ipv4/conf/eth0/x. It is pure.
func sysctlPath(name, link string) (string, error) {
	rest, ok := strings.CutPrefix(strings.ReplaceAll(name, "/", "."), "net.")
	if !ok || strings.Contains(rest, "..") {
		return "", errdefs.Invalidf("sysctl %s is not of the network", name)
	}
	head, tail, named := strings.Cut(rest, "."+link+".")
	if link == "" || !named {
		return strings.ReplaceAll(rest, ".", "/"), nil
	}
	return strings.ReplaceAll(head, ".", "/") + "/" + link + "/" + strings.ReplaceAll(tail, ".", "/"), nil
}

// settle sets what depends on all endpoints: the default routes and the name
// server.
func (m *Manager) settle(s *sandbox) error {
	m.mu.RLock()
	routes := m.gatewayRoutes(s)
	needDNS := m.namesNeeded(s)
	m.mu.RUnlock()
	if len(routes) == 0 && (!needDNS || s.dns != nil) {
		return nil
	}
	return m.inside(s, func(f *kernel.Fresh) error {
		for _, r := range routes {
			l, err := f.Conn.LinkByName(r.link)
			if err != nil {
				return err
			}
			if err := f.Conn.Do(kernel.AddRoute(l.Index, r.dst, r.via)); err != nil {
				return fmt.Errorf("default route by %s: %w", r.via, err)
			}
		}
		if needDNS && s.dns == nil {
			return m.serveNames(s, f, s.fresh == nil || s.state.Request.Adopt != "")
		}
		return nil
	})
}

func (m *Manager) saveSandbox(s *sandbox) error {
	m.mu.RLock()
	data, err := json.Marshal(&s.state)
	m.mu.RUnlock()
	if err != nil {
		return err
	}
	return atomicfile.WriteVolatile(m.statePath(s.id), data, 0o600)
}

func (m *Manager) report(s *sandbox) *Sandbox {
	m.mu.RLock()
	defer m.mu.RUnlock()
	out := &Sandbox{ID: s.id, Path: s.path, Ports: s.state.Ports, Endpoints: map[string]*network.EndpointSettings{}}
	for _, e := range s.state.Endpoints {
		out.Endpoints[e.Name] = m.settings(s, e)
	}
	out.Hosts, out.ResolvConf = m.files(s)
	return out
}

// stopServing ends what the daemon does for a sandbox: names, relays, held ports.
func (s *sandbox) stopServing() error {
	s.changing.Lock()
	defer s.changing.Unlock()
	return s.endServices()
}

func (s *sandbox) endServices() error {
	var errs []error
	if s.dns != nil {
		errs = append(errs, s.dns.Close())
		s.dns = nil
	}
	for _, h := range s.holds {
		errs = append(errs, h.close())
	}
	s.holds = nil
	return errors.Join(append(errs, s.letGo())...)
}

// Close undoes Open and Setup, whatever became of them; it is safe to repeat.
func (m *Manager) Close(_ context.Context, id string) error {
	s, err := m.sandbox(id)
	if err != nil {
		return m.removeFiles(id)
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	errs := []error{m.unpublish(s), s.endServices()}
	m.mu.RLock()
	left := s.state.Endpoints
	m.mu.RUnlock()
	for _, e := range left {
		// A namespace that is not ours alone is cleared of what we put in;
		// and a macvlan would be in the way of the next one with its address.
		if s.state.Request.Adopt != "" || e.HostLink == "" {
			if err := m.leave(s, e); err != nil {
				m.log.Debug("an interface is left to the kernel", "interface", e.Link, "container", id, "error", err)
			}
		}
	}
	m.mu.Lock()
	for _, e := range left {
		if s.state.Request.Adopt != "" || e.HostLink == "" {
			m.release(e)
		} else {
			m.dying = append(m.dying, e)
		}
	}
	s.state.Endpoints = nil
	if m.sandboxes[id] == s {
		delete(m.sandboxes, id)
	}
	m.mu.Unlock()
	errs = append(errs, m.removeFiles(id))
	for _, e := range left {
		m.announce(s, e, events.ActionDisconnect)
	}
	return errors.Join(errs...)
}

// removeFiles lets the namespace go. The kernel takes it down, with the
// interfaces in it and their other ends, when the last process has left.
func (m *Manager) removeFiles(id string) error {
	err := kernel.Unpin(m.sandboxPath(id))
	if rerr := os.Remove(m.statePath(id)); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	return err
}

// Rename changes the DNS name of a live sandbox.
func (m *Manager) Rename(_ context.Context, id, name string) error {
	s, err := m.sandbox(id)
	if err != nil {
		return err
	}
	m.mu.Lock()
	s.state.Request.Name = name
	m.mu.Unlock()
	return m.saveSandbox(s)
}

// Connect adds a network to a sandbox.
func (m *Manager) Connect(_ context.Context, id, ref string, e *network.EndpointSettings) (*Sandbox, error) {
	s, err := m.sandbox(id)
	if err != nil {
		return nil, err
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	if err := m.join(s, ref, e); err != nil {
		return nil, err
	}
	return m.resettle(s)
}

// Disconnect takes a network out of a sandbox.
func (m *Manager) Disconnect(_ context.Context, id, ref string, force bool) (*Sandbox, error) {
	s, err := m.sandbox(id)
	if err != nil {
		return nil, err
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	m.mu.Lock()
	n, err := m.find(ref)
	var e *endpoint
	if err == nil {
		if e = s.state.endpoint(n.ID); e == nil && !force {
			err = errdefs.Forbiddenf("container %s is not connected to network %s", id, n.Name)
		}
	}
	if e != nil {
		s.state.Endpoints = slices.DeleteFunc(s.state.Endpoints, func(x *endpoint) bool { return x == e })
	}
	m.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if e != nil {
		if err := m.leave(s, e); err != nil {
			return nil, err
		}
		m.mu.Lock()
		m.release(e)
		m.mu.Unlock()
		m.announce(s, e, events.ActionDisconnect)
	}
	return m.resettle(s)
}

// resettle makes routes, names and ports fit the endpoints of a live sandbox,
// after these have changed.
func (m *Manager) resettle(s *sandbox) (*Sandbox, error) {
	if err := m.settle(s); err != nil {
		return nil, err
	}
	publish := m.aim
	if len(s.holds) == 0 {
		publish = m.publishPorts // the first network that ports can lead to
	}
	if err := publish(s); err != nil {
		return nil, err
	}
	return m.report(s), m.saveSandbox(s)
}
