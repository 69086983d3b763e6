// Package inspect holds `cleat inspect`, which finds out what kind of thing a
// name stands for.
package inspect

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cleatlabs/cleat/cli/completion"
	"github.com/cleatlabs/cleat/cli/container"
	"github.com/cleatlabs/cleat/cli/env"
	"github.com/cleatlabs/cleat/cli/formatting"
	"github.com/cleatlabs/cleat/cli/image"
	"github.com/cleatlabs/cleat/cli/network"
	"github.com/cleatlabs/cleat/cli/volume"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

// kind is a kind of thing and how to fetch one.
type kind struct {
	name  string
	fetch func(ctx context.Context, e *env.Env, ref string, size bool) (formatting.Inspected, error)
}

// kinds are tried in this order.
func kinds() []kind {
	return []kind{
		{"container", container.Inspect},
		{"image", func(ctx context.Context, e *env.Env, ref string, _ bool) (formatting.Inspected, error) {
			return image.Inspect(ctx, e, ref)
		}},
		{"network", func(ctx context.Context, e *env.Env, ref string, _ bool) (formatting.Inspected, error) {
			return network.Inspect(ctx, e, ref, false)
		}},
		{"volume", func(ctx context.Context, e *env.Env, ref string, _ bool) (formatting.Inspected, error) {
			return volume.Inspect(ctx, e, ref)
		}},
	}
}

// NewCommand is `cleat inspect`.
func NewCommand(e *env.Env) *cobra.Command {
	var (
		out  formatting.Flags
		size bool
		only string
	)
	cmd := env.Command(env.Spec{
		Use:   "inspect [OPTIONS] NAME|ID [NAME|ID...]",
		Short: "Return low-level information on containers, images, networks and volumes",
		Example: `cleat inspect web
			cleat inspect -f '{{.NetworkSettings.Networks.bridge.IPAddress}}' web
			cleat inspect --type volume data`,
		Args: env.MinArgs(1), Complete: completion.Containers(e, 0),
		Run: func(cmd *cobra.Command, args []string) error {
			if err := checkType(only, cmd.Flags().Changed("type")); err != nil {
				return env.Usage(cmd, err)
			}
			return env.Inspect(e, out, args, func(ref string) (formatting.Inspected, error) {
				return find(cmd.Context(), e, ref, only, size)
			})
		},
	})
	fs := cmd.Flags()
	fs.StringVarP(&out.Format, "format", "f", "", "Format output using a custom template, or 'json'")
	fs.BoolVarP(&size, "size", "s", false, "Display total file sizes if the type is container")
	fs.StringVar(&only, "type", "", "Only inspect objects of the given type (container, image, network, volume)")
	out.AddOutput(fs)
	completion.Flag(cmd, "type", completion.Words("container", "image", "network", "volume"))
	return cmd
}

func checkType(only string, given bool) error {
	if only == "" && !given {
		return nil
	}
	var names []string
	for _, k := range kinds() {
		if k.name == only {
			return nil
		}
		names = append(names, k.name)
	}
	return errdefs.Invalidf("unknown type: %q: must be one of %q", only, strings.Join(names, `", "`))
}

func find(ctx context.Context, e *env.Env, ref, only string, size bool) (formatting.Inspected, error) {
	for _, k := range kinds() {
		if only != "" && only != k.name {
			continue
		}
		o, err := k.fetch(ctx, e, ref, size)
		// A name may be malformed for one kind and right for the next.
		if err == nil || only != "" || !errors.Is(err, errdefs.ErrNotFound) && !errors.Is(err, errdefs.ErrInvalidArgument) {
			return o, err
		}
	}
	return formatting.Inspected{}, errdefs.NotFoundf("No such object: %s", ref)
}
