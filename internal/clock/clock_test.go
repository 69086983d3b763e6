package clock

import (
	"context"
	"errors"
	"testing"
	"time"
)

func fired(t Timer) bool {
	select {
	case <-t.C():
		return true
	default:
		return false
	}
}

func TestFakeTimers(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	f := NewFake(start)
	a, b := f.NewTimer(2*time.Second), f.NewTimer(time.Second)
	if !fired(f.NewTimer(0)) {
		t.Error("a timer of zero did not fire")
	}
	f.Advance(time.Second)
	if fired(a) || f.Since(start) != time.Second {
		t.Error("fired early, or wrong time")
	}
	if got := <-b.C(); !got.Equal(start.Add(time.Second)) {
		t.Error(got)
	}
	if b.Stop() {
		t.Error("stopped after firing")
	}
	if !a.Reset(5*time.Second) || f.Waiting() != 1 {
		t.Error("reset of a waiting timer")
	}
	f.Advance(4 * time.Second)
	if fired(a) {
		t.Error("fired at its old time")
	}
	f.Advance(time.Hour)
	if got := <-a.C(); !got.Equal(start.Add(6 * time.Second)) {
		t.Error("does not carry the time at which it was due:", got)
	}
	c := f.NewTimer(time.Second)
	f.Advance(time.Second)
	if !c.Stop() || fired(c) {
		t.Error("a stale value after Stop")
	}
}

func TestFakeSleep(t *testing.T) {
	f := NewFake(time.Unix(0, 0))
	woke := make(chan error, 2)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { woke <- f.Sleep(ctx, time.Minute) }()
	go func() { <-f.After(time.Minute); woke <- nil }()
	f.BlockUntil(2)
	f.Advance(time.Minute)
	for range 2 {
		if err := <-woke; err != nil {
			t.Error(err)
		}
	}
	go func() { woke <- f.Sleep(ctx, time.Minute) }()
	f.BlockUntil(1)
	cancel()
	if err := <-woke; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := f.Sleep(ctx, 0); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if f.Waiting() != 0 {
		t.Error("a cancelled sleep waits on")
	}
}

func TestReal(t *testing.T) {
	c := Real()
	began := c.Now()
	if err := c.Sleep(context.Background(), time.Millisecond); err != nil {
		t.Error(err)
	}
	<-c.After(time.Millisecond)
	tm := c.NewTimer(time.Hour)
	if !tm.Stop() || tm.Reset(time.Millisecond) {
		t.Error("state of a stopped timer")
	}
	<-tm.C()
	if c.Since(began) < 3*time.Millisecond {
		t.Error("time did not pass")
	}
}
