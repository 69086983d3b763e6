package container

import (
	"fmt"
	"net/netip"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/docker/cli/opts"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/cleatlabs/cleat/cli/completion"
	"github.com/cleatlabs/cleat/cli/env"
	"github.com/cleatlabs/cleat/cli/formatting"
)

// NewListCommand is `cleat ps` and `cleat container ls`.
func NewListCommand(e *env.Env, name string) *cobra.Command {
	var (
		out               formatting.Flags
		all, size, latest bool
		last              int
		filter            = opts.NewFilterOpt()
	)
	spec := env.Spec{
		Use:   name + " [OPTIONS]",
		Short: "List containers",
		Example: `cleat ps -a
			cleat ps --filter status=exited -q
			cleat ps --format 'table {{.Names}}\t{{.Status}}'`,
		Args: env.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) error {
			if out.Format == "" && !out.Quiet {
				if s, err := e.Settings(); err == nil {
					out.Format = s.PsFormat
				}
			}
			o := moby.ContainerListOptions{All: all, Limit: last, Filters: filter.Value(), Size: size || needsSize(out)}
			if latest && last == -1 {
				o.Limit = 1
			}
			engine, err := e.Engine()
			if err != nil {
				return err
			}
			res, err := engine.ContainerList(cmd.Context(), o)
			if err != nil {
				return err
			}
			return List(res.Items, out, size, time.Now()).Print(e.Out)
		},
	}
	if name == "ls" {
		spec.Aliases = []string{"ps", "list"}
	}
	cmd := env.Command(spec)
	fs := cmd.Flags()
	out.AddList(fs, "container IDs")
	fs.BoolVarP(&all, "all", "a", false, "Show all containers (default shows just running)")
	fs.BoolVarP(&size, "size", "s", false, "Display total file sizes")
	fs.IntVarP(&last, "last", "n", -1, "Show n last created containers (includes all states)")
	fs.BoolVarP(&latest, "latest", "l", false, "Show the latest created container (includes all states)")
	fs.VarP(&filter, "filter", "f", "Filter output based on conditions provided")
	completion.Flag(cmd, "filter", completion.Words("ancestor=", "before=", "exited=", "expose=", "health=", "id=", "is-task=", "label=", "name=", "network=", "publish=", "since=", "status=", "volume="))
	return cmd
}

// needsSize says that the template shows sizes, which cost the daemon time.
func needsSize(out formatting.Flags) bool {
	return !out.Quiet && strings.Contains(out.Format, ".Size")
}

// row has the fields of docker's container templates.
type row struct {
	Command, CreatedAt, HealthStatus, ID, Image, Labels, LocalVolumes, Mounts, Names, Networks, Platform, Ports, RunningFor, Size, State, Status string

	labels map[string]string
}

// Label gives the value of one label.
func (r row) Label(name string) string { return r.labels[name] }

// List makes the table of containers.
func List(items []container.Summary, out formatting.Flags, size bool, now time.Time) formatting.List {
	l := formatting.List{
		Format: out.Format, Output: out.Output, Quiet: out.Quiet, QuietFormat: "{{.ID}}", Objects: items,
		Table: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}",
		Header: formatting.Header{
			"ID": "CONTAINER ID", "Names": "NAMES", "Image": "IMAGE", "Command": "COMMAND", "CreatedAt": "CREATED AT",
			"RunningFor": "CREATED", "Ports": "PORTS", "State": "STATE", "Status": "STATUS", "Size": "SIZE", "Labels": "LABELS",
			"Mounts": "MOUNTS", "LocalVolumes": "LOCAL VOLUMES", "Networks": "NETWORKS", "Platform": "PLATFORM", "HealthStatus": "HEALTH STATUS",
		},
	}
	if size {
		l.Table += "\t{{.Size}}"
	}
	for _, c := range items {
		l.Rows = append(l.Rows, newRow(c, out.NoTrunc, now))
	}
	return l
}

func newRow(c container.Summary, noTrunc bool, now time.Time) row {
	created := time.Unix(c.Created, 0)
	r := row{
		ID: formatting.ID(c.ID, noTrunc), Names: names(c.Names, noTrunc), Image: c.Image, Command: c.Command,
		CreatedAt: created.String(), RunningFor: formatting.Ago(now, created), State: string(c.State), Status: c.Status,
		Ports: Ports(c.Ports), Size: formatting.Size(c.SizeRw), Labels: formatting.Pairs(c.Labels), labels: c.Labels,
		Platform: platformOf(c),
	}
	if c.Image == "" {
		r.Image = "<no image>"
	}
	if !noTrunc {
		// An image by digest only is shown like an ID.
		if strings.TrimPrefix(c.Image, "sha256:") == strings.TrimPrefix(c.ImageID, "sha256:") && c.ImageID != "" {
			r.Image = formatting.ShortID(c.Image)
		}
		r.Command = formatting.Ellipsis(c.Command, 20)
	}
	r.Command = strconv.Quote(r.Command)
	if c.SizeRootFs > 0 {
		r.Size += " (virtual " + formatting.Size(c.SizeRootFs) + ")"
	}
	if c.Health != nil {
		r.HealthStatus = string(c.Health.Status)
	}
	local := 0
	var mounts []string
	for _, m := range c.Mounts {
		if m.Type == mount.TypeVolume && m.Driver == "local" {
			local++
		}
		n := m.Name
		if n == "" {
			n = m.Source
		}
		if !noTrunc {
			n = formatting.Ellipsis(n, 15)
		}
		mounts = append(mounts, n)
	}
	r.LocalVolumes, r.Mounts = strconv.Itoa(local), strings.Join(mounts, ",")
	if c.NetworkSettings != nil {
		var networks []string
		for n := range c.NetworkSettings.Networks {
			networks = append(networks, n)
		}
		sort.Strings(networks)
		r.Networks = strings.Join(networks, ",")
	}
	return r
}

func platformOf(c container.Summary) string {
	if d := c.ImageManifestDescriptor; d != nil && d.Platform != nil {
		p := d.Platform.OS + "/" + d.Platform.Architecture
		if d.Platform.Variant != "" {
			p += "/" + d.Platform.Variant
		}
		return p
	}
	return ""
}

// names leaves out links ("/a/b") unless all is wanted.
func names(all []string, noTrunc bool) string {
	var out []string
	for _, n := range all {
		n = strings.TrimPrefix(n, "/")
		if noTrunc || !strings.Contains(n, "/") {
			out = append(out, n)
		}
	}
	return strings.Join(out, ",")
}

// Ports words published and exposed ports, joining neighbours to ranges:
// "0.0.0.0:8000-8002->8000-8002/tcp, 53/udp".
func Ports(ports []container.PortSummary) string {
	sorted := append([]container.PortSummary(nil), ports...)
	sort.Slice(sorted, func(i, j int) bool {
		a, b := sorted[i], sorted[j]
		switch {
		case a.PrivatePort != b.PrivatePort:
			return a.PrivatePort < b.PrivatePort
		case a.IP != b.IP:
			return a.IP.Compare(b.IP) < 0
		case a.PublicPort != b.PublicPort:
			return a.PublicPort < b.PublicPort
		}
		return a.Type < b.Type
	})
	type key struct {
		ip    netip.Addr
		proto string
		shift int // 1 keeps unpublished ports apart, 0 is the same number outside
	}
	type span struct{ first, last uint16 }
	open := map[key]span{}
	var groups, moved []string
	for _, p := range sorted {
		if p.PublicPort != 0 && p.PublicPort != p.PrivatePort {
			// A port with another number outside is never part of a range.
			moved = append(moved, fmt.Sprintf("%s->%d/%s", hostPart(p.IP, p.PublicPort, p.PublicPort), p.PrivatePort, p.Type))
			continue
		}
		k := key{ip: p.IP, proto: p.Type}
		if p.PublicPort == 0 {
			k.shift = 1
		}
		s, ok := open[k]
		switch {
		case ok && p.PrivatePort == s.last:
			continue
		case ok && p.PrivatePort == s.last+1:
			open[k] = span{s.first, p.PrivatePort}
			continue
		case ok:
			groups = append(groups, wordSpan(k.ip, k.proto, k.shift == 0, s.first, s.last))
		}
		open[k] = span{p.PrivatePort, p.PrivatePort}
	}
	rest := make([]key, 0, len(open))
	for k := range open {
		rest = append(rest, k)
	}
	sort.Slice(rest, func(i, j int) bool {
		a, b := open[rest[i]], open[rest[j]]
		if a.first != b.first {
			return a.first < b.first
		}
		if rest[i].proto != rest[j].proto {
			return rest[i].proto < rest[j].proto
		}
		return rest[i].ip.Compare(rest[j].ip) < 0
	})
	for _, k := range rest {
		groups = append(groups, wordSpan(k.ip, k.proto, k.shift == 0, open[k].first, open[k].last))
	}
	return strings.Join(append(groups, moved...), ", ")
}

func wordSpan(ip netip.Addr, proto string, published bool, first, last uint16) string {
	inner := strconv.Itoa(int(first))
	if last != first {
		inner += "-" + strconv.Itoa(int(last))
	}
	if !published {
		return inner + "/" + proto
	}
	return hostPart(ip, first, last) + "->" + inner + "/" + proto
}

func hostPart(ip netip.Addr, first, last uint16) string {
	ports := strconv.Itoa(int(first))
	if last != first {
		ports += "-" + strconv.Itoa(int(last))
	}
	switch {
	case !ip.IsValid():
		return ports
	case ip.Is6():
		return "[" + ip.String() + "]:" + ports
	}
	return ip.String() + ":" + ports
}
