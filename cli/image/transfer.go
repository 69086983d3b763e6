// Package image holds the commands about images.
package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/distribution/reference"
	moby "github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/cleatlabs/cleat/cli/completion"
	"github.com/cleatlabs/cleat/cli/env"
	"github.com/cleatlabs/cleat/cli/progress"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

// PullOptions are those of Pull.
type PullOptions struct {
	Platform *ocispec.Platform
	All      bool
	// Out gets the progress.
	Out io.Writer
}

// Pull fetches an image with the user's credentials, showing progress.
func Pull(ctx context.Context, e *env.Env, ref string, o PullOptions) error {
	engine, err := e.Engine()
	if err != nil {
		return err
	}
	auth, err := e.Auth().HeaderFor(ref)
	if err != nil {
		return err
	}
	options := moby.ImagePullOptions{All: o.All, RegistryAuth: auth}
	if o.Platform != nil {
		options.Platforms = []ocispec.Platform{*o.Platform}
	}
	resp, err := engine.ImagePull(ctx, ref, options)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Close() }() // read to its end
	return show(o.Out, resp)
}

// show prints progress in the form that suits where it goes.
func show(out io.Writer, stream io.Reader) error {
	return progress.Display(out, progress.Decode(stream), terminalWidth(out), time.Now)
}

func terminalWidth(out io.Writer) int {
	f, ok := out.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0
	}
	w, _, err := term.GetSize(int(f.Fd()))
	if err != nil || w < 20 {
		return 0
	}
	return w
}

// NewPullCommand is `cleat pull`.
func NewPullCommand(e *env.Env) *cobra.Command {
	var (
		all, quiet bool
		platform   string
	)
	cmd := env.Command(env.Spec{
		Use:   "pull [OPTIONS] NAME[:TAG|@DIGEST]",
		Short: "Download an image from a registry",
		Example: `cleat pull debian:12
			cleat pull --platform linux/arm64 registry.example.com/team/app:1.4`,
		Args:     env.ExactArgs(1),
		Complete: completion.Images(e, 1),
		Run: func(cmd *cobra.Command, args []string) error {
			named, err := reference.ParseNormalizedNamed(args[0])
			if err != nil {
				return errdefs.As(errdefs.ErrInvalidArgument, err)
			}
			if all && !reference.IsNameOnly(named) {
				return env.Usage(cmd, errors.New("tag can't be used with --all-tags/-a"))
			}
			o := PullOptions{All: all, Out: e.Out}
			if platform != "" {
				if o.Platform, err = ParsePlatform(platform); err != nil {
					return err
				}
			}
			if !all && reference.IsNameOnly(named) {
				named = reference.TagNameOnly(named)
				if !quiet {
					fmt.Fprintln(e.Out, "Using default tag: latest")
				}
			}
			if quiet {
				o.Out = io.Discard
			}
			if err := Pull(cmd.Context(), e, reference.FamiliarString(named), o); err != nil {
				return err
			}
			_, err = fmt.Fprintln(e.Out, named.String())
			return err
		},
	})
	fs := cmd.Flags()
	fs.BoolVarP(&all, "all-tags", "a", false, "Download all tagged images in the repository")
	fs.BoolVarP(&quiet, "quiet", "q", false, "Suppress verbose output")
	fs.StringVar(&platform, "platform", e.Getenv("DOCKER_DEFAULT_PLATFORM"), "Set platform if the image is for several")
	fs.Bool("disable-content-trust", true, "Accepted and ignored")
	_ = fs.MarkHidden("disable-content-trust") // exists
	return cmd
}

// NewPushCommand is `cleat push`.
func NewPushCommand(e *env.Env) *cobra.Command {
	var (
		all, quiet bool
		platform   string
	)
	cmd := env.Command(env.Spec{
		Use:   "push [OPTIONS] NAME[:TAG]",
		Short: "Upload an image to a registry",
		Example: `cleat tag app:1.4 registry.example.com/team/app:1.4
			cleat push registry.example.com/team/app:1.4`,
		Args:     env.ExactArgs(1),
		Complete: completion.Images(e, 1),
		Run: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			named, err := reference.ParseNormalizedNamed(args[0])
			if err != nil {
				return errdefs.As(errdefs.ErrInvalidArgument, err)
			}
			switch {
			case all && !reference.IsNameOnly(named):
				return env.Usage(cmd, errors.New("tag can't be used with --all-tags/-a"))
			case !all && reference.IsNameOnly(named):
				named = reference.TagNameOnly(named)
				if !quiet {
					fmt.Fprintln(e.Out, "Using default tag: latest")
				}
			}
			engine, err := e.Engine()
			if err != nil {
				return err
			}
			auth, err := e.Auth().HeaderFor(args[0])
			if err != nil {
				return err
			}
			o := moby.ImagePushOptions{All: all, RegistryAuth: auth}
			if platform != "" {
				if o.Platform, err = ParsePlatform(platform); err != nil {
					return err
				}
			}
			resp, err := engine.ImagePush(ctx, reference.FamiliarString(named), o)
			if err != nil {
				return err
			}
			defer func() { _ = resp.Close() }() // read to its end
			out := e.Out
			if quiet {
				out = io.Discard
			}
			if err := show(out, resp); err != nil {
				return err
			}
			if quiet {
				_, err = fmt.Fprintln(e.Out, named.String())
			}
			return err
		},
	})
	fs := cmd.Flags()
	fs.BoolVarP(&all, "all-tags", "a", false, "Push all tags of an image to the repository")
	fs.BoolVarP(&quiet, "quiet", "q", false, "Suppress verbose output")
	fs.StringVar(&platform, "platform", "", "Push only this platform of the image")
	fs.Bool("disable-content-trust", true, "Accepted and ignored")
	_ = fs.MarkHidden("disable-content-trust") // exists
	return cmd
}

// NewLoadCommand is `cleat load`.
func NewLoadCommand(e *env.Env) *cobra.Command {
	var (
		input     string
		quiet     bool
		platforms []string
	)
	cmd := env.Command(env.Spec{
		Use:   "load [OPTIONS]",
		Short: "Load images from a tar archive or STDIN",
		Example: `cleat load -i images.tar
			cat images.tar.gz | cleat load`,
		Args: env.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) error {
			in := e.In
			if input != "" && input != "-" {
				f, err := os.Open(input)
				if err != nil {
					return err
				}
				defer func() { _ = f.Close() }() // read only
				in = f
			} else if _, ok := e.InTerminal(); ok {
				return env.Usage(cmd, errors.New("requested load from stdin, but stdin is empty"))
			}
			var options []moby.ImageLoadOption
			ps, err := parsePlatforms(platforms)
			if err != nil {
				return err
			}
			if len(ps) > 0 {
				options = append(options, moby.ImageLoadWithPlatforms(ps...))
			}
			if quiet || terminalWidth(e.Out) == 0 {
				options = append(options, moby.ImageLoadWithQuiet(true))
			}
			engine, err := e.Engine()
			if err != nil {
				return err
			}
			resp, err := engine.ImageLoad(cmd.Context(), in, options...)
			if err != nil {
				return err
			}
			defer func() { _ = resp.Close() }() // read to its end
			return show(e.Out, resp)
		},
	})
	fs := cmd.Flags()
	fs.StringVarP(&input, "input", "i", "", "Read from tar archive file, instead of STDIN")
	fs.BoolVarP(&quiet, "quiet", "q", false, "Suppress the load output")
	fs.StringSliceVar(&platforms, "platform", nil, "Load only these platforms")
	_ = cmd.MarkFlagFilename("input", "tar", "tar.gz", "tgz", "tar.zst") // exists
	return cmd
}

// NewSaveCommand is `cleat save`.
func NewSaveCommand(e *env.Env) *cobra.Command {
	var (
		output    string
		platforms []string
	)
	cmd := env.Command(env.Spec{
		Use:   "save [OPTIONS] IMAGE [IMAGE...]",
		Short: "Save one or more images to a tar archive (streamed to STDOUT by default)",
		Example: `cleat save -o app.tar app:1.4
			cleat save app:1.4 | ssh host cleat load`,
		Args:     env.MinArgs(1),
		Complete: completion.Images(e, 0),
		Run: func(cmd *cobra.Command, args []string) error {
			ps, err := parsePlatforms(platforms)
			if err != nil {
				return err
			}
			var options []moby.ImageSaveOption
			if len(ps) > 0 {
				options = append(options, moby.ImageSaveWithPlatforms(ps...))
			}
			return e.WriteStream(output, func() (io.ReadCloser, error) {
				engine, err := e.Engine()
				if err != nil {
					return nil, err
				}
				return engine.ImageSave(cmd.Context(), args, options...)
			})
		},
	})
	fs := cmd.Flags()
	fs.StringVarP(&output, "output", "o", "", "Write to a file, instead of STDOUT")
	fs.StringSliceVar(&platforms, "platform", nil, "Save only these platforms")
	return cmd
}

// NewImportCommand is `cleat import`.
func NewImportCommand(e *env.Env) *cobra.Command {
	var (
		changes           []string
		message, platform string
	)
	cmd := env.Command(env.Spec{
		Use:   "import [OPTIONS] FILE|URL|- [REPOSITORY[:TAG]]",
		Short: "Import the contents from a tarball to create a filesystem image",
		Example: `cleat import rootfs.tar debian:mine
			debootstrap stable ./root && tar -C root -c . | cleat import --change 'CMD ["/bin/bash"]' - debian:mine`,
		Args:     env.RangeArgs(1, 2),
		Complete: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) { return nil, 0 },
		Run: func(cmd *cobra.Command, args []string) error {
			source := moby.ImageImportSource{SourceName: args[0]}
			switch {
			case args[0] == "-":
				source.Source = e.In
			case !isURL(args[0]):
				f, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer func() { _ = f.Close() }() // read only
				source = moby.ImageImportSource{SourceName: "-", Source: f}
			}
			ref := ""
			if len(args) == 2 {
				ref = args[1]
			}
			o := moby.ImageImportOptions{Message: message, Changes: changes}
			if platform != "" {
				p, err := ParsePlatform(platform)
				if err != nil {
					return err
				}
				o.Platform = *p
			}
			engine, err := e.Engine()
			if err != nil {
				return err
			}
			resp, err := engine.ImageImport(cmd.Context(), source, ref, o)
			if err != nil {
				return err
			}
			defer func() { _ = resp.Close() }() // read to its end
			return show(e.Out, resp)
		},
	})
	fs := cmd.Flags()
	fs.StringArrayVarP(&changes, "change", "c", nil, "Apply Dockerfile instruction to the created image")
	fs.StringVarP(&message, "message", "m", "", "Set commit message for imported image")
	fs.StringVar(&platform, "platform", e.Getenv("DOCKER_DEFAULT_PLATFORM"), "Set platform of the image")
	return cmd
}
