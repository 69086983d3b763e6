// Package container holds the commands about containers.
package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/distribution/reference"
	moby "github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/cleatlabs/cleat/cli/completion"
	"github.com/cleatlabs/cleat/cli/container/runspec"
	"github.com/cleatlabs/cleat/cli/env"
	"github.com/cleatlabs/cleat/cli/image"
	"github.com/cleatlabs/cleat/client"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

// creation is what run and create have in common.
type creation struct {
	spec     *runspec.Flags
	name     string
	platform string
	pull     string
	quiet    bool
}

func addCreation(e *env.Env, cmd *cobra.Command) *creation {
	c := &creation{}
	fs := cmd.Flags()
	fs.SetInterspersed(false) // what follows the image is the container's
	fs.StringVar(&c.name, "name", "", "Assign a name to the container")
	fs.StringVar(&c.pull, "pull", "missing", `Pull the image first ("always", "missing", "never")`)
	fs.BoolVarP(&c.quiet, "quiet", "q", false, "Suppress the pull output")
	fs.StringVar(&c.platform, "platform", e.Getenv("DOCKER_DEFAULT_PLATFORM"), "Set platform if the image is for several (os/arch[/variant])")
	fs.Bool("help", false, "Print usage") // without -h, which is --hostname
	fs.Bool("disable-content-trust", true, "Accepted and ignored")
	_ = fs.MarkHidden("disable-content-trust") // exists: defined above
	c.spec = runspec.Add(fs)
	return c
}

// addRunCompletions is apart from addCreation, because run itself does not need it.
func addRunCompletions(e *env.Env, cmd *cobra.Command) {
	completion.Flag(cmd, "pull", completion.Words("always", "missing", "never"))
	completion.Flag(cmd, "network", completion.Networks(e, 0))
	completion.Flag(cmd, "volumes-from", completion.Containers(e, 0))
	completion.Flag(cmd, "restart", completion.Words("no", "on-failure", "always", "unless-stopped"))
	completion.Flag(cmd, "log-driver", completion.Words("local", "json-file", "none"))
	completion.Flag(cmd, "platform", completion.Words("linux/amd64", "linux/arm64"))
	completion.Flag(cmd, "cgroupns", completion.Words("host", "private"))
	completion.Flag(cmd, "ipc", completion.Words("host", "none", "private", "shareable", "container:"))
	completion.Flag(cmd, "pid", completion.Words("host", "container:"))
	completion.Flag(cmd, "uts", completion.Words("host"))
	completion.Flag(cmd, "userns", completion.Words("host"))
	completion.Flag(cmd, "stop-signal", completion.Words("SIGTERM", "SIGKILL", "SIGINT", "SIGQUIT", "SIGHUP"))
}

// NewCreateCommand is `cleat create`.
func NewCreateCommand(e *env.Env) *cobra.Command {
	var c *creation
	cmd := env.Command(env.Spec{
		Use:   "create [OPTIONS] IMAGE [COMMAND] [ARG...]",
		Short: "Create a new container",
		Example: `cleat create --name web -p 8080:80 nginx
			cleat start web`,
		Args:     env.MinArgs(1),
		Complete: completion.Images(e, 1),
		Run: func(cmd *cobra.Command, args []string) error {
			req, err := c.plan(e, args)
			if err != nil {
				return env.Exit(125, env.Usage(cmd, err))
			}
			engine, err := e.Engine()
			if err != nil {
				return env.Exit(125, err)
			}
			id, err := c.create(cmd.Context(), e, engine, req)
			if err != nil {
				return env.Exit(1, err)
			}
			_, err = fmt.Fprintln(e.Out, id)
			return err
		},
	})
	c = addCreation(e, cmd)
	addRunCompletions(e, cmd)
	return cmd
}

// plan makes the request from the flags and the words after them.
func (c *creation) plan(e *env.Env, args []string) (runspec.Request, error) {
	switch c.pull {
	case "always", "missing", "never", "":
	default:
		return runspec.Request{}, errdefs.Invalidf("invalid pull option: '%s': must be one of \"always\", \"missing\" or \"never\"", c.pull)
	}
	ep, err := e.Endpoint()
	if err != nil {
		return runspec.Request{}, err
	}
	proxies, err := e.Auth().Proxies(ep.Host)
	if err != nil {
		return runspec.Request{}, err
	}
	if err := c.spec.AddProxyEnv(proxies.Env()); err != nil {
		return runspec.Request{}, err
	}
	return c.spec.Plan(args[0], args[1:], runspec.OSFiles)
}

// create makes the container, after pulling its image where that is wanted.
// On success the ID is in --cidfile; on failure there is no such file.
func (c *creation) create(ctx context.Context, e *env.Env, engine *client.Engine, req runspec.Request) (id string, err error) {
	var platform *ocispec.Platform
	if c.platform != "" {
		if platform, err = image.ParsePlatform(c.platform); err != nil {
			return "", err
		}
	}
	named, err := imageName(req.Config.Image)
	if err != nil {
		return "", err
	}
	cid, err := openCIDFile(c.spec.CIDFile())
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, cid.close()) }()

	pull := func() error {
		out := e.Err
		if c.quiet {
			out = io.Discard
		}
		return image.Pull(ctx, e, req.Config.Image, image.PullOptions{Platform: platform, Out: out})
	}
	if c.pull == "always" {
		if err := pull(); err != nil {
			return "", err
		}
	}
	h, w := e.Size()
	req.HostConfig.ConsoleSize = [2]uint{h, w}
	options := moby.ContainerCreateOptions{
		Name: c.name, Config: req.Config, HostConfig: req.HostConfig, NetworkingConfig: req.Networking, Platform: platform,
	}
	res, err := engine.ContainerCreate(ctx, options)
	if err != nil && errors.Is(err, errdefs.ErrNotFound) && c.pull == "missing" && named != nil && isNoImage(err) {
		if !c.quiet {
			fmt.Fprintf(e.Err, "Unable to find image '%s' locally\n", reference.FamiliarString(reference.TagNameOnly(named)))
		}
		if err := pull(); err != nil {
			return "", err
		}
		res, err = engine.ContainerCreate(ctx, options)
	}
	if err != nil {
		return "", err
	}
	for _, warning := range res.Warnings {
		fmt.Fprintln(e.Err, "WARNING:", warning)
	}
	return res.ID, cid.write(res.ID)
}

// imageName gives the name to pull, nil where the image is an ID.
func imageName(image string) (reference.Named, error) {
	ref, err := reference.ParseAnyReference(image)
	if err != nil {
		return nil, errdefs.As(errdefs.ErrInvalidArgument, err)
	}
	named, _ := ref.(reference.Named)
	return named, nil
}

// isNoImage tells a missing image from another thing that is missing, such as
// the network or the container of --volumes-from.
func isNoImage(err error) bool {
	return containsAny(err.Error(), "No such image", "no such image", "image not found", "No such object", "not found locally") ||
		!containsAny(err.Error(), "container", "network", "volume", "plugin", "runtime")
}

// cidFile is --cidfile, made before the container so that a failure costs nothing.
type cidFile struct {
	file    *os.File
	written bool
}

func openCIDFile(path string) (*cidFile, error) {
	if path == "" {
		return &cidFile{}, nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, os.ErrExist) {
		return nil, errdefs.Conflictf("container ID file found, make sure the other container isn't running or delete %s", path)
	}
	if err != nil {
		return nil, fmt.Errorf("failed to create the container ID file: %w", err)
	}
	return &cidFile{file: f}, nil
}

func (c *cidFile) write(id string) error {
	if c.file == nil {
		return nil
	}
	if _, err := c.file.WriteString(id); err != nil {
		return fmt.Errorf("failed to write the container ID (%s) to file: %w", id, err)
	}
	c.written = true
	return nil
}

func (c *cidFile) close() error {
	if c.file == nil {
		return nil
	}
	err := c.file.Close()
	if !c.written {
		err = errors.Join(err, os.Remove(c.file.Name()))
	}
	return err
}
