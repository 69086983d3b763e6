package system

import (
	"fmt"
	"time"

	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/cleatlabs/cleat/cli/container"
	"github.com/cleatlabs/cleat/cli/env"
	"github.com/cleatlabs/cleat/cli/formatting"
	"github.com/cleatlabs/cleat/cli/image"
	"github.com/cleatlabs/cleat/cli/volume"
)

func newDiskUsage(e *env.Env) *cobra.Command {
	var (
		out     formatting.Flags
		verbose bool
	)
	cmd := env.Command(env.Spec{
		Use:     "df [OPTIONS]",
		Short:   "Show disk usage",
		Example: "cleat system df -v",
		Args:    env.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) error {
			if verbose && out.Format != "" {
				return env.Usage(cmd, fmt.Errorf("the verbose and the format options conflict"))
			}
			engine, err := e.Engine()
			if err != nil {
				return err
			}
			res, err := engine.DiskUsage(cmd.Context(), moby.DiskUsageOptions{Verbose: verbose})
			if err != nil {
				return err
			}
			if verbose && out.Output == "" {
				return printVerbose(e, res)
			}
			return usageList(res, out).Print(e.Out)
		},
	})
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "Show detailed information on space usage")
	out.AddFormat(cmd.Flags())
	out.AddOutput(cmd.Flags())
	return cmd
}

// usageRow has the fields of docker's disk usage templates.
type usageRow struct {
	Active, Reclaimable, Size, TotalCount, Type string
}

func usageList(u moby.DiskUsageResult, out formatting.Flags) formatting.List {
	row := func(kind string, active, total, reclaimable, size int64) usageRow {
		r := usageRow{Type: kind, Active: fmt.Sprint(active), TotalCount: fmt.Sprint(total), Size: formatting.Size(size), Reclaimable: formatting.Size(reclaimable)}
		if size > 0 && kind != "Build Cache" {
			r.Reclaimable += fmt.Sprintf(" (%d%%)", reclaimable*100/size)
		}
		return r
	}
	return formatting.List{
		Format: out.Format, Output: out.Output, Objects: u,
		Table: "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
		Header: formatting.Header{
			"Type": "TYPE", "TotalCount": "TOTAL", "Active": "ACTIVE", "Size": "SIZE", "Reclaimable": "RECLAIMABLE",
		},
		Rows: []any{
			row("Images", u.Images.ActiveCount, u.Images.TotalCount, u.Images.Reclaimable, u.Images.TotalSize),
			row("Containers", u.Containers.ActiveCount, u.Containers.TotalCount, u.Containers.Reclaimable, u.Containers.TotalSize),
			row("Local Volumes", u.Volumes.ActiveCount, u.Volumes.TotalCount, u.Volumes.Reclaimable, u.Volumes.TotalSize),
			row("Build Cache", u.BuildCache.ActiveCount, u.BuildCache.TotalCount, u.BuildCache.Reclaimable, u.BuildCache.TotalSize),
		},
	}
}

func printVerbose(e *env.Env, u moby.DiskUsageResult) error {
	now := time.Now()
	var f formatting.Flags
	images := image.List(u.Images.Items, f, false, now)
	images.Table = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}"
	containers := container.List(u.Containers.Items, f, true, now)
	containers.Table = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}"
	volumes := volume.List(u.Volumes.Items, f)
	volumes.Table = "{{.Name}}\t{{.Links}}\t{{.Size}}"
	for i, part := range []struct {
		title string
		list  formatting.List
	}{{"Images", images}, {"Containers", containers}, {"Local Volumes", volumes}} {
		if i > 0 {
			fmt.Fprintln(e.Out)
		}
		fmt.Fprintf(e.Out, "%s space usage:\n\n", part.title)
		if err := part.list.Print(e.Out); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(e.Out, "\nBuild cache usage: %s\n", formatting.Size(u.BuildCache.TotalSize))
	return err
}
