package clock

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Fake is a Clock for tests. It is safe for concurrent use.
type Fake struct {
	mu      sync.Mutex
	changed sync.Cond // signalled when waiting grows
	now     time.Time
	waiting []*fakeTimer
}

// NewFake returns a clock that stands at now.
func NewFake(now time.Time) *Fake {
	f := &Fake{now: now}
	f.changed.L = &f.mu
	return f
}

// Now returns the fake time.
func (f *Fake) Now() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

// Since returns Now minus t.
func (f *Fake) Since(t time.Time) time.Duration { return f.Now().Sub(t) }

// NewTimer returns a timer that fires when Advance reaches it; at once if d is
// not positive.
func (f *Fake) NewTimer(d time.Duration) Timer {
	t := &fakeTimer{f: f, c: make(chan time.Time, 1)}
	f.mu.Lock()
	defer f.mu.Unlock()
	t.start(d)
	return t
}

// After is NewTimer's channel.
func (f *Fake) After(d time.Duration) <-chan time.Time { return f.NewTimer(d).C() }

// Sleep waits until Advance has passed d.
func (f *Fake) Sleep(ctx context.Context, d time.Duration) error { return sleep(ctx, f, d) }

// Advance moves time on and fires what comes due, earliest first.
func (f *Fake) Advance(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	end := f.now.Add(d)
	for len(f.waiting) > 0 {
		next := slices.MinFunc(f.waiting, func(a, b *fakeTimer) int { return a.at.Compare(b.at) })
		if next.at.After(end) {
			break
		}
		f.now = next.at
		f.remove(next)
		next.c <- f.now // has room: a timer is in waiting only while its channel is empty
	}
	f.now = end
}

// BlockUntil returns when at least n timers are waiting: a test calls it
// before Advance, so that the code under test has begun to wait.
func (f *Fake) BlockUntil(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.waiting) < n {
		f.changed.Wait()
	}
}

// Waiting returns the number of timers that have not fired.
func (f *Fake) Waiting() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.waiting)
}

func (f *Fake) remove(t *fakeTimer) bool {
	i := slices.Index(f.waiting, t)
	if i < 0 {
		return false
	}
	f.waiting = slices.Delete(f.waiting, i, i+1)
	return true
}

type fakeTimer struct {
	f  *Fake
	c  chan time.Time
	at time.Time
}

func (t *fakeTimer) C() <-chan time.Time { return t.c }

func (t *fakeTimer) Stop() bool {
	t.f.mu.Lock()
	defer t.f.mu.Unlock()
	return t.stop()
}

func (t *fakeTimer) Reset(d time.Duration) bool {
	t.f.mu.Lock()
	defer t.f.mu.Unlock()
	active := t.stop()
	t.start(d)
	return active
}

// start needs f.mu and an empty channel.
func (t *fakeTimer) start(d time.Duration) {
	t.at = t.f.now.Add(d)
	if d <= 0 {
		t.c <- t.f.now
		return
	}
	t.f.waiting = append(t.f.waiting, t)
	t.f.changed.Broadcast()
}

// stop needs f.mu. It also takes back a value that nobody has received.
func (t *fakeTimer) stop() bool {
	if t.f.remove(t) {
		return true
	}
	select {
	case <-t.c:
		return true
	default:
		return false
	}
}
