// Package network holds the commands about networks.
package network

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/docker/cli/opts"
	"github.com/moby/moby/api/types/network"
	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/cleatlabs/cleat/cli/completion"
	"github.com/cleatlabs/cleat/cli/env"
	"github.com/cleatlabs/cleat/cli/formatting"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

// NewGroup is `cleat network`.
func NewGroup(e *env.Env) *cobra.Command {
	return env.Group(env.Spec{Use: "network", Short: "Manage networks", Example: "cleat network ls"},
		newCreate(e), newList(e), newInspect(e), newRemove(e), newPrune(e), newConnect(e), newDisconnect(e))
}

func newCreate(e *env.Env) *cobra.Command {
	f := newCreateFlags()
	cmd := env.Command(env.Spec{
		Use:   "create [OPTIONS] NETWORK",
		Short: "Create a network",
		Example: `cleat network create backend
			cleat network create --subnet 10.9.0.0/24 --gateway 10.9.0.1 --internal db
			cleat network create -d macvlan -o parent=eth0 --subnet 192.168.1.0/24 lan`,
		Args: env.ExactArgs(1),
		Run: func(cmd *cobra.Command, args []string) error {
			o, err := f.options(cmd)
			if err != nil {
				return err
			}
			engine, err := e.Engine()
			if err != nil {
				return err
			}
			res, err := engine.NetworkCreate(cmd.Context(), args[0], o)
			if err != nil {
				return err
			}
			for _, w := range res.Warning {
				fmt.Fprintln(e.Err, "WARNING:", w)
			}
			_, err = fmt.Fprintln(e.Out, res.ID)
			return err
		},
	})
	f.add(cmd)
	completion.Flag(cmd, "driver", completion.Words("bridge", "macvlan", "none", "host"))
	return cmd
}

type createFlags struct {
	driver, scope, configFrom, ipamDriver               string
	driverOpts, ipamOpts, aux                           *opts.MapOpts
	labels                                              opts.ListOpts
	subnets, ranges, gateways                           []string
	internal, attachable, ingress, configOnly, v4on, v6 bool
}

func newCreateFlags() *createFlags {
	return &createFlags{
		driverOpts: opts.NewMapOpts(nil, nil), ipamOpts: opts.NewMapOpts(nil, nil), aux: opts.NewMapOpts(nil, nil),
		labels: opts.NewListOpts(opts.ValidateLabel),
	}
}

func (f *createFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVarP(&f.driver, "driver", "d", "bridge", "Driver to manage the Network")
	fs.VarP(f.driverOpts, "opt", "o", "Set driver specific options")
	fs.Var(&f.labels, "label", "Set metadata on a network")
	fs.BoolVar(&f.internal, "internal", false, "Restrict external access to the network")
	fs.BoolVar(&f.v4on, "ipv4", true, "Enable or disable IPv4 address assignment")
	fs.BoolVar(&f.v6, "ipv6", false, "Enable or disable IPv6 address assignment")
	fs.BoolVar(&f.attachable, "attachable", false, "Enable manual container attachment")
	fs.BoolVar(&f.ingress, "ingress", false, "Create swarm routing-mesh network")
	fs.StringVar(&f.scope, "scope", "", "Control the network's scope")
	fs.BoolVar(&f.configOnly, "config-only", false, "Create a configuration only network")
	fs.StringVar(&f.configFrom, "config-from", "", "The network from which to copy the configuration")
	fs.StringVar(&f.ipamDriver, "ipam-driver", "default", "IP Address Management Driver")
	fs.StringSliceVar(&f.subnets, "subnet", nil, "Subnet in CIDR format that represents a network segment")
	fs.StringSliceVar(&f.ranges, "ip-range", nil, "Allocate container ip from a sub-range")
	fs.StringSliceVar(&f.gateways, "gateway", nil, "IPv4 or IPv6 Gateway for the master subnet")
	fs.Var(f.aux, "aux-address", "Auxiliary IPv4 or IPv6 addresses used by Network driver")
	fs.Var(f.ipamOpts, "ipam-opt", "Set IPAM driver specific options")
}

func (f *createFlags) options(cmd *cobra.Command) (moby.NetworkCreateOptions, error) {
	configs, err := ipamConfigs(f.subnets, f.ranges, f.gateways, f.aux.GetAll())
	if err != nil {
		return moby.NetworkCreateOptions{}, err
	}
	o := moby.NetworkCreateOptions{
		Driver: f.driver, Options: f.driverOpts.GetAll(), Internal: f.internal, Attachable: f.attachable, Ingress: f.ingress,
		Scope: f.scope, ConfigOnly: f.configOnly, ConfigFrom: f.configFrom, Labels: opts.ConvertKVStringsToMap(f.labels.GetSlice()),
		IPAM: &network.IPAM{Driver: f.ipamDriver, Config: configs, Options: f.ipamOpts.GetAll()},
	}
	if cmd.Flags().Changed("ipv6") {
		o.EnableIPv6 = &f.v6
	}
	if cmd.Flags().Changed("ipv4") {
		o.EnableIPv4 = &f.v4on
	}
	return o, nil
}

// ipamConfigs gives each subnet the ranges, gateways and auxiliary addresses
// that lie in it. Overlapping subnets, and addresses in none of them, are errors.
func ipamConfigs(subnets, ranges, gateways []string, aux map[string]string) ([]network.IPAMConfig, error) {
	if len(subnets) < len(ranges) || len(subnets) < len(gateways) {
		return nil, errdefs.Invalidf("every ip-range or gateway must have a corresponding subnet")
	}
	var configs []network.IPAMConfig
	for _, s := range subnets {
		p, err := prefix(s)
		if err != nil {
			return nil, err
		}
		for _, other := range configs {
			if p.Overlaps(other.Subnet) {
				return nil, errdefs.Invalidf("multiple overlapping subnet configuration is not supported")
			}
		}
		configs = append(configs, network.IPAMConfig{Subnet: p, AuxAddress: map[string]netip.Addr{}})
	}
	find := func(a netip.Addr) *network.IPAMConfig {
		for i := range configs {
			if configs[i].Subnet.Contains(a) {
				return &configs[i]
			}
		}
		return nil
	}
	for _, r := range ranges {
		p, err := prefix(r)
		if err != nil {
			return nil, err
		}
		c := find(p.Addr())
		if c == nil {
			return nil, errdefs.Invalidf("no matching subnet for range %s", r)
		}
		if c.IPRange.IsValid() {
			return nil, errdefs.Invalidf("cannot configure multiple ranges (%s, %s) on the same subnet (%s)", r, c.IPRange, c.Subnet)
		}
		c.IPRange = p
	}
	for _, g := range gateways {
		a, err := netip.ParseAddr(g)
		if err != nil {
			return nil, errdefs.Invalidf("invalid gateway %q: %w", g, err)
		}
		c := find(a)
		if c == nil {
			return nil, errdefs.Invalidf("no matching subnet for gateway %s", g)
		}
		if c.Gateway.IsValid() {
			return nil, errdefs.Invalidf("cannot configure multiple gateways (%s, %s) for the same subnet (%s)", g, c.Gateway, c.Subnet)
		}
		c.Gateway = a
	}
	for name, s := range aux {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, errdefs.Invalidf("invalid aux-address %q: %w", s, err)
		}
		c := find(a)
		if c == nil {
			return nil, errdefs.Invalidf("no matching subnet for aux-address %s", s)
		}
		c.AuxAddress[name] = a
	}
	return configs, nil
}

func prefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, errdefs.Invalidf("invalid CIDR address: %s", s)
	}
	return p, nil
}

func newConnect(e *env.Env) *cobra.Command {
	var (
		ip4, ip6         string
		gwPriority       int
		driverOpts       = opts.NewMapOpts(nil, nil)
		links            = opts.NewListOpts(opts.ValidateLink)
		aliases, linkIPs []string
	)
	cmd := env.Command(env.Spec{
		Use:      "connect [OPTIONS] NETWORK CONTAINER",
		Short:    "Connect a container to a network",
		Example:  "cleat network connect --alias db backend postgres",
		Args:     env.ExactArgs(2),
		Complete: completion.Then(completion.Networks(e, 1), completion.Containers(e, 1)),
		Run: func(cmd *cobra.Command, args []string) error {
			s := &network.EndpointSettings{Links: links.GetSlice(), Aliases: aliases, GwPriority: gwPriority}
			if m := driverOpts.GetAll(); len(m) > 0 {
				s.DriverOpts = m
			}
			var err error
			if s.IPAMConfig, err = endpointIPAM(ip4, ip6, linkIPs); err != nil {
				return err
			}
			engine, err := e.Engine()
			if err != nil {
				return err
			}
			_, err = engine.NetworkConnect(cmd.Context(), args[0], moby.NetworkConnectOptions{Container: args[1], EndpointConfig: s})
			return err
		},
	})
	fs := cmd.Flags()
	fs.StringVar(&ip4, "ip", "", "IPv4 address (e.g., 172.30.100.104)")
	fs.StringVar(&ip6, "ip6", "", "IPv6 address (e.g., 2001:db8::33)")
	fs.Var(&links, "link", "Add link to another container")
	fs.StringSliceVar(&aliases, "alias", nil, "Add network-scoped alias for the container")
	fs.StringSliceVar(&linkIPs, "link-local-ip", nil, "Add a link-local address for the container")
	fs.Var(driverOpts, "driver-opt", "driver options for the network")
	fs.IntVar(&gwPriority, "gw-priority", 0, "Highest gw-priority provides the default gateway. Accepts positive and negative values")
	return cmd
}

func endpointIPAM(ip4, ip6 string, linkLocal []string) (*network.EndpointIPAMConfig, error) {
	c := &network.EndpointIPAMConfig{}
	for _, given := range []struct {
		text string
		into *netip.Addr
	}{{ip4, &c.IPv4Address}, {ip6, &c.IPv6Address}} {
		if given.text == "" {
			continue
		}
		a, err := netip.ParseAddr(given.text)
		if err != nil {
			return nil, errdefs.Invalidf("%q is not a valid IP address", given.text)
		}
		*given.into = a
	}
	for _, s := range linkLocal {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, errdefs.Invalidf("%q is not a valid IP address", s)
		}
		c.LinkLocalIPs = append(c.LinkLocalIPs, a)
	}
	return c, nil
}

func newDisconnect(e *env.Env) *cobra.Command {
	var force bool
	cmd := env.Command(env.Spec{
		Use:      "disconnect [OPTIONS] NETWORK CONTAINER",
		Short:    "Disconnect a container from a network",
		Example:  "cleat network disconnect backend postgres",
		Args:     env.ExactArgs(2),
		Complete: completion.Then(completion.Networks(e, 1), completion.Containers(e, 1)),
		Run: func(cmd *cobra.Command, args []string) error {
			engine, err := e.Engine()
			if err != nil {
				return err
			}
			_, err = engine.NetworkDisconnect(cmd.Context(), args[0], moby.NetworkDisconnectOptions{Container: args[1], Force: force})
			return err
		},
	})
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force the container to disconnect from a network")
	return cmd
}

func newList(e *env.Env) *cobra.Command {
	var (
		out    formatting.Flags
		filter = opts.NewFilterOpt()
	)
	cmd := env.Command(env.Spec{
		Use: "ls [OPTIONS]", Aliases: []string{"list"},
		Short:   "List networks",
		Example: "cleat network ls --filter driver=bridge",
		Args:    env.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) error {
			engine, err := e.Engine()
			if err != nil {
				return err
			}
			res, err := engine.NetworkList(cmd.Context(), moby.NetworkListOptions{Filters: filter.Value()})
			if err != nil {
				return err
			}
			return list(res.Items, out).Print(e.Out)
		},
	})
	out.AddList(cmd.Flags(), "network IDs")
	cmd.Flags().VarP(&filter, "filter", "f", `Provide filter values (e.g. "driver=bridge")`)
	return cmd
}

// row has the fields of docker's network templates.
type row struct {
	CreatedAt, Driver, ID, IPv4, IPv6, Internal, Labels, Name, Scope string

	labels map[string]string
}

// Label gives the value of one label.
func (r row) Label(name string) string { return r.labels[name] }

func list(items []network.Summary, out formatting.Flags) formatting.List {
	l := formatting.List{
		Format: out.Format, Output: out.Output, Quiet: out.Quiet, QuietFormat: "{{.ID}}", Objects: items,
		Table: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
		Header: formatting.Header{
			"ID": "NETWORK ID", "Name": "NAME", "Driver": "DRIVER", "Scope": "SCOPE", "IPv4": "IPV4", "IPv6": "IPV6",
			"Internal": "INTERNAL", "Labels": "LABELS", "CreatedAt": "CREATED AT",
		},
	}
	for _, n := range items {
		l.Rows = append(l.Rows, row{
			ID: formatting.ID(n.ID, out.NoTrunc), Name: n.Name, Driver: n.Driver, Scope: n.Scope, labels: n.Labels,
			IPv4: strconv.FormatBool(n.EnableIPv4), IPv6: strconv.FormatBool(n.EnableIPv6), Internal: strconv.FormatBool(n.Internal),
			Labels: formatting.Pairs(n.Labels), CreatedAt: n.Created.String(),
		})
	}
	return l
}

func newInspect(e *env.Env) *cobra.Command {
	var (
		out     formatting.Flags
		verbose bool
	)
	cmd := env.Command(env.Spec{
		Use:     "inspect [OPTIONS] NETWORK [NETWORK...]",
		Short:   "Display detailed information on one or more networks",
		Example: "cleat network inspect -f '{{json .IPAM.Config}}' backend",
		Args:    env.MinArgs(1), Complete: completion.Networks(e, 0),
		Run: func(cmd *cobra.Command, args []string) error {
			return env.Inspect(e, out, args, func(ref string) (formatting.Inspected, error) {
				return Inspect(cmd.Context(), e, ref, verbose)
			})
		},
	})
	fs := cmd.Flags()
	fs.StringVarP(&out.Format, "format", "f", "", "Format output using a custom template, or 'json'")
	fs.BoolVarP(&verbose, "verbose", "v", false, "Verbose output for diagnostics")
	out.AddOutput(fs)
	return cmd
}

// Inspect fetches one network for inspect commands.
func Inspect(ctx context.Context, e *env.Env, ref string, verbose bool) (formatting.Inspected, error) {
	engine, err := e.Engine()
	if err != nil {
		return formatting.Inspected{}, err
	}
	res, err := engine.NetworkInspect(ctx, ref, moby.NetworkInspectOptions{Verbose: verbose})
	return formatting.Inspected{Value: res.Network, Raw: res.Raw}, err
}

func newRemove(e *env.Env) *cobra.Command {
	var force bool
	cmd := env.Command(env.Spec{
		Use: "rm [OPTIONS] NETWORK [NETWORK...]", Aliases: []string{"remove"},
		Short:   "Remove one or more networks",
		Example: "cleat network rm backend",
		Args:    env.MinArgs(1), Complete: completion.Networks(e, 0),
		Run: func(cmd *cobra.Command, args []string) error {
			engine, err := e.Engine()
			if err != nil {
				return err
			}
			var errs []error
			for _, n := range args {
				if _, err := engine.NetworkRemove(cmd.Context(), n, moby.NetworkRemoveOptions{}); err != nil {
					errs = append(errs, err)
					continue
				}
				fmt.Fprintln(e.Out, n)
			}
			return env.Failed(errs, force)
		},
	})
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not error if the network does not exist")
	return cmd
}

func newPrune(e *env.Env) *cobra.Command {
	var (
		force  bool
		filter = opts.NewFilterOpt()
	)
	cmd := env.Command(env.Spec{
		Use:     "prune [OPTIONS]",
		Short:   "Remove all unused networks",
		Example: "cleat network prune -f",
		Args:    env.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) error {
			if ok, err := e.Confirm(force, "This will remove all custom networks not used by at least one container."); err != nil || !ok {
				return err
			}
			text, err := Prune(cmd.Context(), e, filter.Value())
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(e.Out, text)
			return err
		},
	})
	fs := cmd.Flags()
	fs.BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	fs.Var(&filter, "filter", `Provide filter values (e.g. "until=<timestamp>")`)
	return cmd
}

// Prune removes unused networks and words what went.
func Prune(ctx context.Context, e *env.Env, filters moby.Filters) (string, error) {
	engine, err := e.Engine()
	if err != nil {
		return "", err
	}
	res, err := engine.NetworkPrune(ctx, moby.NetworkPruneOptions{Filters: filters})
	if err != nil || len(res.Report.NetworksDeleted) == 0 {
		return "", err
	}
	return "Deleted Networks:\n" + strings.Join(res.Report.NetworksDeleted, "\n") + "\n\n", nil
}
