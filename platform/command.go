package platform

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/cleatlabs/cleat/internal/version"
)

// stopPatience is how long stopping a daemon may take.
const stopPatience = 20 * time.Second

// invocation is what the command line, the environment and the file say.
type invocation struct {
	file   string
	fileBy bool // the file was named, so it must exist
	cfg    Config
	args   []string
}

// Command is the command line of cleatd. args are the process's, without its
// name; they are passed on by --detach.
func Command(args []string) *cobra.Command {
	in := &invocation{args: args}
	var background bool
	root := &cobra.Command{
		Use:   "cleatd",
		Short: "The daemon of one machine",
		Long: `cleatd runs containers and serves the Docker API on a unix socket.

It is configured by a YAML file, environment variables and flags, each over the
one before. A flag --some-name is CLEATD_SOME_NAME in the environment.
Containers keep running when the daemon stops, and are found again when it starts.`,
		Example: `  cleatd                                     serve in the foreground
  cleatd --detach                            serve in the background, return when ready
  cleatd --root /srv/cleat --run /run/c2     a second daemon, beside the first
  cleatd config check                        is the configuration right?`,
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       version.Version(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := in.load(cmd); err != nil {
				return err
			}
			if background {
				return in.runDetached(cmd.ErrOrStderr())
			}
			return in.serve(cmd.Context(), cmd.ErrOrStderr())
		},
	}
	f := root.PersistentFlags()
	f.StringVar(&in.file, "config", DefaultConfig, "configuration `file`")
	f.StringVar(&in.cfg.Root, "root", "", "`folder` for what survives a reboot (default "+DefaultRoot+")")
	f.StringVar(&in.cfg.Run, "run", "", "`folder` for sockets and other volatile state (default "+DefaultRun+")")
	f.StringVar(&in.cfg.Log.Level, "log-level", "", "debug, info, warn or error (default info)")
	f.StringVar(&in.cfg.Log.Format, "log-format", "", "text or json (default text)")
	f.StringVar(&in.cfg.Snapshot.Driver, "snapshotter", "", "overlay, btrfs, native or auto (default auto)")
	f.StringSliceVar(&in.cfg.API.Listen.Hosts, "host", nil, "listen also on `address` (unix:///path or tcp://address:port); repeatable")
	root.Flags().BoolVarP(&background, "detach", "d", false, "serve in the background and return when ready")
	root.AddCommand(stopCommand(in), resetCommand(in), configCommand(in))
	return root
}

func stopCommand(in *invocation) *cobra.Command {
	return &cobra.Command{
		Use:     "stop",
		Short:   "Stop the daemon in the background; containers keep running",
		Example: "  cleatd stop\n  cleatd stop --root /srv/cleat --run /run/c2",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := in.load(cmd); err != nil {
				return err
			}
			return stopRunning(in.cfg.Root, in.cfg.Run, stopPatience)
		},
	}
}

func resetCommand(in *invocation) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "reset",
		Short: "Stop the daemon and its containers, and remove everything it kept",
		Long: `reset stops the daemon of --root, kills its containers, removes its networks and
packet rules, and deletes --root and --run. Images and volumes are lost.`,
		Example: "  cleatd reset --yes",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := in.load(cmd); err != nil {
				return err
			}
			if !yes {
				return fmt.Errorf("this deletes %s with all images and volumes; say --yes to do it", in.cfg.Root)
			}
			if err := stopRunning(in.cfg.Root, in.cfg.Run, stopPatience); err != nil {
				return err
			}
			return Reset(cmd.Context(), in.cfg, in.cfg.Log.Logger(cmd.ErrOrStderr()))
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func configCommand(in *invocation) *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Check or show the configuration"}
	cmd.AddCommand(&cobra.Command{
		Use:     "check",
		Short:   "Say whether the configuration is right",
		Example: "  cleatd config check --config ./cleatd.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := in.load(cmd); err != nil {
				return err
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "the configuration is right")
			return err
		},
	}, &cobra.Command{
		Use:     "show",
		Short:   "Print the configuration in force, with every default",
		Example: "  cleatd config show > /etc/cleat/cleatd.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := in.load(cmd); err != nil {
				return err
			}
			out, err := yaml.Marshal(in.cfg)
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(out)
			return err
		},
	})
	return cmd
}

// load applies file, environment and flags in that order. Flags have been
// parsed into cfg already, so they are kept aside while the file is read.
func (in *invocation) load(cmd *cobra.Command) error {
	flags := cmd.Flags()
	given := map[string]string{}
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Changed {
			given[f.Name] = strings.Trim(f.Value.String(), "[]")
		} else if v, ok := os.LookupEnv("CLEATD_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))); ok {
			given[f.Name] = v
		}
	})
	if file, ok := given["config"]; ok {
		in.file, in.fileBy = file, true
	}
	if err := in.cfg.ReadConfig(in.file, in.fileBy); err != nil {
		return err
	}
	for name, v := range given {
		if name == "config" || flags.Lookup(name).Annotations != nil {
			continue
		}
		f := flags.Lookup(name)
		if s, ok := f.Value.(pflag.SliceValue); ok {
			if err := s.Replace(strings.Split(v, ",")); err != nil {
				return fmt.Errorf("--%s: %w", name, err)
			}
			continue
		}
		if err := f.Value.Set(v); err != nil {
			return fmt.Errorf("--%s: %w", name, err)
		}
	}
	return in.cfg.Validate()
}

func (in *invocation) runDetached(out io.Writer) error {
	pid, err := runningPid(in.cfg.Root, in.cfg.Run)
	if err != nil {
		return err
	}
	if pid != 0 {
		_, err := fmt.Fprintf(out, "the daemon runs already, as process %d\n", pid)
		return err
	}
	var args []string
	for _, a := range in.args {
		if a != "--detach" && a != "-d" && a != "--detach=true" {
			args = append(args, a)
		}
	}
	return detach(in.cfg.Root, args)
}

// serve runs the daemon until it is told to stop.
func (in *invocation) serve(ctx context.Context, stderr io.Writer) error {
	ready := newReadiness()
	log := in.cfg.Log.Logger(stderr)
	d, err := New(in.cfg, log)
	if err == nil {
		err = d.Start(ctx)
	}
	if terr := ready.tell(err); terr != nil {
		log.Warn("could not report readiness", "error", terr)
	}
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, os.Interrupt)
	defer stop()
	<-ctx.Done()
	log.Info("stopping; containers keep running")
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopPatience)
	defer cancel()
	return errors.Join(d.Stop(last))
}
