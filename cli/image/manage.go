package image

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/docker/cli/opts"
	"github.com/moby/moby/api/types/image"
	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/cleatlabs/cleat/cli/completion"
	"github.com/cleatlabs/cleat/cli/env"
	"github.com/cleatlabs/cleat/cli/formatting"
)

func isURL(s string) bool {
	return strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://")
}

// NewTagCommand is `cleat tag`.
func NewTagCommand(e *env.Env) *cobra.Command {
	return env.Command(env.Spec{
		Use:     "tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
		Short:   "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
		Example: "cleat tag app:1.4 registry.example.com/team/app:1.4",
		Args:    env.ExactArgs(2), Complete: completion.Images(e, 2),
		Run: func(cmd *cobra.Command, args []string) error {
			engine, err := e.Engine()
			if err != nil {
				return err
			}
			_, err = engine.ImageTag(cmd.Context(), moby.ImageTagOptions{Source: args[0], Target: args[1]})
			return err
		},
	})
}

// NewRemoveCommand is `cleat rmi` and `cleat image rm`.
func NewRemoveCommand(e *env.Env, name string) *cobra.Command {
	var (
		force, noPrune bool
		platforms      []string
	)
	spec := env.Spec{
		Use:     name + " [OPTIONS] IMAGE [IMAGE...]",
		Short:   "Remove one or more images",
		Example: "cleat " + map[string]string{"rmi": "rmi", "rm": "image rm"}[name] + " app:1.3 app:1.2",
		Args:    env.MinArgs(1), Complete: completion.Images(e, 0),
		Run: func(cmd *cobra.Command, args []string) error {
			engine, err := e.Engine()
			if err != nil {
				return err
			}
			ps, err := parsePlatforms(platforms)
			if err != nil {
				return err
			}
			o := moby.ImageRemoveOptions{Force: force, PruneChildren: !noPrune, Platforms: ps}
			var errs []error
			for _, ref := range args { // in order: a tag first may free what comes after it
				res, err := engine.ImageRemove(cmd.Context(), ref, o)
				if err != nil {
					errs = append(errs, err)
					continue
				}
				printDeleted(e, res.Items)
			}
			return env.Failed(errs, force)
		},
	}
	if name == "rm" {
		spec.Aliases = []string{"remove"}
	}
	cmd := env.Command(spec)
	fs := cmd.Flags()
	fs.BoolVarP(&force, "force", "f", false, "Force removal of the image")
	fs.BoolVar(&noPrune, "no-prune", false, "Do not delete untagged parents")
	fs.StringSliceVar(&platforms, "platform", nil, "Remove only these platforms")
	return cmd
}

func printDeleted(e *env.Env, items []image.DeleteResponse) {
	for _, d := range items {
		if d.Deleted != "" {
			fmt.Fprintln(e.Out, "Deleted:", d.Deleted)
		} else {
			fmt.Fprintln(e.Out, "Untagged:", d.Untagged)
		}
	}
}

// NewPruneCommand is `cleat image prune`.
func NewPruneCommand(e *env.Env) *cobra.Command {
	var (
		all, force bool
		filter     = opts.NewFilterOpt()
	)
	cmd := env.Command(env.Spec{
		Use:   "prune [OPTIONS]",
		Short: "Remove unused images",
		Example: `cleat image prune
			cleat image prune -a --filter until=240h`,
		Args: env.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) error {
			warning := "This will remove all dangling images."
			if all {
				warning = "This will remove all images without at least one container associated to them."
			}
			if ok, err := e.Confirm(force, warning); err != nil || !ok {
				return err
			}
			text, freed, err := Prune(cmd.Context(), e, all, filter.Value())
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(e.Out, "%sTotal reclaimed space: %s\n", text, formatting.Size(int64(freed))) //nolint:gosec // sizes fit
			return err
		},
	})
	fs := cmd.Flags()
	fs.BoolVarP(&all, "all", "a", false, "Remove all unused images, not just dangling ones")
	fs.BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	fs.Var(&filter, "filter", `Provide filter values (e.g. "until=<timestamp>")`)
	return cmd
}

// Prune removes unused images and words what went.
func Prune(ctx context.Context, e *env.Env, all bool, filters moby.Filters) (text string, freed uint64, err error) {
	engine, err := e.Engine()
	if err != nil {
		return "", 0, err
	}
	f := filters.Clone()
	if f == nil {
		f = moby.Filters{}
	}
	f.Add("dangling", fmt.Sprint(!all))
	res, err := engine.ImagePrune(ctx, moby.ImagePruneOptions{Filters: f})
	if err != nil {
		return "", 0, err
	}
	var b strings.Builder
	if len(res.Report.ImagesDeleted) > 0 {
		b.WriteString("Deleted Images:\n")
		for _, d := range res.Report.ImagesDeleted {
			if d.Untagged != "" {
				b.WriteString("untagged: " + d.Untagged + "\n")
			} else {
				b.WriteString("deleted: " + d.Deleted + "\n")
			}
		}
		b.WriteString("\n")
	}
	return b.String(), res.Report.SpaceReclaimed, nil
}

// NewInspectCommand is `cleat image inspect`.
func NewInspectCommand(e *env.Env) *cobra.Command {
	var out formatting.Flags
	cmd := env.Command(env.Spec{
		Use:   "inspect [OPTIONS] IMAGE [IMAGE...]",
		Short: "Display detailed information on one or more images",
		Example: `cleat image inspect debian
			cleat image inspect -f '{{.Config.Cmd}}' debian`,
		Args: env.MinArgs(1), Complete: completion.Images(e, 0),
		Run: func(cmd *cobra.Command, args []string) error {
			return env.Inspect(e, out, args, func(ref string) (formatting.Inspected, error) {
				return Inspect(cmd.Context(), e, ref)
			})
		},
	})
	fs := cmd.Flags()
	fs.StringVarP(&out.Format, "format", "f", "", "Format output using a custom template, or 'json'")
	out.AddOutput(fs)
	return cmd
}

// NewHistoryCommand is `cleat history`.
func NewHistoryCommand(e *env.Env) *cobra.Command {
	var (
		out      formatting.Flags
		human    bool
		platform string
	)
	cmd := env.Command(env.Spec{
		Use:     "history [OPTIONS] IMAGE",
		Short:   "Show the history of an image",
		Example: "cleat history --no-trunc debian",
		Args:    env.ExactArgs(1), Complete: completion.Images(e, 1),
		Run: func(cmd *cobra.Command, args []string) error {
			engine, err := e.Engine()
			if err != nil {
				return err
			}
			var options []moby.ImageHistoryOption
			if platform != "" {
				p, err := ParsePlatform(platform)
				if err != nil {
					return err
				}
				options = append(options, moby.ImageHistoryWithPlatform(*p))
			}
			res, err := engine.ImageHistory(cmd.Context(), args[0], options...)
			if err != nil {
				return err
			}
			return historyList(res.Items, out, human, time.Now()).Print(e.Out)
		},
	})
	fs := cmd.Flags()
	out.AddList(fs, "image IDs")
	fs.BoolVarP(&human, "human", "H", true, "Print sizes and dates in human readable format")
	fs.StringVar(&platform, "platform", "", "Show the history of this platform")
	return cmd
}

type historyRow struct {
	Comment, CreatedAt, CreatedBy, CreatedSince, ID, Size string
}

func historyList(items []image.HistoryResponseItem, out formatting.Flags, human bool, now time.Time) formatting.List {
	l := formatting.List{
		Format: out.Format, Output: out.Output, Quiet: out.Quiet, QuietFormat: "{{.ID}}", Objects: items,
		Table: "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
		Header: formatting.Header{
			"ID": "IMAGE", "CreatedSince": "CREATED", "CreatedAt": "CREATED AT", "CreatedBy": "CREATED BY",
			"Size": "SIZE", "Comment": "COMMENT",
		},
	}
	for _, h := range items {
		created := time.Unix(h.Created, 0)
		r := historyRow{
			Comment: h.Comment, ID: formatting.ID(h.ID, out.NoTrunc), CreatedAt: created.UTC().Format(time.RFC3339),
			CreatedBy: strings.ReplaceAll(h.CreatedBy, "\t", " "),
		}
		if !out.NoTrunc {
			r.CreatedBy = formatting.Ellipsis(r.CreatedBy, 45)
		}
		r.CreatedSince, r.Size = "", fmt.Sprint(h.Size)
		if human {
			r.Size = formatting.Size(h.Size)
			if h.Created > 0 {
				r.CreatedSince = formatting.Ago(now, created)
			} else {
				r.CreatedSince = "N/A"
			}
		} else {
			r.CreatedSince = r.CreatedAt
		}
		l.Rows = append(l.Rows, r)
	}
	return l
}

// NewGroup is `cleat image`.
func NewGroup(e *env.Env) *cobra.Command {
	return env.Group(env.Spec{Use: "image", Short: "Manage images", Example: "cleat image ls"},
		NewListCommand(e, "ls"), NewPullCommand(e), NewPushCommand(e), NewTagCommand(e), NewRemoveCommand(e, "rm"),
		NewInspectCommand(e), NewHistoryCommand(e), NewSaveCommand(e), NewLoadCommand(e), NewImportCommand(e), NewPruneCommand(e))
}
