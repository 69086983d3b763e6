package container

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/opencontainers/go-digest"

	"github.com/cleatlabs/cleat/engine/filter"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

// List shows the containers that the options select, newest first.
func (s *Service) List(ctx context.Context, o ListOptions) ([]container.Summary, error) {
	sel, err := s.selection(ctx, o)
	if err != nil {
		return nil, err
	}
	var recs []record
	for _, c := range s.all() {
		if r := c.snapshot(); sel.bounds(&r) {
			recs = append(recs, r)
		}
	}
	slices.SortFunc(recs, func(a, b record) int {
		return cmp.Or(b.Created.Compare(a.Created), strings.Compare(a.ID, b.ID))
	})
	now := s.clock.Now()
	out := []container.Summary{}
	for i := range recs {
		r := &recs[i]
		if o.Limit > 0 && len(out) == o.Limit {
			break
		}
		if ok, err := sel.matches(r); err != nil {
			return nil, err
		} else if !ok {
			continue
		}
		sum := summary(r, now)
		if o.Size {
			rw, total, err := s.deps.Images.SnapshotUsage(ctx, r.ID)
			if err != nil && !errors.Is(err, errdefs.ErrNotFound) { // removed meanwhile
				return nil, err
			}
			sum.SizeRw, sum.SizeRootFs = rw.Size, total
		}
		out = append(out, sum)
	}
	return out, nil
}

// selection is a list's filters, with what they name looked up.
type selection struct {
	f             filter.Args
	all           bool
	before, since time.Time
	ancestors     []digest.Digest
	networks      []string // names and IDs
	publish       []portRange
	expose        []portRange
	exited        []int
}

func (s *Service) selection(ctx context.Context, o ListOptions) (*selection, error) {
	f := o.Filters
	err := f.Validate("ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label", "label!",
		"name", "network", "publish", "since", "status", "volume")
	if err != nil {
		return nil, err
	}
	sel := &selection{f: f, all: o.All || o.Limit > 0 || f.Has("status") || f.Has("exited") || f.Has("before") || f.Has("since")}
	for _, v := range f["status"] {
		if err := container.ValidateContainerState(state(v)); err != nil {
			return nil, errdefs.Invalidf("invalid filter 'status=%s'", v)
		}
	}
	for _, v := range f["health"] {
		if err := container.ValidateHealthStatus(container.HealthStatus(v)); err != nil {
			return nil, errdefs.Invalidf("invalid filter 'health=%s'", v)
		}
	}
	for _, v := range f["exited"] {
		code, err := strconv.Atoi(v)
		if err != nil {
			return nil, errdefs.Invalidf("invalid filter 'exited=%s'", v)
		}
		sel.exited = append(sel.exited, code)
	}
	if sel.publish, err = parsePorts(f["publish"]); err != nil {
		return nil, err
	}
	if sel.expose, err = parsePorts(f["expose"]); err != nil {
		return nil, err
	}
	for key, p := range map[string]*time.Time{"before": &sel.before, "since": &sel.since} {
		for _, ref := range f[key] {
			c, err := s.lookup(ref)
			if err != nil {
				return nil, err
			}
			*p = c.snapshot().Created
		}
	}
	for _, ref := range f["ancestor"] {
		img, err := s.deps.Images.Get(ctx, ref, nil)
		if errors.Is(err, errdefs.ErrNotFound) {
			continue // it matches nothing
		}
		if err != nil {
			return nil, err
		}
		sel.ancestors = append(sel.ancestors, img.ID)
	}
	for _, ref := range f["network"] {
		sel.networks = append(sel.networks, ref)
		if n, err := s.deps.Networks.Inspect(ctx, ref); err == nil {
			sel.networks = append(sel.networks, n.Name, n.ID)
		}
	}
	return sel, nil
}

// bounds is the part that does not depend on the container's content.
func (sel *selection) bounds(r *record) bool {
	return (sel.all || active(r.State)) &&
		(sel.before.IsZero() || r.Created.Before(sel.before)) && (sel.since.IsZero() || r.Created.After(sel.since))
}

func (sel *selection) matches(r *record) (bool, error) {
	f := sel.f
	if len(f) == 0 {
		return true, nil
	}
	if isTask, err := f.Bool("is-task", false); err != nil || isTask {
		return false, err // there are no tasks
	}
	health := r.Health
	setDefault(&health, container.NoHealthcheck)
	return f.Match("id", r.ID) && (f.Match("name", r.Name) || f.Match("name", "/"+r.Name)) &&
		f.Exact("status", string(r.State)) && f.Exact("health", string(health)) &&
		f.Labels("label", r.Config.Labels) && f.NotLabels("label!", r.Config.Labels) &&
		f.Exact("isolation", string(r.HostConfig.Isolation)) &&
		(len(sel.exited) == 0 || !active(r.State) && !r.FinishedAt.IsZero() && slices.Contains(sel.exited, r.ExitCode)) &&
		(!f.Has("ancestor") || slices.Contains(sel.ancestors, r.Image) || slices.Contains(f["ancestor"], r.Config.Image)) &&
		(!f.Has("volume") || sel.hasVolume(r)) && (!f.Has("network") || sel.hasNetwork(r)) &&
		(!f.Has("publish") || hasPort(sel.publish, maps.Keys(r.Ports))) &&
		(!f.Has("expose") || hasPort(sel.expose, maps.Keys(r.Config.ExposedPorts))), nil
}

func (sel *selection) hasVolume(r *record) bool {
	return slices.ContainsFunc(r.Mounts, func(m mountPoint) bool {
		return slices.ContainsFunc(sel.f["volume"], func(v string) bool {
			return v == m.Name || v == m.Destination || m.Name == "" && v == m.Source
		})
	})
}

func (sel *selection) hasNetwork(r *record) bool {
	for name, e := range endpoints(r) {
		for _, n := range sel.networks {
			if n == name || e.NetworkID != "" && strings.HasPrefix(e.NetworkID, n) {
				return true
			}
		}
	}
	return false
}

// portRange is a value of the filters publish and expose: "80", "80/udp", "8000-8010/tcp".
type portRange struct {
	first, last uint16
	proto       string
}

func parsePorts(values []string) ([]portRange, error) {
	var out []portRange
	for _, v := range values {
		text, proto, _ := strings.Cut(v, "/")
		setDefault(&proto, "tcp")
		from, to, isRange := strings.Cut(text, "-")
		if !isRange {
			to = from
		}
		a, err := strconv.ParseUint(from, 10, 16)
		b, err2 := strconv.ParseUint(to, 10, 16)
		if err != nil || err2 != nil || b < a {
			return nil, errdefs.Invalidf("invalid port: %q", v)
		}
		out = append(out, portRange{uint16(a), uint16(b), proto})
	}
	return out, nil
}

func hasPort(want []portRange, have func(func(network.Port) bool)) bool {
	for p := range have {
		for _, w := range want {
			if string(p.Proto()) == w.proto && p.Num() >= w.first && p.Num() <= w.last {
				return true
			}
		}
	}
	return false
}

func summary(r *record, now time.Time) container.Summary {
	sum := container.Summary{
		ID: r.ID, Names: []string{"/" + r.Name}, Image: r.Config.Image, ImageID: r.Image.String(),
		ImageManifestDescriptor: r.Manifest, Command: commandLine(r.Config), Created: r.Created.Unix(),
		Ports: portSummaries(r), Labels: r.Config.Labels, State: r.State, Status: statusText(r, now),
		NetworkSettings: &container.NetworkSettingsSummary{Networks: endpoints(r)}, Mounts: apiMounts(r),
	}
	if sum.Labels == nil {
		sum.Labels = map[string]string{}
	}
	sum.HostConfig.NetworkMode = string(r.HostConfig.NetworkMode)
	sum.HostConfig.Annotations = r.HostConfig.Annotations
	health := r.Health
	setDefault(&health, container.NoHealthcheck)
	sum.Health = &container.HealthSummary{Status: health, FailingStreak: r.FailingStreak}
	return sum
}

// commandLine is as Docker shows it: arguments with spaces are in quotes.
func commandLine(c *container.Config) string {
	words := slices.Concat(c.Entrypoint, c.Cmd)
	for i, w := range words {
		if i > 0 && strings.Contains(w, " ") {
			words[i] = "'" + w + "'"
		}
	}
	return strings.Join(words, " ")
}

// statusText is Docker's description of a state for people.
func statusText(r *record, now time.Time) string {
	since := func(t time.Time) string { return units.HumanDuration(max(0, now.Sub(t))) }
	switch r.State {
	case container.StatePaused:
		return "Up " + since(r.StartedAt) + " (Paused)"
	case container.StateRunning:
		up := "Up " + since(r.StartedAt)
		switch r.Health {
		case "", container.NoHealthcheck:
			return up
		case container.Starting:
			return up + " (health: starting)"
		}
		return up + " (" + string(r.Health) + ")"
	case container.StateRestarting:
		return fmt.Sprintf("Restarting (%d) %s ago", r.ExitCode, since(r.FinishedAt))
	case container.StateRemoving:
		return "Removal In Progress"
	case container.StateDead:
		return "Dead"
	case container.StateCreated:
		return "Created"
	}
	if r.FinishedAt.IsZero() {
		return ""
	}
	return fmt.Sprintf("Exited (%d) %s ago", r.ExitCode, since(r.FinishedAt))
}

// portSummaries are the published ports, and the exposed ones that are not.
func portSummaries(r *record) []container.PortSummary {
	out := []container.PortSummary{}
	if !live(r.State) {
		return out
	}
	for p, bindings := range r.Ports {
		for _, b := range bindings {
			host, err := strconv.ParseUint(b.HostPort, 10, 16)
			if err != nil {
				continue // not published after all
			}
			ip := b.HostIP
			if !ip.IsValid() {
				ip = netip.IPv4Unspecified()
			}
			out = append(out, container.PortSummary{IP: ip, PrivatePort: p.Num(), PublicPort: uint16(host), Type: string(p.Proto())})
		}
	}
	for p := range r.Config.ExposedPorts {
		if len(r.Ports[p]) == 0 {
			out = append(out, container.PortSummary{PrivatePort: p.Num(), Type: string(p.Proto())})
		}
	}
	slices.SortFunc(out, func(a, b container.PortSummary) int {
		return cmp.Or(cmp.Compare(a.PrivatePort, b.PrivatePort), strings.Compare(a.Type, b.Type),
			a.IP.Compare(b.IP), cmp.Compare(a.PublicPort, b.PublicPort))
	})
	return out
}
