package container

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/moby/moby/api/types/container"
	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/cleatlabs/cleat/cli/completion"
	"github.com/cleatlabs/cleat/cli/container/runspec"
	"github.com/cleatlabs/cleat/cli/env"
	"github.com/cleatlabs/cleat/cli/stream"
	"github.com/cleatlabs/cleat/client"
)

// NewRunCommand is `cleat run`.
func NewRunCommand(e *env.Env) *cobra.Command {
	var (
		c          *creation
		detach     bool
		sigProxy   bool
		detachKeys string
	)
	cmd := env.Command(env.Spec{
		Use:   "run [OPTIONS] IMAGE [COMMAND] [ARG...]",
		Short: "Create and run a new container from an image",
		Long: `Create and run a new container from an image.

The exit code is that of the container; 125 when the daemon failed, 126 when the
command cannot be invoked, 127 when it cannot be found.`,
		Example: `cleat run --rm -it debian bash
			cleat run -d --name web -p 8080:80 -v data:/usr/share/nginx/html nginx
			cleat run --rm --network none --memory 64m busybox true`,
		Args:     env.MinArgs(1),
		Complete: completion.Images(e, 1),
		Run: func(cmd *cobra.Command, args []string) error {
			req, err := c.plan(e, args)
			if err != nil {
				return env.Exit(125, env.Usage(cmd, err))
			}
			return run(cmd, e, c, req, detach, sigProxy, detachKeys)
		},
	})
	c = addCreation(e, cmd)
	fs := cmd.Flags()
	fs.BoolVarP(&detach, "detach", "d", false, "Run container in background and print container ID")
	fs.BoolVar(&sigProxy, "sig-proxy", true, "Proxy received signals to the process")
	fs.StringVar(&detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	addRunCompletions(e, cmd)
	return cmd
}

func run(cmd *cobra.Command, e *env.Env, c *creation, req runspec.Request, detach, sigProxy bool, detachKeys string) error {
	ctx := cmd.Context()
	config := req.Config
	if detach {
		if c.spec.AttachGiven() {
			return env.Exit(125, env.Usage(cmd, errors.New("conflicting options: cannot specify both --attach and --detach")))
		}
		config.AttachStdin, config.AttachStdout, config.AttachStderr, config.StdinOnce = false, false, false, false
	} else if err := stream.CheckTTY(e, config.AttachStdin, config.Tty); err != nil {
		return err
	}
	keys := e.DetachKeys(detachKeys)
	if _, err := stream.ParseDetachKeys(keys); err != nil {
		return env.Exit(125, err)
	}
	engine, err := e.Engine()
	if err != nil {
		return env.Exit(125, err)
	}
	id, err := c.create(ctx, e, engine, req)
	if err != nil {
		return startError(err)
	}
	if !config.AttachStdin && !config.AttachStdout && !config.AttachStderr {
		if _, err := engine.ContainerStart(ctx, id, moby.ContainerStartOptions{}); err != nil {
			_, _ = fmt.Fprintln(e.Out, id) // it exists, and scripts want to remove it; the error follows
			return startError(err)
		}
		_, err := fmt.Fprintln(e.Out, id)
		return err
	}
	s := session{
		e: e, engine: engine, id: id, autoRemove: c.spec.AutoRemove(), sigProxy: sigProxy,
		streams: stream.Options{
			Stdin: config.AttachStdin, Stdout: config.AttachStdout, Stderr: config.AttachStderr,
			TTY: config.Tty, DetachKeys: keys,
		},
	}
	return s.run(ctx, func(ctx context.Context) error {
		_, err := engine.ContainerStart(ctx, id, moby.ContainerStartOptions{})
		return err
	})
}

// session is an attached container, from its start to its exit.
type session struct {
	e          *env.Env
	engine     *client.Engine
	id         string
	autoRemove bool
	sigProxy   bool
	logs       bool
	streams    stream.Options
}

// run attaches and waits at once, in parallel, starts the container, carries
// the streams, and gives the exit code as an error.
func (s session) run(ctx context.Context, start func(context.Context) error) error {
	// Once the container runs, the end of ctx must not cut its streams.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()

	type attached struct {
		h   moby.HijackedResponse
		err error
	}
	attachDone := make(chan attached, 1)
	go func() {
		r, err := s.engine.ContainerAttach(ctx, s.id, moby.ContainerAttachOptions{
			Stream: true, Stdin: s.streams.Stdin, Stdout: s.streams.Stdout, Stderr: s.streams.Stderr,
			DetachKeys: s.streams.DetachKeys, Logs: s.logs,
		})
		attachDone <- attached{r.HijackedResponse, err}
	}()
	cond := container.WaitConditionNextExit
	if s.autoRemove {
		cond = container.WaitConditionRemoved
	}
	wait := s.engine.ContainerWait(ctx, s.id, moby.ContainerWaitOptions{Condition: cond})
	a := <-attachDone
	if a.err != nil {
		return env.Exit(125, a.err)
	}
	defer a.h.Close()

	if s.sigProxy {
		stop := stream.ForwardSignals(ctx, func(ctx context.Context, name string) error {
			_, err := s.engine.ContainerKill(ctx, s.id, moby.ContainerKillOptions{Signal: name})
			return err
		})
		defer stop()
	}
	pumpCtx, stopPump := context.WithCancel(ctx)
	defer stopPump()
	pumped := make(chan error, 1)
	go func() { pumped <- stream.Pump(pumpCtx, s.e, a.h, s.streams) }()

	if err := start(ctx); err != nil {
		stopPump()
		<-pumped // the terminal is restored by then
		if s.autoRemove {
			s.settle(wait)
		}
		return startError(err)
	}
	if _, ok := s.e.OutTerminal(); ok && s.streams.TTY {
		stop := stream.FollowSize(ctx, s.e, func(ctx context.Context, h, w uint) error {
			_, err := s.engine.ContainerResize(ctx, s.id, moby.ContainerResizeOptions{Height: h, Width: w})
			return err
		})
		defer stop()
	}
	return s.finish(wait, pumped, stopPump)
}

// finish waits for the exit and the end of the output, whichever comes first.
func (s session) finish(wait moby.ContainerWaitResult, pumped <-chan error, stopPump func()) error {
	exited := make(chan error, 1)
	go func() { exited <- exitOf(wait) }()
	select {
	case err := <-pumped:
		switch {
		case errors.Is(err, stream.ErrDetached):
			return nil
		case err != nil:
			return err
		}
		return <-exited
	case err := <-exited:
		if !s.streams.Stdout && !s.streams.Stderr {
			stopPump() // only input was attached: nothing more to read
		}
		<-pumped
		return err
	}
}

// settle waits for the removal of a container that could not start.
func (s session) settle(wait moby.ContainerWaitResult) {
	select {
	case <-wait.Result:
	case <-wait.Error:
	}
}

func exitOf(wait moby.ContainerWaitResult) error {
	select {
	case r := <-wait.Result:
		if r.Error != nil && r.Error.Message != "" {
			return env.Exit(125, errors.New(r.Error.Message))
		}
		if r.StatusCode != 0 {
			return env.Exit(int(r.StatusCode), nil)
		}
		return nil
	case err := <-wait.Error:
		return env.Exit(125, fmt.Errorf("waiting for the container: %w", err))
	}
}

// startError gives the exit code of a container that did not come to run: 127
// when its command is not there, 126 when it may not be executed, 125 else.
func startError(err error) error {
	text := err.Error()
	switch {
	case client.IsUnreachable(err):
		return env.Exit(125, err)
	case containsAny(text, "executable file not found", "no such file or directory", "system cannot find the file specified"):
		return env.Exit(127, err)
	case containsAny(text, "permission denied", "is a directory"):
		return env.Exit(126, err)
	}
	return env.Exit(125, err)
}

func containsAny(s string, parts ...string) bool {
	for _, p := range parts {
		if strings.Contains(s, p) {
			return true
		}
	}
	return false
}
