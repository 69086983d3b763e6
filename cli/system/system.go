// Package system holds the commands about the daemon as a whole.
package system

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/docker/cli/opts"
	"github.com/moby/moby/api/types/events"
	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/cleatlabs/cleat/cli/container"
	"github.com/cleatlabs/cleat/cli/env"
	"github.com/cleatlabs/cleat/cli/formatting"
	"github.com/cleatlabs/cleat/cli/image"
	"github.com/cleatlabs/cleat/cli/network"
	"github.com/cleatlabs/cleat/cli/volume"
)

// NewGroup is `cleat system`.
func NewGroup(e *env.Env) *cobra.Command {
	return env.Group(env.Spec{Use: "system", Short: "Manage the daemon", Example: "cleat system df"},
		newDiskUsage(e), NewInfoCommand(e), NewEventsCommand(e), newPrune(e), newDialStdio(e))
}

// NewEventsCommand is `cleat events`.
func NewEventsCommand(e *env.Env) *cobra.Command {
	var (
		since, until string
		out          formatting.Flags
		filter       = opts.NewFilterOpt()
	)
	cmd := env.Command(env.Spec{
		Use:   "events [OPTIONS]",
		Short: "Get real time events from the daemon",
		Example: `cleat events --since 10m --until 0s
			cleat events --filter type=container --filter event=die --format json`,
		Args: env.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) error {
			engine, err := e.Engine()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithCancel(cmd.Context())
			defer cancel()
			res := engine.Events(ctx, moby.EventsListOptions{Since: since, Until: until, Filters: filter.Value()})
			for {
				select {
				case m := <-res.Messages:
					if err := printEvent(e.Out, out.Format, m); err != nil {
						return err
					}
				case err := <-res.Err:
					if errors.Is(err, io.EOF) || ctx.Err() != nil {
						return nil
					}
					return err
				}
			}
		},
	})
	fs := cmd.Flags()
	fs.StringVar(&since, "since", "", "Show all events created since timestamp")
	fs.StringVar(&until, "until", "", "Stream events until this timestamp")
	fs.VarP(&filter, "filter", "f", "Filter output based on conditions provided")
	fs.StringVar(&out.Format, "format", "", "Format output using a custom template, or 'json'")
	return cmd
}

func printEvent(w io.Writer, format string, m events.Message) error {
	if format != "" {
		return formatting.Template(w, format, m)
	}
	var b strings.Builder
	at := time.Unix(0, m.TimeNano)
	if m.TimeNano == 0 {
		at = time.Unix(m.Time, 0)
	}
	fmt.Fprintf(&b, "%s %s %s %s", at.Format("2006-01-02T15:04:05.000000000Z07:00"), m.Type, m.Action, m.Actor.ID)
	if len(m.Actor.Attributes) > 0 {
		fmt.Fprintf(&b, " (%s)", strings.ReplaceAll(formatting.Pairs(m.Actor.Attributes), ",", ", "))
	}
	b.WriteByte('\n')
	_, err := io.WriteString(w, b.String())
	return err
}

func newPrune(e *env.Env) *cobra.Command {
	var (
		all, volumes, force bool
		filter              = opts.NewFilterOpt()
	)
	cmd := env.Command(env.Spec{
		Use:     "prune [OPTIONS]",
		Short:   "Remove unused data",
		Example: "cleat system prune -a --volumes",
		Args:    env.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) error {
			f := filter.Value()
			if _, ok := f["until"]; ok && volumes {
				return env.Usage(cmd, errors.New(`the "until" filter is not supported with "--volumes"`))
			}
			if ok, err := e.Confirm(force, pruneWarning(all, volumes)); err != nil || !ok {
				return err
			}
			return prune(cmd.Context(), e, all, volumes, f)
		},
	})
	fs := cmd.Flags()
	fs.BoolVarP(&all, "all", "a", false, "Remove all unused images not just dangling ones")
	fs.BoolVar(&volumes, "volumes", false, "Prune anonymous volumes")
	fs.BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	fs.Var(&filter, "filter", `Provide filter values (e.g. "label=<key>=<value>")`)
	return cmd
}

func pruneWarning(all, volumes bool) string {
	lines := []string{"This will remove:", "  - all stopped containers", "  - all networks not used by at least one container"}
	if volumes {
		lines = append(lines, "  - all anonymous volumes not used by at least one container")
	}
	if all {
		lines = append(lines, "  - all images without at least one container associated to them")
	} else {
		lines = append(lines, "  - all dangling images")
	}
	return strings.Join(lines, "\n") + "\n"
}

func prune(ctx context.Context, e *env.Env, all, volumes bool, f moby.Filters) error {
	var freed uint64
	text, n, err := container.Prune(ctx, e, f)
	if err != nil {
		return err
	}
	freed += n
	fmt.Fprint(e.Out, text)
	if text, err = network.Prune(ctx, e, f); err != nil {
		return err
	}
	fmt.Fprint(e.Out, text)
	if volumes {
		if text, n, err = volume.Prune(ctx, e, false, f); err != nil {
			return err
		}
		freed += n
		fmt.Fprint(e.Out, text)
	}
	if text, n, err = image.Prune(ctx, e, all, f); err != nil {
		return err
	}
	freed += n
	_, err = fmt.Fprintf(e.Out, "%sTotal reclaimed space: %s\n", text, formatting.Size(int64(freed))) //nolint:gosec // sizes fit
	return err
}

func newDialStdio(e *env.Env) *cobra.Command {
	cmd := env.Command(env.Spec{
		Use:     "dial-stdio",
		Short:   "Proxy the stdio stream to the daemon connection (used through ssh)",
		Example: "ssh host cleat system dial-stdio",
		Args:    env.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) error {
			engine, err := e.Engine()
			if err != nil {
				return err
			}
			conn, err := engine.DialRaw(cmd.Context())
			if err != nil {
				return err
			}
			defer func() { _ = conn.Close() }() // both directions are over
			// The reading of stdin cannot be interrupted: this goroutine may be
			// left behind when the daemon closes first, and ends with the program.
			go func() {
				_, _ = io.Copy(conn, e.In) // its end, for whatever reason, is the end of input
				if c, ok := conn.(interface{ CloseWrite() error }); ok {
					_ = c.CloseWrite() // the daemon may have closed already
				}
			}()
			_, err = io.Copy(e.Out, conn)
			return err
		},
	})
	cmd.Hidden = true
	return cmd
}
