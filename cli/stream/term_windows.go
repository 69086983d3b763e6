package stream

import (
	"context"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/windows"

	"github.com/cleatlabs/cleat/cli/env"
)

// rawOutput lets the console interpret the escape sequences of the container.
func rawOutput(fd int) func() {
	h := windows.Handle(fd)
	var mode uint32
	if windows.GetConsoleMode(h, &mode) != nil {
		return nil
	}
	want := mode | windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING | windows.DISABLE_NEWLINE_AUTO_RETURN
	if windows.SetConsoleMode(h, want) != nil {
		return nil
	}
	return func() { _ = windows.SetConsoleMode(h, mode) } // nothing else can be done
}

// sizeChanges looks four times a second: Windows sends no signal.
func sizeChanges(ctx context.Context, e *env.Env) (changed <-chan os.Signal, unsubscribe func()) {
	c := make(chan os.Signal, 1)
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer close(done)
		h, w := e.Size()
		tick := time.NewTicker(250 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if nh, nw := e.Size(); nh != h || nw != w {
					h, w = nh, nw
					select {
					case c <- syscall.Signal(0):
					default:
					}
				}
			}
		}
	}()
	return c, func() { cancel(); <-done }
}
