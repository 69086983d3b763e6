//go:build !windows

package stream

import (
	"context"
	"os"
	gosignal "os/signal"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/cli/env"
)

// rawOutput has nothing to do: raw mode of the input is that of the terminal.
func rawOutput(int) func() { return nil }

func sizeChanges(_ context.Context, _ *env.Env) (changed <-chan os.Signal, unsubscribe func()) {
	c := make(chan os.Signal, 1)
	gosignal.Notify(c, unix.SIGWINCH)
	return c, func() { gosignal.Stop(c) }
}
