package container

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/docker/cli/opts"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/cleatlabs/cleat/cli/completion"
	"github.com/cleatlabs/cleat/cli/env"
	"github.com/cleatlabs/cleat/cli/stream"
	"github.com/cleatlabs/cleat/client"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

// NewStartCommand is `cleat start`.
func NewStartCommand(e *env.Env) *cobra.Command {
	var (
		attach, interactive bool
		detachKeys          string
	)
	cmd := env.Command(env.Spec{
		Use:   "start [OPTIONS] CONTAINER [CONTAINER...]",
		Short: "Start one or more stopped containers",
		Example: `cleat start web db
			cleat start -ai job`,
		Args: env.MinArgs(1), Complete: completion.Containers(e, 0, container.StateCreated, container.StateExited, container.StateDead),
		Run: func(cmd *cobra.Command, args []string) error {
			if !attach && !interactive {
				return each(cmd, e, args, func(ctx context.Context, engine *client.Engine, name string) error {
					_, err := engine.ContainerStart(ctx, name, moby.ContainerStartOptions{})
					return err
				})
			}
			if len(args) > 1 {
				return env.Usage(cmd, errors.New("you cannot start and attach multiple containers at once"))
			}
			return startAttached(cmd.Context(), e, args[0], interactive, detachKeys)
		},
	})
	fs := cmd.Flags()
	fs.BoolVarP(&attach, "attach", "a", false, "Attach STDOUT/STDERR and forward signals")
	fs.BoolVarP(&interactive, "interactive", "i", false, "Attach container's STDIN")
	fs.StringVar(&detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	return cmd
}

func startAttached(ctx context.Context, e *env.Env, name string, interactive bool, detachKeys string) error {
	engine, err := e.Engine()
	if err != nil {
		return err
	}
	res, err := engine.ContainerInspect(ctx, name, moby.ContainerInspectOptions{})
	if err != nil {
		return err
	}
	c := res.Container
	s := session{
		e: e, engine: engine, id: c.ID, autoRemove: c.HostConfig.AutoRemove, sigProxy: !c.Config.Tty,
		streams: stream.Options{
			Stdin: interactive && c.Config.OpenStdin, Stdout: true, Stderr: true,
			TTY: c.Config.Tty, DetachKeys: e.DetachKeys(detachKeys),
		},
	}
	if err := stream.CheckTTY(e, s.streams.Stdin, s.streams.TTY); err != nil {
		return err
	}
	err = s.run(ctx, func(ctx context.Context) error {
		_, err := engine.ContainerStart(ctx, c.ID, moby.ContainerStartOptions{})
		return err
	})
	return err
}

// NewAttachCommand is `cleat attach`.
func NewAttachCommand(e *env.Env) *cobra.Command {
	var (
		noStdin, sigProxy bool
		detachKeys        string
	)
	cmd := env.Command(env.Spec{
		Use:     "attach [OPTIONS] CONTAINER",
		Short:   "Attach local standard input, output, and error streams to a running container",
		Example: "cleat attach --detach-keys ctrl-x shell",
		Args:    env.ExactArgs(1), Complete: completion.Containers(e, 1, container.StateRunning),
		Run: func(cmd *cobra.Command, args []string) error {
			return attachTo(cmd.Context(), e, args[0], noStdin, sigProxy, detachKeys)
		},
	})
	fs := cmd.Flags()
	fs.BoolVar(&noStdin, "no-stdin", false, "Do not attach STDIN")
	fs.BoolVar(&sigProxy, "sig-proxy", true, "Proxy all received signals to the process")
	fs.StringVar(&detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	return cmd
}

func attachTo(ctx context.Context, e *env.Env, name string, noStdin, sigProxy bool, detachKeys string) error {
	engine, err := e.Engine()
	if err != nil {
		return err
	}
	res, err := engine.ContainerInspect(ctx, name, moby.ContainerInspectOptions{})
	if err != nil {
		return err
	}
	c := res.Container
	switch {
	case !c.State.Running:
		return errdefs.WithHint(errdefs.Conflictf("you cannot attach to a stopped container, start it first"), "`cleat start -a "+name+"` starts and attaches")
	case c.State.Paused:
		return errdefs.WithHint(errdefs.Conflictf("you cannot attach to a paused container, unpause it first"), "`cleat unpause "+name+"`")
	case c.State.Restarting:
		return errdefs.Conflictf("you cannot attach to a restarting container, wait until it is running")
	}
	s := session{
		e: e, engine: engine, id: c.ID, autoRemove: c.HostConfig.AutoRemove, sigProxy: sigProxy && !c.Config.Tty,
		streams: stream.Options{
			Stdin: !noStdin && c.Config.OpenStdin, Stdout: true, Stderr: true,
			TTY: c.Config.Tty, DetachKeys: e.DetachKeys(detachKeys),
		},
	}
	if err := stream.CheckTTY(e, s.streams.Stdin, s.streams.TTY); err != nil {
		return err
	}
	return s.run(ctx, func(context.Context) error { return nil })
}

// NewExecCommand is `cleat exec`.
func NewExecCommand(e *env.Env) *cobra.Command {
	var (
		o               moby.ExecCreateOptions
		detach, stdin   bool
		environ, envFil opts.ListOpts
	)
	environ, envFil = opts.NewListOpts(opts.ValidateEnv), opts.NewListOpts(nil)
	cmd := env.Command(env.Spec{
		Use:   "exec [OPTIONS] CONTAINER COMMAND [ARG...]",
		Short: "Execute a command in a running container",
		Example: `cleat exec -it web sh
			cleat exec -u postgres db psql -c 'select 1'`,
		Args: env.MinArgs(2),
		Complete: completion.Then(completion.Containers(e, 1, container.StateRunning),
			func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) { return nil, 0 }),
		Run: func(cmd *cobra.Command, args []string) error {
			vars, err := opts.ReadKVEnvStrings(envFil.GetSlice(), environ.GetSlice())
			if err != nil {
				return errdefs.As(errdefs.ErrInvalidArgument, err)
			}
			o.Env, o.Cmd = vars, args[1:]
			o.DetachKeys = e.DetachKeys(o.DetachKeys)
			if !detach {
				o.AttachStdin, o.AttachStdout, o.AttachStderr = stdin, true, true
			}
			if err := stream.CheckTTY(e, o.AttachStdin, o.TTY); err != nil {
				return err
			}
			return execIn(cmd.Context(), e, args[0], o, detach)
		},
	})
	fs := cmd.Flags()
	fs.SetInterspersed(false)
	fs.StringVar(&o.DetachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	fs.BoolVarP(&stdin, "interactive", "i", false, "Keep STDIN open even if not attached")
	fs.BoolVarP(&o.TTY, "tty", "t", false, "Allocate a pseudo-TTY")
	fs.BoolVarP(&detach, "detach", "d", false, "Detached mode: run command in the background")
	fs.StringVarP(&o.User, "user", "u", "", `Username or UID (format: "<name|uid>[:<group|gid>]")`)
	fs.BoolVar(&o.Privileged, "privileged", false, "Give extended privileges to the command")
	fs.VarP(&environ, "env", "e", "Set environment variables")
	fs.Var(&envFil, "env-file", "Read in a file of environment variables")
	fs.StringVarP(&o.WorkingDir, "workdir", "w", "", "Working directory inside the container")
	return cmd
}

func execIn(ctx context.Context, e *env.Env, name string, o moby.ExecCreateOptions, detach bool) error {
	engine, err := e.Engine()
	if err != nil {
		return err
	}
	if o.TTY {
		o.ConsoleSize.Height, o.ConsoleSize.Width = e.Size()
	}
	created, err := engine.ExecCreate(ctx, name, o)
	if err != nil {
		return err
	}
	if created.ID == "" {
		return errors.New("exec ID empty")
	}
	if detach {
		_, err := engine.ExecStart(ctx, created.ID, moby.ExecStartOptions{Detach: true, TTY: o.TTY, ConsoleSize: o.ConsoleSize})
		return err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	res, err := engine.ExecAttach(ctx, created.ID, moby.ExecAttachOptions{TTY: o.TTY, ConsoleSize: o.ConsoleSize})
	if err != nil {
		return startError(err)
	}
	defer res.Close()
	if _, ok := e.OutTerminal(); ok && o.TTY {
		stop := stream.FollowSize(ctx, e, func(ctx context.Context, h, w uint) error {
			_, err := engine.ExecResize(ctx, created.ID, moby.ExecResizeOptions{Height: h, Width: w})
			return err
		})
		defer stop()
	}
	err = stream.Pump(ctx, e, res.HijackedResponse, stream.Options{
		Stdin: o.AttachStdin, Stdout: true, Stderr: true, TTY: o.TTY, DetachKeys: o.DetachKeys,
	})
	if errors.Is(err, stream.ErrDetached) {
		return nil
	}
	if err != nil {
		return err
	}
	state, err := engine.ExecInspect(ctx, created.ID, moby.ExecInspectOptions{})
	if err != nil {
		if client.IsUnreachable(err) {
			return env.Exit(255, err)
		}
		return err
	}
	if state.ExitCode != 0 {
		return env.Exit(state.ExitCode, nil)
	}
	return nil
}

// NewLogsCommand is `cleat logs`.
func NewLogsCommand(e *env.Env) *cobra.Command {
	var o moby.ContainerLogsOptions
	cmd := env.Command(env.Spec{
		Use:   "logs [OPTIONS] CONTAINER",
		Short: "Fetch the logs of a container",
		Example: `cleat logs -f --tail 100 web
			cleat logs --since 10m -t db`,
		Args: env.ExactArgs(1), Complete: completion.Containers(e, 1),
		Run: func(cmd *cobra.Command, args []string) error {
			engine, err := e.Engine()
			if err != nil {
				return err
			}
			// Whether the container has a terminal decides the framing of its logs.
			c, err := engine.ContainerInspect(cmd.Context(), args[0], moby.ContainerInspectOptions{})
			if err != nil {
				return err
			}
			o.ShowStdout, o.ShowStderr = true, true
			r, err := engine.ContainerLogs(cmd.Context(), c.Container.ID, o)
			if err != nil {
				return err
			}
			defer func() { _ = r.Close() }() // read only
			if c.Container.Config.Tty {
				_, err = io.Copy(e.Out, r)
			} else {
				_, err = stdcopy.StdCopy(e.Out, e.Err, r)
			}
			return err
		},
	})
	fs := cmd.Flags()
	fs.BoolVarP(&o.Follow, "follow", "f", false, "Follow log output")
	fs.StringVar(&o.Since, "since", "", `Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
	fs.StringVar(&o.Until, "until", "", `Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
	fs.BoolVarP(&o.Timestamps, "timestamps", "t", false, "Show timestamps")
	fs.BoolVar(&o.Details, "details", false, "Show extra details provided to logs")
	fs.StringVarP(&o.Tail, "tail", "n", "all", "Number of lines to show from the end of the logs")
	return cmd
}

// NewTopCommand is `cleat top`.
func NewTopCommand(e *env.Env) *cobra.Command {
	cmd := env.Command(env.Spec{
		Use:     "top CONTAINER [ps OPTIONS]",
		Short:   "Display the running processes of a container",
		Example: "cleat top web -o pid,comm,rss",
		Args:    env.MinArgs(1), Complete: completion.Containers(e, 1, container.StateRunning),
		Run: func(cmd *cobra.Command, args []string) error {
			engine, err := e.Engine()
			if err != nil {
				return err
			}
			res, err := engine.ContainerTop(cmd.Context(), args[0], moby.ContainerTopOptions{Arguments: args[1:]})
			if err != nil {
				return err
			}
			return columns(e.Out, res.Titles, res.Processes)
		},
	})
	cmd.Flags().SetInterspersed(false)
	return cmd
}

// NewDiffCommand is `cleat diff`.
func NewDiffCommand(e *env.Env) *cobra.Command {
	return env.Command(env.Spec{
		Use:     "diff CONTAINER",
		Short:   "Inspect changes to files or directories on a container's filesystem",
		Example: "cleat diff web",
		Args:    env.ExactArgs(1), Complete: completion.Containers(e, 1),
		Run: func(cmd *cobra.Command, args []string) error {
			engine, err := e.Engine()
			if err != nil {
				return err
			}
			res, err := engine.ContainerDiff(cmd.Context(), args[0], moby.ContainerDiffOptions{})
			if err != nil {
				return err
			}
			for _, c := range res.Changes {
				fmt.Fprintln(e.Out, c.Kind.String(), c.Path)
			}
			return nil
		},
	})
}
