package container

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/docker/cli/opts"
	"github.com/moby/moby/api/types/container"
	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/cleatlabs/cleat/cli/completion"
	"github.com/cleatlabs/cleat/cli/env"
	"github.com/cleatlabs/cleat/client"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

// each does the same with every container named and prints the names of those
// with which it succeeded.
func each(cmd *cobra.Command, e *env.Env, names []string, do func(ctx context.Context, engine *client.Engine, name string) error) error {
	engine, err := e.Engine()
	if err != nil {
		return err
	}
	return env.Each(cmd.Context(), names,
		func(ctx context.Context, name string) error { return do(ctx, engine, name) },
		func(name string) { fmt.Fprintln(e.Out, name) })
}

// NewStopCommand is `cleat stop`.
func NewStopCommand(e *env.Env) *cobra.Command {
	var (
		signal  string
		timeout int
	)
	cmd := env.Command(env.Spec{
		Use:   "stop [OPTIONS] CONTAINER [CONTAINER...]",
		Short: "Stop one or more running containers",
		Example: `cleat stop web
			cleat stop -t 30 db`,
		Args: env.MinArgs(1), Complete: completion.Containers(e, 0, completion.Running()...),
		Run: func(cmd *cobra.Command, args []string) error {
			o := moby.ContainerStopOptions{Signal: signal, Timeout: timeoutOf(cmd, &timeout)}
			return each(cmd, e, args, func(ctx context.Context, engine *client.Engine, name string) error {
				_, err := engine.ContainerStop(ctx, name, o)
				return err
			})
		},
	})
	stopFlags(cmd, &signal, &timeout)
	return cmd
}

func stopFlags(cmd *cobra.Command, signal *string, timeout *int) {
	fs := cmd.Flags()
	fs.StringVarP(signal, "signal", "s", "", "Signal to send to the container")
	fs.IntVarP(timeout, "timeout", "t", 0, "Seconds to wait before killing the container")
	fs.IntVar(timeout, "time", 0, "Seconds to wait before killing the container")
	_ = fs.MarkHidden("time") // exists; the older name
}

// timeoutOf gives the timeout if the user gave one: else the container's own applies.
func timeoutOf(cmd *cobra.Command, timeout *int) *int {
	if cmd.Flags().Changed("timeout") || cmd.Flags().Changed("time") {
		return timeout
	}
	return nil
}

// NewRestartCommand is `cleat restart`.
func NewRestartCommand(e *env.Env) *cobra.Command {
	var (
		signal  string
		timeout int
	)
	cmd := env.Command(env.Spec{
		Use:     "restart [OPTIONS] CONTAINER [CONTAINER...]",
		Short:   "Restart one or more containers",
		Example: "cleat restart web",
		Args:    env.MinArgs(1), Complete: completion.Containers(e, 0),
		Run: func(cmd *cobra.Command, args []string) error {
			o := moby.ContainerRestartOptions{Signal: signal, Timeout: timeoutOf(cmd, &timeout)}
			return each(cmd, e, args, func(ctx context.Context, engine *client.Engine, name string) error {
				_, err := engine.ContainerRestart(ctx, name, o)
				return err
			})
		},
	})
	stopFlags(cmd, &signal, &timeout)
	return cmd
}

// NewPauseCommand is `cleat pause`.
func NewPauseCommand(e *env.Env) *cobra.Command {
	return env.Command(env.Spec{
		Use:     "pause CONTAINER [CONTAINER...]",
		Short:   "Pause all processes within one or more containers",
		Example: "cleat pause web",
		Args:    env.MinArgs(1), Complete: completion.Containers(e, 0, container.StateRunning),
		Run: func(cmd *cobra.Command, args []string) error {
			return each(cmd, e, args, func(ctx context.Context, engine *client.Engine, name string) error {
				_, err := engine.ContainerPause(ctx, name, moby.ContainerPauseOptions{})
				return err
			})
		},
	})
}

// NewUnpauseCommand is `cleat unpause`.
func NewUnpauseCommand(e *env.Env) *cobra.Command {
	return env.Command(env.Spec{
		Use:     "unpause CONTAINER [CONTAINER...]",
		Short:   "Unpause all processes within one or more containers",
		Example: "cleat unpause web",
		Args:    env.MinArgs(1), Complete: completion.Containers(e, 0, container.StatePaused),
		Run: func(cmd *cobra.Command, args []string) error {
			return each(cmd, e, args, func(ctx context.Context, engine *client.Engine, name string) error {
				_, err := engine.ContainerUnpause(ctx, name, moby.ContainerUnpauseOptions{})
				return err
			})
		},
	})
}

// NewKillCommand is `cleat kill`.
func NewKillCommand(e *env.Env) *cobra.Command {
	var signal string
	cmd := env.Command(env.Spec{
		Use:     "kill [OPTIONS] CONTAINER [CONTAINER...]",
		Short:   "Kill one or more running containers",
		Example: "cleat kill -s HUP web",
		Args:    env.MinArgs(1), Complete: completion.Containers(e, 0, completion.Running()...),
		Run: func(cmd *cobra.Command, args []string) error {
			return each(cmd, e, args, func(ctx context.Context, engine *client.Engine, name string) error {
				_, err := engine.ContainerKill(ctx, name, moby.ContainerKillOptions{Signal: signal})
				return err
			})
		},
	})
	cmd.Flags().StringVarP(&signal, "signal", "s", "", "Signal to send to the container")
	completion.Flag(cmd, "signal", completion.Words("HUP", "INT", "KILL", "QUIT", "TERM", "USR1", "USR2"))
	return cmd
}

// NewWaitCommand is `cleat wait`.
func NewWaitCommand(e *env.Env) *cobra.Command {
	return env.Command(env.Spec{
		Use:     "wait CONTAINER [CONTAINER...]",
		Short:   "Block until one or more containers stop, then print their exit codes",
		Example: "cleat wait job",
		Args:    env.MinArgs(1), Complete: completion.Containers(e, 0, completion.Running()...),
		Run: func(cmd *cobra.Command, args []string) error {
			engine, err := e.Engine()
			if err != nil {
				return err
			}
			var errs []error
			for _, name := range args {
				w := engine.ContainerWait(cmd.Context(), name, moby.ContainerWaitOptions{})
				select {
				case r := <-w.Result:
					fmt.Fprintln(e.Out, r.StatusCode)
				case err := <-w.Error:
					errs = append(errs, err)
				}
			}
			return errors.Join(errs...)
		},
	})
}

// NewRemoveCommand is `cleat rm`.
func NewRemoveCommand(e *env.Env) *cobra.Command {
	var o moby.ContainerRemoveOptions
	cmd := env.Command(env.Spec{
		Use:     "rm [OPTIONS] CONTAINER [CONTAINER...]",
		Short:   "Remove one or more containers",
		Example: "cleat rm -f -v web db",
		Aliases: []string{"remove"},
		Args:    env.MinArgs(1), Complete: completion.Containers(e, 0),
		Run: func(cmd *cobra.Command, args []string) error {
			return each(cmd, e, args, func(ctx context.Context, engine *client.Engine, name string) error {
				if name == "" {
					return errdefs.Invalidf("container name cannot be empty")
				}
				_, err := engine.ContainerRemove(ctx, name, o)
				if o.Force && errors.Is(err, errdefs.ErrNotFound) {
					e.PrintError(e.Err, err) // said, but no failure: what was wanted is so
					return nil
				}
				return err
			})
		},
	})
	fs := cmd.Flags()
	fs.BoolVarP(&o.Force, "force", "f", false, "Force the removal of a running container (uses SIGKILL)")
	fs.BoolVarP(&o.RemoveVolumes, "volumes", "v", false, "Remove anonymous volumes associated with the container")
	fs.BoolVarP(&o.RemoveLinks, "link", "l", false, "Remove the specified link")
	return cmd
}

// NewRenameCommand is `cleat rename`.
func NewRenameCommand(e *env.Env) *cobra.Command {
	return env.Command(env.Spec{
		Use:     "rename CONTAINER NEW_NAME",
		Short:   "Rename a container",
		Example: "cleat rename web web-old",
		Args:    env.ExactArgs(2), Complete: completion.Containers(e, 1),
		Run: func(cmd *cobra.Command, args []string) error {
			if args[0] == "" || args[1] == "" {
				return errdefs.Invalidf("neither old nor new names may be empty")
			}
			engine, err := e.Engine()
			if err != nil {
				return err
			}
			_, err = engine.ContainerRename(cmd.Context(), args[0], moby.ContainerRenameOptions{NewName: args[1]})
			return err
		},
	})
}

// NewUpdateCommand is `cleat update`.
func NewUpdateCommand(e *env.Env) *cobra.Command {
	var (
		r                              container.Resources
		memory, reservation, kernelMem opts.MemBytes
		swap                           opts.MemSwapBytes
		cpus                           opts.NanoCPUs
		pids                           int64
		restart                        string
	)
	cmd := env.Command(env.Spec{
		Use:   "update [OPTIONS] CONTAINER [CONTAINER...]",
		Short: "Update configuration of one or more containers",
		Example: `cleat update --memory 512m --cpus 2 web
			cleat update --restart unless-stopped db`,
		Args: env.MinArgs(1), Complete: completion.Containers(e, 0),
		Run: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().NFlag() == 0 {
				return env.Usage(cmd, errors.New("you must provide one or more flags when using this command"))
			}
			policy := container.RestartPolicy{}
			if restart != "" {
				var err error
				if policy, err = opts.ParseRestartPolicy(restart); err != nil {
					return errdefs.As(errdefs.ErrInvalidArgument, err)
				}
			}
			r.Memory, r.MemoryReservation, r.MemorySwap, r.NanoCPUs = memory.Value(), reservation.Value(), swap.Value(), cpus.Value()
			if cmd.Flags().Changed("pids-limit") {
				r.PidsLimit = &pids
			}
			return each(cmd, e, args, func(ctx context.Context, engine *client.Engine, name string) error {
				res, err := engine.ContainerUpdate(ctx, name, moby.ContainerUpdateOptions{Resources: &r, RestartPolicy: &policy})
				for _, w := range res.Warnings {
					fmt.Fprintln(e.Err, "WARNING:", w)
				}
				return err
			})
		},
	})
	fs := cmd.Flags()
	fs.Uint16Var(&r.BlkioWeight, "blkio-weight", 0, `Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)`)
	fs.Int64Var(&r.CPUPeriod, "cpu-period", 0, "Limit CPU CFS (Completely Fair Scheduler) period")
	fs.Int64Var(&r.CPUQuota, "cpu-quota", 0, "Limit CPU CFS (Completely Fair Scheduler) quota")
	fs.Int64Var(&r.CPURealtimePeriod, "cpu-rt-period", 0, "Limit the CPU real-time period in microseconds")
	fs.Int64Var(&r.CPURealtimeRuntime, "cpu-rt-runtime", 0, "Limit the CPU real-time runtime in microseconds")
	fs.StringVar(&r.CpusetCpus, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	fs.StringVar(&r.CpusetMems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
	fs.Int64VarP(&r.CPUShares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	fs.VarP(&memory, "memory", "m", "Memory limit")
	fs.Var(&reservation, "memory-reservation", "Memory soft limit")
	fs.Var(&swap, "memory-swap", "Swap limit equal to memory plus swap: -1 to enable unlimited swap")
	fs.Var(&kernelMem, "kernel-memory", "Kernel memory limit (no longer supported by kernels)")
	_ = fs.MarkHidden("kernel-memory") // exists
	fs.StringVar(&restart, "restart", "", "Restart policy to apply when a container exits")
	fs.Int64Var(&pids, "pids-limit", 0, "Tune container pids limit (set -1 for unlimited)")
	fs.Var(&cpus, "cpus", "Number of CPUs")
	return cmd
}

// NewExportCommand is `cleat export`.
func NewExportCommand(e *env.Env) *cobra.Command {
	var output string
	cmd := env.Command(env.Spec{
		Use:     "export [OPTIONS] CONTAINER",
		Short:   "Export a container's filesystem as a tar archive",
		Example: "cleat export -o web.tar web",
		Args:    env.ExactArgs(1), Complete: completion.Containers(e, 1),
		Run: func(cmd *cobra.Command, args []string) error {
			return e.WriteStream(output, func() (io.ReadCloser, error) {
				engine, err := e.Engine()
				if err != nil {
					return nil, err
				}
				return engine.ContainerExport(cmd.Context(), args[0], moby.ContainerExportOptions{})
			})
		},
	})
	cmd.Flags().StringVarP(&output, "output", "o", "", "Write to a file, instead of STDOUT")
	return cmd
}

// NewCommitCommand is `cleat commit`.
func NewCommitCommand(e *env.Env) *cobra.Command {
	var (
		o              moby.ContainerCommitOptions
		pause, noPause bool
	)
	cmd := env.Command(env.Spec{
		Use:     "commit [OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
		Short:   "Create a new image from a container's changes",
		Example: `cleat commit -c 'CMD ["nginx"]' web web:patched`,
		Args:    env.RangeArgs(1, 2), Complete: completion.Containers(e, 1),
		Run: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("pause") && cmd.Flags().Changed("no-pause") {
				return env.Usage(cmd, errors.New("conflicting options: --no-pause and --pause cannot be used together"))
			}
			if len(args) == 2 {
				o.Reference = args[1]
			}
			o.NoPause = noPause || !pause
			engine, err := e.Engine()
			if err != nil {
				return err
			}
			res, err := engine.ContainerCommit(cmd.Context(), args[0], o)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(e.Out, res.ID)
			return err
		},
	})
	fs := cmd.Flags()
	fs.BoolVarP(&pause, "pause", "p", true, "Pause container during commit")
	fs.BoolVar(&noPause, "no-pause", false, "Disable pausing container during commit")
	fs.StringVarP(&o.Comment, "message", "m", "", "Commit message")
	fs.StringVarP(&o.Author, "author", "a", "", `Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")`)
	fs.StringArrayVarP(&o.Changes, "change", "c", nil, "Apply Dockerfile instruction to the created image")
	return cmd
}
