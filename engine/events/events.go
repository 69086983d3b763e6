// Package events is the bus on which the engine's nouns publish what happened,
// in Docker's event vocabulary. The nouns publish; the Docker API and the
// health and restart logic subscribe.
//
// Guarantees: Publish never blocks on a slow subscriber: one that falls more
// than its buffer behind is closed with ErrLagged. The last 256 events are kept
// so that `since` works, as in Docker.
package events

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/moby/moby/api/types/events"
)

const (
	history = 256
	buffer  = 1024
)

// ErrLagged ends a subscription whose reader fell too far behind.
var ErrLagged = errors.New("event subscriber fell behind; subscribe again")

// Bus distributes events. The zero value is not usable; use NewBus.
type Bus struct {
	now func() time.Time

	mu   sync.Mutex
	past []events.Message
	subs map[*Subscription]struct{}
}

// NewBus returns a bus that stamps events with now.
func NewBus(now func() time.Time) *Bus {
	return &Bus{now: now, subs: make(map[*Subscription]struct{})}
}

// Subscription receives events from C until Close, or until C is closed
// because the reader lagged (Err then returns ErrLagged).
type Subscription struct {
	C   <-chan events.Message
	c   chan events.Message
	bus *Bus
	err error
}

// Publish stamps, keeps and distributes one event.
func (b *Bus) Publish(typ events.Type, action events.Action, id string, attributes map[string]string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.now()
	m := events.Message{
		Type: typ, Action: action, Scope: "local",
		Actor:    events.Actor{ID: id, Attributes: attributes},
		Time:     t.Unix(),
		TimeNano: t.UnixNano(),
	}
	if len(b.past) == history {
		b.past = slices.Delete(b.past, 0, 1)
	}
	b.past = append(b.past, m)
	for s := range b.subs {
		select {
		case s.c <- m:
		default:
			s.err = ErrLagged
			b.drop(s)
		}
	}
}

// Subscribe returns the kept events at or after since (none if since is zero)
// and a subscription to all that follow, without a gap between the two.
func (b *Bus) Subscribe(since time.Time) ([]events.Message, *Subscription) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var past []events.Message
	if !since.IsZero() {
		for _, m := range b.past {
			if m.TimeNano >= since.UnixNano() {
				past = append(past, m)
			}
		}
	}
	c := make(chan events.Message, buffer)
	s := &Subscription{C: c, c: c, bus: b}
	b.subs[s] = struct{}{}
	return past, s
}

// Close ends the subscription; it may be called more than once.
func (s *Subscription) Close() {
	s.bus.mu.Lock()
	defer s.bus.mu.Unlock()
	s.bus.drop(s)
}

// Err says why C was closed, after it was.
func (s *Subscription) Err() error {
	s.bus.mu.Lock()
	defer s.bus.mu.Unlock()
	return s.err
}

func (b *Bus) drop(s *Subscription) {
	if _, ok := b.subs[s]; ok {
		delete(b.subs, s)
		close(s.c)
	}
}
