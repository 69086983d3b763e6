package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/engine/filter"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

func (m *Manager) byName(name string) *bridgeNetwork {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, n := range m.networks {
		if n.Name == name {
			return n
		}
	}
	return nil
}

func (m *Manager) byLink(link string) *bridgeNetwork {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, n := range m.networks {
		if n.isBridge() && n.Link == link {
			return n
		}
	}
	return nil
}

// find resolves a name, an ID or an unambiguous prefix of one. mu is held.
func (m *Manager) find(ref string) (*bridgeNetwork, error) {
	if ref == network.NetworkDefault {
		ref = network.NetworkBridge
	}
	if n := m.networks[ref]; n != nil {
		return n, nil
	}
	var hits []*bridgeNetwork
	for id, n := range m.networks {
		if n.Name == ref {
			return n, nil
		}
		if ref != "" && strings.HasPrefix(id, ref) {
			hits = append(hits, n)
		}
	}
	switch len(hits) {
	case 1:
		return hits[0], nil
	case 0:
		return nil, errdefs.NotFoundf("network %s not found", ref)
	default:
		return nil, errdefs.Invalidf("network %s is ambiguous (%d matches found based on ID prefix)", ref, len(hits))
	}
}

// Inspect describes a network and who is in it.
func (m *Manager) Inspect(_ context.Context, ref string) (network.Inspect, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	n, err := m.find(ref)
	if err != nil {
		return network.Inspect{}, err
	}
	return m.inspect(n), nil
}

func (m *Manager) inspect(n *bridgeNetwork) network.Inspect {
	out := network.Inspect{Network: n.Network, Containers: map[string]network.EndpointResource{}}
	for id, s := range m.sandboxes {
		e := s.state.endpoint(n.ID)
		if e == nil {
			continue
		}
		out.Containers[id] = network.EndpointResource{
			Name: s.state.Request.Name, EndpointID: e.ID, MacAddress: e.MAC, IPv4Address: e.V4, IPv6Address: e.V6,
		}
	}
	status := &network.Status{IPAM: network.IPAMStatus{Subnets: network.SubnetStatuses{}}}
	for _, p := range n.pools {
		used := uint64(p.Used())
		st := network.SubnetStatus{IPsInUse: used}
		if host := p.Subnet().Addr().BitLen() - p.Subnet().Bits(); host < 63 {
			st.DynamicIPsAvailable = max(uint64(1)<<host, used+2) - used - 2
		}
		status.IPAM.Subnets[p.Subnet()] = st
	}
	if len(n.pools) > 0 {
		out.Status = status
	}
	return out
}

// List returns the networks that match, by name.
func (m *Manager) List(_ context.Context, f filter.Args) ([]network.Inspect, error) {
	if err := f.Validate("driver", "id", "label", "name", "scope", "type", "dangling"); err != nil {
		return nil, err
	}
	for _, t := range f["type"] {
		if t != "custom" && t != "builtin" {
			return nil, errdefs.Invalidf("invalid filter: 'type'='%s'", t)
		}
	}
	dangling, err := f.Bool("dangling", false)
	if err != nil {
		return nil, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	all := []network.Inspect{}
	for _, n := range m.networks {
		kind := "custom"
		if n.predefined() {
			kind = "builtin"
		}
		if !f.Exact("driver", n.Driver) || !f.Match("id", n.ID) || !f.Match("name", n.Name) || !f.Exact("scope", n.Scope) ||
			!f.Exact("type", kind) || !f.Labels("label", n.Labels) {
			continue
		}
		i := m.inspect(n)
		if f.Has("dangling") && dangling != (len(i.Containers) == 0 && !n.predefined()) {
			continue
		}
		all = append(all, i)
	}
	slices.SortFunc(all, func(a, b network.Inspect) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// Remove removes a network that nobody uses.
func (m *Manager) Remove(_ context.Context, ref string) error {
	m.changing.Lock()
	defer m.changing.Unlock()
	m.mu.Lock()
	n, err := m.find(ref)
	if err == nil {
		err = m.removable(n)
	}
	if err == nil {
		delete(m.networks, n.ID) // nobody joins from here on
	}
	m.mu.Unlock()
	if err != nil {
		return err
	}
	if err := m.undo(n); err != nil {
		m.mu.Lock()
		m.networks[n.ID] = n
		m.mu.Unlock()
		return err
	}
	m.publish(events.ActionDestroy, n, nil)
	return nil
}

func (m *Manager) removable(n *bridgeNetwork) error {
	if n.predefined() {
		return errdefs.Forbiddenf("%s is a pre-defined network and cannot be removed", n.Name)
	}
	var users []string
	for id, s := range m.sandboxes {
		if s.state.endpoint(n.ID) != nil {
			users = append(users, fmt.Sprintf("name:%q id:%q", s.state.Request.Name, id[:min(12, len(id))]))
		}
	}
	if len(users) > 0 {
		slices.Sort(users)
		return errdefs.WithHint(
			errdefs.Forbiddenf("error while removing network: network %s has active endpoints (%s)", n.Name, strings.Join(users, ", ")),
			"stop these containers, or take them out with `network disconnect`")
	}
	return nil
}

// Prune removes the networks that nobody uses; filters until, label, label!.
func (m *Manager) Prune(ctx context.Context, f filter.Args) (network.PruneReport, error) {
	if err := f.Validate("until", "label", "label!"); err != nil {
		return network.PruneReport{}, err
	}
	until, err := parseUntil(f, time.Now())
	if err != nil {
		return network.PruneReport{}, err
	}
	m.mu.RLock()
	var names []string
	for _, n := range m.networks {
		if m.removable(n) == nil && f.Labels("label", n.Labels) && f.NotLabels("label!", n.Labels) && (until.IsZero() || n.Created.Before(until)) {
			names = append(names, n.Name)
		}
	}
	m.mu.RUnlock()
	slices.Sort(names)
	var report network.PruneReport
	var errs []error
	for _, name := range names {
		switch err := m.Remove(ctx, name); {
		case err == nil:
			report.NetworksDeleted = append(report.NetworksDeleted, name)
		case errors.Is(err, errdefs.ErrNotFound), errors.Is(err, errdefs.ErrPermissionDenied):
			// Removed or used meanwhile.
		default:
			errs = append(errs, err)
		}
	}
	if len(report.NetworksDeleted) > 0 {
		m.events.Publish(events.NetworkEventType, events.ActionPrune, "", map[string]string{"reclaimed": "0"})
	}
	return report, errors.Join(errs...)
}

func parseUntil(f filter.Args, now time.Time) (time.Time, error) {
	if !f.Has("until") {
		return time.Time{}, nil
	}
	v := f["until"][0]
	if d, err := time.ParseDuration(v); err == nil {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02"} {
		if t, err := time.Parse(layout, v); err == nil {
			return t, nil
		}
	}
	if n, err := strconv.ParseInt(v, 10, 64); err == nil { // seconds since 1970
		return time.Unix(n, 0), nil
	}
	return time.Time{}, errdefs.Invalidf("invalid filter: 'until'='%s' is neither a time nor a duration", v)
}

// Validate refuses networks that do not exist and addresses that cannot be had.
func (m *Manager) Validate(_ context.Context, endpoints map[string]*network.EndpointSettings) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for ref, e := range endpoints {
		n, err := m.find(ref)
		if err != nil {
			return err
		}
		if err := checkEndpoint(n, e); err != nil {
			return err
		}
	}
	return nil
}

func checkEndpoint(n *bridgeNetwork, e *network.EndpointSettings) error {
	if e == nil {
		return nil
	}
	if n.predefined() && len(e.Aliases) > 0 && n.Name != network.NetworkBridge {
		return errdefs.Invalidf("network-scoped aliases are only supported for user-defined networks")
	}
	if name := e.DriverOpts[optIfname]; len(name) > maxIfname || strings.ContainsAny(name, "/ :\t\n") || name == "." || name == ".." {
		return errdefs.Invalidf("invalid interface name %q", name)
	}
	if e.IPAMConfig == nil {
		return nil
	}
	for _, a := range []netip.Addr{e.IPAMConfig.IPv4Address, e.IPAMConfig.IPv6Address} {
		if !a.IsValid() {
			continue
		}
		if n.predefined() {
			return errdefs.Invalidf("user specified IP address is supported on user defined networks only")
		}
		if !n.UserSubnet {
			return errdefs.Invalidf("user specified IP address is supported only when connecting to networks with user configured subnets")
		}
		if p := n.pool(a.Is6()); p == nil || !p.Contains(a) {
			return errdefs.Invalidf("no configured subnet contains IP address %s", a)
		}
	}
	return nil
}
