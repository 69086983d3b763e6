package image

import (
	"bytes"
	"context"
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/docker/cli/opts"
	"github.com/moby/moby/api/types/image"
	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/cleatlabs/cleat/cli/completion"
	"github.com/cleatlabs/cleat/cli/env"
	"github.com/cleatlabs/cleat/cli/formatting"
)

// NewListCommand is `cleat images` and `cleat image ls`.
func NewListCommand(e *env.Env, name string) *cobra.Command {
	var (
		out          formatting.Flags
		all, digests bool
		filter       = opts.NewFilterOpt()
	)
	spec := env.Spec{
		Use:   name + " [OPTIONS] [REPOSITORY[:TAG]]",
		Short: "List images",
		Example: `cleat images
			cleat images --filter dangling=true -q
			cleat images --format '{{.Repository}}:{{.Tag}} {{.Size}}'`,
		Args: env.RangeArgs(0, 1), Complete: completion.Images(e, 1),
		Run: func(cmd *cobra.Command, args []string) error {
			f := filter.Value()
			if len(args) == 1 {
				f.Add("reference", args[0])
			}
			engine, err := e.Engine()
			if err != nil {
				return err
			}
			res, err := engine.ImageList(cmd.Context(), moby.ImageListOptions{All: all, Filters: f})
			if err != nil {
				return err
			}
			if out.Format == "" && !out.Quiet {
				if s, err := e.Settings(); err == nil {
					out.Format = s.ImagesFormat
				}
			}
			return List(res.Items, out, digests, time.Now()).Print(e.Out)
		},
	}
	if name == "ls" {
		spec.Aliases = []string{"list"}
	}
	cmd := env.Command(spec)
	fs := cmd.Flags()
	out.AddList(fs, "image IDs")
	fs.BoolVarP(&all, "all", "a", false, "Show all images (default hides intermediate images)")
	fs.BoolVar(&digests, "digests", false, "Show digests")
	fs.VarP(&filter, "filter", "f", "Filter output based on conditions provided")
	return cmd
}

// row has the fields of docker's image templates.
type row struct {
	Containers, CreatedAt, CreatedSince, Digest, ID, Repository, SharedSize, Size, Tag, UniqueSize, VirtualSize string
}

// List makes the table of images: a line for each name.
func List(items []image.Summary, out formatting.Flags, digests bool, now time.Time) formatting.List {
	l := formatting.List{
		Format: out.Format, Output: out.Output, Quiet: out.Quiet, QuietFormat: "{{.ID}}", Objects: items,
		Table: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
		Header: formatting.Header{
			"ID": "IMAGE ID", "Repository": "REPOSITORY", "Tag": "TAG", "Digest": "DIGEST", "CreatedSince": "CREATED",
			"CreatedAt": "CREATED AT", "Size": "SIZE", "Containers": "CONTAINERS", "VirtualSize": "SIZE",
			"SharedSize": "SHARED SIZE", "UniqueSize": "UNIQUE SIZE",
		},
	}
	if digests {
		l.Table = "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
	}
	withDigest := digests || strings.Contains(out.Format, ".Digest")
	for _, i := range items {
		for _, r := range rows(i, withDigest, out.NoTrunc, now) {
			l.Rows = append(l.Rows, r)
		}
	}
	return l
}

func rows(i image.Summary, withDigest, noTrunc bool, now time.Time) []row {
	base := row{
		ID: formatting.ID(i.ID, noTrunc), Repository: "<none>", Tag: "<none>", Digest: "<none>",
		Size: formatting.Size(i.Size), VirtualSize: formatting.Size(i.Size), Containers: "N/A", SharedSize: "N/A", UniqueSize: "N/A",
		CreatedAt: time.Unix(i.Created, 0).String(), CreatedSince: "N/A",
	}
	if i.Created > 0 {
		base.CreatedSince = formatting.Ago(now, time.Unix(i.Created, 0))
	}
	if i.Containers >= 0 {
		base.Containers = fmt.Sprint(i.Containers)
	}
	if i.SharedSize >= 0 {
		base.SharedSize, base.UniqueSize = formatting.Size(i.SharedSize), formatting.Size(i.Size-i.SharedSize)
	}
	tags, digests := byRepository(i)
	repos := map[string]bool{}
	for r := range tags {
		repos[r] = true
	}
	for r := range digests {
		if len(tags) == 0 || withDigest {
			repos[r] = true
		}
	}
	names := make([]string, 0, len(repos))
	for r := range repos {
		names = append(names, r)
	}
	sort.Strings(names)
	var out []row
	for _, repo := range names {
		r := base
		r.Repository = repo
		ts, ds := tags[repo], digests[repo]
		if len(ts) == 0 {
			ts = []string{"<none>"}
		}
		if !withDigest || len(ds) == 0 {
			ds = []string{"<none>"}
		}
		for _, t := range ts {
			for _, d := range ds {
				r.Tag, r.Digest = t, d
				out = append(out, r)
			}
		}
	}
	if len(out) == 0 {
		out = []row{base}
	}
	return out
}

func byRepository(i image.Summary) (tags, digests map[string][]string) {
	tags, digests = map[string][]string{}, map[string][]string{}
	for _, s := range i.RepoTags {
		if n, err := reference.ParseNormalizedNamed(s); err == nil {
			if t, ok := n.(reference.NamedTagged); ok {
				repo := reference.FamiliarName(n)
				tags[repo] = append(tags[repo], t.Tag())
			}
		}
	}
	for _, s := range i.RepoDigests {
		if n, err := reference.ParseNormalizedNamed(s); err == nil {
			if c, ok := n.(reference.Canonical); ok {
				repo := reference.FamiliarName(n)
				digests[repo] = append(digests[repo], c.Digest().String())
			}
		}
	}
	return tags, digests
}

// Inspect fetches one image for inspect commands.
func Inspect(ctx context.Context, e *env.Env, ref string) (formatting.Inspected, error) {
	engine, err := e.Engine()
	if err != nil {
		return formatting.Inspected{}, err
	}
	var raw bytes.Buffer
	res, err := engine.ImageInspect(ctx, ref, moby.ImageInspectWithRawResponse(&raw))
	return formatting.Inspected{Value: res.InspectResponse, Raw: raw.Bytes()}, err
}
