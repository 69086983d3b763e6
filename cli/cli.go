// Package cli is the command tree of the `cleat` program.
//
// Each noun has a package of its own below this one; here they are put
// together, and errors become exit codes. The program starts in a few
// milliseconds: only the command that is asked for is built, nothing is read
// and nobody is dialled before a command needs it.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/cleatlabs/cleat/cli/completion"
	"github.com/cleatlabs/cleat/cli/container"
	clicontext "github.com/cleatlabs/cleat/cli/context"
	"github.com/cleatlabs/cleat/cli/env"
	"github.com/cleatlabs/cleat/cli/image"
	"github.com/cleatlabs/cleat/cli/inspect"
	"github.com/cleatlabs/cleat/cli/network"
	"github.com/cleatlabs/cleat/cli/registry"
	"github.com/cleatlabs/cleat/cli/system"
	"github.com/cleatlabs/cleat/cli/volume"
	"github.com/cleatlabs/cleat/internal/version"
)

const (
	groupCommon  = "common"
	groupManage  = "manage"
	groupCommand = "command"
)

// entry is a top-level command, built only when it is needed.
type entry struct {
	name, group string
	build       func(*env.Env) *cobra.Command
}

func entries() []entry {
	return []entry{
		{"run", groupCommon, container.NewRunCommand},
		{"exec", groupCommon, container.NewExecCommand},
		{"ps", groupCommon, func(e *env.Env) *cobra.Command { return container.NewListCommand(e, "ps") }},
		{"pull", groupCommon, image.NewPullCommand},
		{"push", groupCommon, image.NewPushCommand},
		{"images", groupCommon, func(e *env.Env) *cobra.Command { return image.NewListCommand(e, "images") }},
		{"login", groupCommon, registry.NewLoginCommand},
		{"logout", groupCommon, registry.NewLogoutCommand},
		{"version", groupCommon, system.NewVersionCommand},
		{"info", groupCommon, system.NewInfoCommand},
		{"doctor", groupCommon, system.NewDoctorCommand},

		{"container", groupManage, container.NewGroup},
		{"image", groupManage, image.NewGroup},
		{"network", groupManage, network.NewGroup},
		{"volume", groupManage, volume.NewGroup},
		{"system", groupManage, system.NewGroup},
		{"context", groupManage, clicontext.NewGroup},

		{"attach", groupCommand, container.NewAttachCommand},
		{"commit", groupCommand, container.NewCommitCommand},
		{"cp", groupCommand, container.NewCopyCommand},
		{"create", groupCommand, container.NewCreateCommand},
		{"diff", groupCommand, container.NewDiffCommand},
		{"events", groupCommand, system.NewEventsCommand},
		{"export", groupCommand, container.NewExportCommand},
		{"history", groupCommand, image.NewHistoryCommand},
		{"import", groupCommand, image.NewImportCommand},
		{"inspect", groupCommand, inspect.NewCommand},
		{"kill", groupCommand, container.NewKillCommand},
		{"load", groupCommand, image.NewLoadCommand},
		{"logs", groupCommand, container.NewLogsCommand},
		{"pause", groupCommand, container.NewPauseCommand},
		{"port", groupCommand, container.NewPortCommand},
		{"rename", groupCommand, container.NewRenameCommand},
		{"restart", groupCommand, container.NewRestartCommand},
		{"rm", groupCommand, container.NewRemoveCommand},
		{"rmi", groupCommand, func(e *env.Env) *cobra.Command { return image.NewRemoveCommand(e, "rmi") }},
		{"save", groupCommand, image.NewSaveCommand},
		{"start", groupCommand, container.NewStartCommand},
		{"stats", groupCommand, container.NewStatsCommand},
		{"stop", groupCommand, container.NewStopCommand},
		{"tag", groupCommand, image.NewTagCommand},
		{"top", groupCommand, container.NewTopCommand},
		{"unpause", groupCommand, container.NewUnpauseCommand},
		{"update", groupCommand, container.NewUpdateCommand},
		{"wait", groupCommand, container.NewWaitCommand},
	}
}

// Main runs the program and gives its exit code.
func Main(args []string) int {
	return Run(context.Background(), args, os.Stdin, os.Stdout, os.Stderr, os.Getenv)
}

// Run is Main with everything given.
func Run(ctx context.Context, args []string, in io.Reader, out, errw io.Writer, getenv func(string) string) int {
	if len(args) == 1 && (args[0] == "--version" || args[0] == "-v") {
		fmt.Fprintf(out, "cleat version %s\n", version.Version())
		return 0
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	e := env.New(in, out, errw, getenv)
	defer e.Close()
	root := NewRoot(e, args)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return 130
	}
	return e.Report(usage(cmd, err))
}

// usage marks cobra's own errors, which all are mistakes of usage.
func usage(cmd *cobra.Command, err error) error {
	if cmd == nil {
		return err
	}
	text := err.Error()
	for _, sign := range []string{"unknown command", "required flag(s)"} {
		if strings.HasPrefix(text, sign) {
			return env.Usage(cmd, err)
		}
	}
	return err
}

// NewRoot makes the command tree. Of the top-level commands only the one that
// args begin with is built, if they do; else all are.
func NewRoot(e *env.Env, args []string) *cobra.Command {
	root := env.Command(env.Spec{
		Use:     "cleat [OPTIONS] COMMAND [ARG...]",
		Short:   "Containers, made fast",
		Long:    "Containers, made fast: build, run and ship containers on this machine or on any Docker-compatible daemon.",
		Example: "cleat run --rm -it debian bash\ncleat ps -a",
		Args:    env.NoArgs,
		Run:     func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	})
	root.ValidArgsFunction = nil
	root.TraverseChildren = true
	root.Version = version.Version()
	root.SetVersionTemplate("cleat version {{.Version}}\n")
	root.CompletionOptions.HiddenDefaultCmd = false
	root.SetOut(e.Out)
	root.SetErr(e.Err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		code := 1
		if name := cmd.Name(); name == "run" || name == "create" {
			code = 125
		}
		return env.Exit(code, env.Usage(cmd, err))
	})
	globalFlags(e, root)
	all := entries()
	if one := chosen(all, args); one != nil {
		root.AddCommand(one.build(e))
		return root
	}
	root.AddGroup(
		&cobra.Group{ID: groupCommon, Title: "Common Commands:"},
		&cobra.Group{ID: groupManage, Title: "Management Commands:"},
		&cobra.Group{ID: groupCommand, Title: "Commands:"},
	)
	for _, x := range all {
		c := x.build(e)
		c.GroupID = x.group
		root.AddCommand(c)
	}
	root.SetHelpCommandGroupID(groupCommon)
	root.SetCompletionCommandGroupID(groupCommon)
	completion.Flag(root, "context", completion.Contexts(e, 0))
	return root
}

func chosen(all []entry, args []string) *entry {
	if len(args) == 0 {
		return nil
	}
	for i := range all {
		if all[i].name == args[0] {
			return &all[i]
		}
	}
	return nil
}

func globalFlags(e *env.Env, root *cobra.Command) {
	g := &e.Globals
	fs := root.Flags()
	fs.StringVarP(&g.Host, "host", "H", "", "Address of the daemon (unix://, tcp://, ssh://)")
	fs.StringVarP(&g.Context, "context", "c", "", `Name of the context to use (overrides CLEAT_HOST, DOCKER_HOST and the current context)`)
	fs.StringVar(&g.Config, "config", "", "Folder of client config files (default ~/.cleat)")
	fs.BoolVarP(&g.Debug, "debug", "D", false, "Print requests to the daemon and how long they took")
	fs.BoolVar(&g.TLS, "tls", false, "Use TLS; implied by --tlsverify")
	fs.BoolVar(&g.TLSVerify, "tlsverify", false, "Use TLS and verify the remote")
	fs.StringVar(&g.CA, "tlscacert", "", "Trust certs signed only by this CA")
	fs.StringVar(&g.Cert, "tlscert", "", "Path to TLS certificate file")
	fs.StringVar(&g.Key, "tlskey", "", "Path to TLS key file")
	fs.StringP("log-level", "l", "info", "Accepted and ignored")
	_ = fs.MarkHidden("log-level") // exists
}
