package stream

import (
	"context"
	"os"
	gosignal "os/signal"

	"github.com/moby/sys/signal"
)

// ForwardSignals sends the signals that this program gets to the container
// through kill, until stop is called, which waits for the forwarder to end.
// Errors of kill are dropped: the container may not run yet, or no more.
func ForwardSignals(ctx context.Context, kill func(ctx context.Context, name string) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c := make(chan os.Signal, 64)
	gosignal.Notify(c)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case s := <-c:
				if name := forwardable(s); name != "" {
					_ = kill(ctx, name) // see above
				}
			}
		}
	}()
	return func() {
		gosignal.Stop(c)
		cancel()
		<-done
	}
}

// forwardable names a signal, or gives "" for those that concern this process
// only: children, broken pipes, window size, the Go scheduler's preemption.
func forwardable(s os.Signal) string {
	for name, n := range signal.SignalMap {
		if n != s {
			continue
		}
		switch name {
		case "CHLD", "CLD", "PIPE", "URG", "WINCH":
			return ""
		}
		return name
	}
	return ""
}
