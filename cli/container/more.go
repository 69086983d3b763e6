package container

import (
	"context"
	"fmt"
	"io"
	"net"
	"sort"
	"strings"
	"text/tabwriter"

	"github.com/docker/cli/opts"
	"github.com/moby/moby/api/types/network"
	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/cleatlabs/cleat/cli/completion"
	"github.com/cleatlabs/cleat/cli/env"
	"github.com/cleatlabs/cleat/cli/formatting"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

func columns(w io.Writer, titles []string, rows [][]string) error {
	tw := tabwriter.NewWriter(w, 20, 1, 3, ' ', 0)
	fmt.Fprintln(tw, strings.Join(titles, "\t"))
	for _, r := range rows {
		fmt.Fprintln(tw, strings.Join(r, "\t"))
	}
	return tw.Flush()
}

// NewPortCommand is `cleat port`.
func NewPortCommand(e *env.Env) *cobra.Command {
	return env.Command(env.Spec{
		Use:     "port CONTAINER [PRIVATE_PORT[/PROTO]]",
		Short:   "List port mappings or a specific mapping for the container",
		Example: "cleat port web 80/tcp",
		Args:    env.RangeArgs(1, 2), Complete: completion.Containers(e, 1),
		Run: func(cmd *cobra.Command, args []string) error {
			engine, err := e.Engine()
			if err != nil {
				return err
			}
			res, err := engine.ContainerInspect(cmd.Context(), args[0], moby.ContainerInspectOptions{})
			if err != nil {
				return err
			}
			var ports network.PortMap
			if res.Container.NetworkSettings != nil {
				ports = res.Container.NetworkSettings.Ports
			}
			lines, err := portLines(ports, args)
			if err != nil {
				return err
			}
			for _, l := range lines {
				fmt.Fprintln(e.Out, l)
			}
			return nil
		},
	})
}

func portLines(ports network.PortMap, args []string) ([]string, error) {
	word := func(b network.PortBinding) string {
		ip := ""
		if b.HostIP.IsValid() {
			ip = b.HostIP.String()
		}
		return net.JoinHostPort(ip, b.HostPort)
	}
	var lines []string
	if len(args) == 2 {
		p, err := network.ParsePort(args[1])
		if err != nil {
			return nil, errdefs.As(errdefs.ErrInvalidArgument, err)
		}
		bindings := ports[p]
		if len(bindings) == 0 {
			return nil, errdefs.NotFoundf("no public port '%s' published for %s", args[1], args[0])
		}
		for _, b := range bindings {
			lines = append(lines, word(b))
		}
		sort.Strings(lines)
		return lines, nil
	}
	all := make([]network.Port, 0, len(ports))
	for p := range ports {
		all = append(all, p)
	}
	sort.Slice(all, func(i, j int) bool {
		if all[i].Num() != all[j].Num() {
			return all[i].Num() < all[j].Num()
		}
		return all[i].Proto() < all[j].Proto()
	})
	for _, p := range all {
		for _, b := range ports[p] {
			lines = append(lines, fmt.Sprintf("%s -> %s", p, word(b)))
		}
	}
	return lines, nil
}

// NewInspectCommand is `cleat container inspect`.
func NewInspectCommand(e *env.Env) *cobra.Command {
	var (
		out  formatting.Flags
		size bool
	)
	cmd := env.Command(env.Spec{
		Use:     "inspect [OPTIONS] CONTAINER [CONTAINER...]",
		Short:   "Display detailed information on one or more containers",
		Example: "cleat container inspect -f '{{.State.Status}}' web",
		Args:    env.MinArgs(1), Complete: completion.Containers(e, 0),
		Run: func(cmd *cobra.Command, args []string) error {
			return env.Inspect(e, out, args, func(ref string) (formatting.Inspected, error) {
				return Inspect(cmd.Context(), e, ref, size)
			})
		},
	})
	fs := cmd.Flags()
	fs.StringVarP(&out.Format, "format", "f", "", "Format output using a custom template, or 'json'")
	fs.BoolVarP(&size, "size", "s", false, "Display total file sizes")
	out.AddOutput(fs)
	return cmd
}

// Inspect fetches one container for inspect commands.
func Inspect(ctx context.Context, e *env.Env, ref string, size bool) (formatting.Inspected, error) {
	engine, err := e.Engine()
	if err != nil {
		return formatting.Inspected{}, err
	}
	res, err := engine.ContainerInspect(ctx, ref, moby.ContainerInspectOptions{Size: size})
	return formatting.Inspected{Value: res.Container, Raw: res.Raw}, err
}

// NewPruneCommand is `cleat container prune`.
func NewPruneCommand(e *env.Env) *cobra.Command {
	var (
		force  bool
		filter = opts.NewFilterOpt()
	)
	cmd := env.Command(env.Spec{
		Use:     "prune [OPTIONS]",
		Short:   "Remove all stopped containers",
		Example: "cleat container prune --filter until=24h",
		Args:    env.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) error {
			if ok, err := e.Confirm(force, "This will remove all stopped containers."); err != nil || !ok {
				return err
			}
			text, freed, err := Prune(cmd.Context(), e, filter.Value())
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(e.Out, "%sTotal reclaimed space: %s\n", text, formatting.Size(int64(freed))) //nolint:gosec // sizes fit
			return err
		},
	})
	fs := cmd.Flags()
	fs.BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	fs.Var(&filter, "filter", `Provide filter values (e.g. "until=<timestamp>")`)
	return cmd
}

// Prune removes stopped containers and words what went.
func Prune(ctx context.Context, e *env.Env, filters moby.Filters) (text string, freed uint64, err error) {
	engine, err := e.Engine()
	if err != nil {
		return "", 0, err
	}
	res, err := engine.ContainerPrune(ctx, moby.ContainerPruneOptions{Filters: filters})
	if err != nil {
		return "", 0, err
	}
	if ids := res.Report.ContainersDeleted; len(ids) > 0 {
		text = "Deleted Containers:\n" + strings.Join(ids, "\n") + "\n\n"
	}
	return text, res.Report.SpaceReclaimed, nil
}

// NewGroup is `cleat container`.
func NewGroup(e *env.Env) *cobra.Command {
	return env.Group(env.Spec{Use: "container", Short: "Manage containers", Example: "cleat container ls -a"},
		NewListCommand(e, "ls"), NewRunCommand(e), NewCreateCommand(e), NewStartCommand(e), NewStopCommand(e),
		NewRestartCommand(e), NewPauseCommand(e), NewUnpauseCommand(e), NewKillCommand(e), NewWaitCommand(e),
		NewRemoveCommand(e), NewRenameCommand(e), NewUpdateCommand(e), NewInspectCommand(e), NewLogsCommand(e),
		NewAttachCommand(e), NewExecCommand(e), NewCopyCommand(e), NewDiffCommand(e), NewCommitCommand(e),
		NewExportCommand(e), NewTopCommand(e), NewStatsCommand(e), NewPortCommand(e), NewPruneCommand(e))
}
