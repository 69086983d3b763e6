package stream

import (
	"context"
	"time"

	"github.com/cleatlabs/cleat/cli/env"
)

// FollowSize sends the terminal's size to the container, now and at every
// change, until stop is called. The first attempts are repeated, because the
// container's process may not be there yet.
func FollowSize(ctx context.Context, e *env.Env, resize func(ctx context.Context, height, width uint) error) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	changed, unsubscribe := sizeChanges(ctx, e)
	go func() {
		defer close(done)
		send := func() error {
			h, w := e.Size()
			if h == 0 && w == 0 {
				return nil
			}
			return resize(ctx, h, w)
		}
		for try := range 10 {
			if send() == nil {
				break
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Duration(try+1) * 10 * time.Millisecond):
			}
		}
		for {
			select {
			case <-ctx.Done():
				return
			case <-changed:
				_ = send() // the next change brings the next chance
			}
		}
	}()
	return func() {
		cancel()
		unsubscribe()
		<-done
	}
}
