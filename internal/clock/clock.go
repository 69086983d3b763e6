// Package clock is time as a dependency: components that wait take a Clock, so
// that their tests decide when time passes.
//
// Real is the machine's time. Fake stands still until Advance, which fires what
// has come due in order of time and returns when each has been delivered to
// its channel.
package clock

import (
	"context"
	"time"
)

// Clock tells and waits for time.
type Clock interface {
	Now() time.Time
	Since(t time.Time) time.Duration
	// NewTimer fires once after d. Stop it when it is no longer needed.
	NewTimer(d time.Duration) Timer
	// After is NewTimer for waits that nobody cuts short.
	After(d time.Duration) <-chan time.Time
	// Sleep waits for d, or returns ctx's error when that ends first.
	Sleep(ctx context.Context, d time.Duration) error
}

// Timer fires once on C. As with time.Timer, no stale value is received after
// Stop or Reset.
type Timer interface {
	C() <-chan time.Time
	// Stop says whether it kept the timer from firing.
	Stop() bool
	Reset(d time.Duration) bool
}

// Real returns the machine's clock.
func Real() Clock { return realClock{} }

type realClock struct{}

func (realClock) Now() time.Time                         { return time.Now() }
func (realClock) Since(t time.Time) time.Duration        { return time.Since(t) }
func (realClock) After(d time.Duration) <-chan time.Time { return time.After(d) }
func (realClock) NewTimer(d time.Duration) Timer         { return realTimer{time.NewTimer(d)} }

func (c realClock) Sleep(ctx context.Context, d time.Duration) error { return sleep(ctx, c, d) }

type realTimer struct{ t *time.Timer }

func (t realTimer) C() <-chan time.Time        { return t.t.C }
func (t realTimer) Stop() bool                 { return t.t.Stop() }
func (t realTimer) Reset(d time.Duration) bool { return t.t.Reset(d) }

func sleep(ctx context.Context, c Clock, d time.Duration) error {
	if err := ctx.Err(); err != nil || d <= 0 {
		return err
	}
	t := c.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
