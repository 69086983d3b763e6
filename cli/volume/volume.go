// Package volume holds the commands about volumes.
package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/docker/cli/opts"
	"github.com/moby/moby/api/types/volume"
	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/cleatlabs/cleat/cli/completion"
	"github.com/cleatlabs/cleat/cli/env"
	"github.com/cleatlabs/cleat/cli/formatting"
)

// NewGroup is `cleat volume`.
func NewGroup(e *env.Env) *cobra.Command {
	return env.Group(env.Spec{Use: "volume", Short: "Manage volumes", Example: "cleat volume ls"},
		newCreate(e), newList(e), newInspect(e), newRemove(e), newPrune(e), newExport(e), newImport(e), newClone(e))
}

func newCreate(e *env.Env) *cobra.Command {
	var (
		name, driver string
		driverOpts   = opts.NewMapOpts(nil, nil)
		labels       = opts.NewListOpts(opts.ValidateLabel)
	)
	cmd := env.Command(env.Spec{
		Use:   "create [OPTIONS] [VOLUME]",
		Short: "Create a volume",
		Example: `cleat volume create data
			cleat volume create -o type=nfs -o o=addr=10.0.0.1,rw -o device=:/export share`,
		Args: env.RangeArgs(0, 1),
		Run: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				if name != "" {
					return env.Usage(cmd, errors.New("conflicting options: cannot specify a volume-name through both --name and as a positional arg"))
				}
				name = args[0]
			}
			engine, err := e.Engine()
			if err != nil {
				return err
			}
			res, err := engine.VolumeCreate(cmd.Context(), moby.VolumeCreateOptions{
				Name: name, Driver: driver, DriverOpts: driverOpts.GetAll(), Labels: opts.ConvertKVStringsToMap(labels.GetSlice()),
			})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(e.Out, res.Volume.Name)
			return err
		},
	})
	fs := cmd.Flags()
	fs.StringVarP(&driver, "driver", "d", "local", "Specify volume driver name")
	fs.StringVar(&name, "name", "", "Specify volume name")
	_ = fs.MarkHidden("name") // exists
	fs.VarP(driverOpts, "opt", "o", "Set driver specific options")
	fs.Var(&labels, "label", "Set metadata for a volume")
	return cmd
}

func newList(e *env.Env) *cobra.Command {
	var (
		out    formatting.Flags
		filter = opts.NewFilterOpt()
	)
	cmd := env.Command(env.Spec{
		Use: "ls [OPTIONS]", Aliases: []string{"list"},
		Short:   "List volumes",
		Example: "cleat volume ls --filter dangling=true -q",
		Args:    env.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) error {
			engine, err := e.Engine()
			if err != nil {
				return err
			}
			res, err := engine.VolumeList(cmd.Context(), moby.VolumeListOptions{Filters: filter.Value()})
			if err != nil {
				return err
			}
			for _, w := range res.Warnings {
				fmt.Fprintln(e.Err, "WARNING:", w)
			}
			return List(res.Items, out).Print(e.Out)
		},
	})
	fs := cmd.Flags()
	fs.BoolVarP(&out.Quiet, "quiet", "q", false, "Only display volume names")
	out.AddFormat(fs)
	out.AddOutput(fs)
	fs.VarP(&filter, "filter", "f", `Provide filter values (e.g. "dangling=true")`)
	return cmd
}

// row has the fields of docker's volume templates.
type row struct {
	Availability, Driver, Group, Labels, Links, Mountpoint, Name, Scope, Size, Status string

	labels map[string]string
}

// Label gives the value of one label.
func (r row) Label(name string) string { return r.labels[name] }

// List makes the table of volumes.
func List(items []volume.Volume, out formatting.Flags) formatting.List {
	l := formatting.List{
		Format: out.Format, Output: out.Output, Quiet: out.Quiet, QuietFormat: "{{.Name}}", Objects: items,
		Table: "{{.Driver}}\t{{.Name}}",
		Header: formatting.Header{
			"Name": "VOLUME NAME", "Driver": "DRIVER", "Scope": "SCOPE", "Availability": "AVAILABILITY", "Mountpoint": "MOUNTPOINT",
			"Labels": "LABELS", "Links": "LINKS", "Size": "SIZE", "Group": "GROUP", "Status": "STATUS",
		},
	}
	for _, v := range items {
		r := row{
			Name: v.Name, Driver: v.Driver, Scope: v.Scope, Mountpoint: v.Mountpoint, Labels: formatting.Pairs(v.Labels), labels: v.Labels,
			Availability: "N/A", Group: "N/A", Status: "N/A", Links: "N/A", Size: "N/A",
		}
		if v.UsageData != nil {
			r.Links, r.Size = fmt.Sprint(v.UsageData.RefCount), formatting.Size(v.UsageData.Size)
		}
		l.Rows = append(l.Rows, r)
	}
	return l
}

func newInspect(e *env.Env) *cobra.Command {
	var out formatting.Flags
	cmd := env.Command(env.Spec{
		Use:     "inspect [OPTIONS] VOLUME [VOLUME...]",
		Short:   "Display detailed information on one or more volumes",
		Example: "cleat volume inspect -f '{{.Mountpoint}}' data",
		Args:    env.MinArgs(1), Complete: completion.Volumes(e, 0),
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

// Inspect fetches one volume for inspect commands.
func Inspect(ctx context.Context, e *env.Env, ref string) (formatting.Inspected, error) {
	engine, err := e.Engine()
	if err != nil {
		return formatting.Inspected{}, err
	}
	res, err := engine.VolumeInspect(ctx, ref, moby.VolumeInspectOptions{})
	return formatting.Inspected{Value: res.Volume, Raw: res.Raw}, err
}

func newRemove(e *env.Env) *cobra.Command {
	var force bool
	cmd := env.Command(env.Spec{
		Use: "rm [OPTIONS] VOLUME [VOLUME...]", Aliases: []string{"remove"},
		Short:   "Remove one or more volumes",
		Example: "cleat volume rm data",
		Args:    env.MinArgs(1), Complete: completion.Volumes(e, 0),
		Run: func(cmd *cobra.Command, args []string) error {
			engine, err := e.Engine()
			if err != nil {
				return err
			}
			var errs []error
			for _, n := range args {
				if _, err := engine.VolumeRemove(cmd.Context(), n, moby.VolumeRemoveOptions{Force: force}); err != nil {
					errs = append(errs, err)
					continue
				}
				fmt.Fprintln(e.Out, n)
			}
			return errors.Join(errs...)
		},
	})
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force the removal of one or more volumes")
	return cmd
}

func newPrune(e *env.Env) *cobra.Command {
	var (
		all, force bool
		filter     = opts.NewFilterOpt()
	)
	cmd := env.Command(env.Spec{
		Use:     "prune [OPTIONS]",
		Short:   "Remove unused local volumes",
		Example: "cleat volume prune -a",
		Args:    env.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) error {
			warning := "This will remove anonymous local volumes not used by at least one container."
			if all {
				warning = "This will remove all local volumes not used by at least one container."
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
	fs.BoolVarP(&all, "all", "a", false, "Remove all unused volumes, not just anonymous ones")
	fs.BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	fs.Var(&filter, "filter", `Provide filter values (e.g. "label=<label>")`)
	return cmd
}

// Prune removes unused volumes and words what went.
func Prune(ctx context.Context, e *env.Env, all bool, filters moby.Filters) (text string, freed uint64, err error) {
	engine, err := e.Engine()
	if err != nil {
		return "", 0, err
	}
	res, err := engine.VolumePrune(ctx, moby.VolumePruneOptions{All: all, Filters: filters})
	if err != nil {
		return "", 0, err
	}
	if names := res.Report.VolumesDeleted; len(names) > 0 {
		text = "Deleted Volumes:\n" + strings.Join(names, "\n") + "\n\n"
	}
	return text, res.Report.SpaceReclaimed, nil
}

func newExport(e *env.Env) *cobra.Command {
	var output string
	cmd := env.Command(env.Spec{
		Use:   "export [OPTIONS] VOLUME",
		Short: "Write the contents of a volume as a consistent tar archive",
		Example: `cleat volume export -o data.tar data
			cleat volume export data | gzip > data.tar.gz`,
		Args: env.ExactArgs(1), Complete: completion.Volumes(e, 1),
		Run: func(cmd *cobra.Command, args []string) error {
			return e.WriteStream(output, func() (io.ReadCloser, error) {
				engine, err := e.Engine()
				if err != nil {
					return nil, err
				}
				return engine.VolumeExport(cmd.Context(), args[0])
			})
		},
	})
	cmd.Flags().StringVarP(&output, "output", "o", "", "Write to a file, instead of STDOUT")
	return cmd
}

func newImport(e *env.Env) *cobra.Command {
	var input string
	cmd := env.Command(env.Spec{
		Use:   "import [OPTIONS] VOLUME",
		Short: "Fill a volume from a tar archive",
		Example: `cleat volume create data && cleat volume import -i data.tar data
			gunzip < data.tar.gz | cleat volume import data`,
		Args: env.ExactArgs(1), Complete: completion.Volumes(e, 1),
		Run: func(cmd *cobra.Command, args []string) error {
			in := e.In
			if input != "" && input != "-" {
				f, err := os.Open(input)
				if err != nil {
					return err
				}
				defer func() { _ = f.Close() }() // read only
				in = f
			} else if _, ok := e.InTerminal(); ok {
				return env.Usage(cmd, errors.New("requested import from stdin, but stdin is empty"))
			}
			engine, err := e.Engine()
			if err != nil {
				return err
			}
			if err := engine.VolumeImport(cmd.Context(), args[0], in); err != nil {
				return err
			}
			_, err = fmt.Fprintln(e.Out, args[0])
			return err
		},
	})
	cmd.Flags().StringVarP(&input, "input", "i", "", "Read from a tar archive file, instead of STDIN")
	return cmd
}

func newClone(e *env.Env) *cobra.Command {
	return env.Command(env.Spec{
		Use:     "clone SOURCE_VOLUME NEW_VOLUME",
		Short:   "Copy a volume to a new one",
		Example: "cleat volume clone data data-before-upgrade",
		Args:    env.ExactArgs(2), Complete: completion.Volumes(e, 1),
		Run: func(cmd *cobra.Command, args []string) error {
			engine, err := e.Engine()
			if err != nil {
				return err
			}
			v, err := engine.VolumeClone(cmd.Context(), args[0], args[1])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(e.Out, v.Name)
			return err
		},
	})
}
