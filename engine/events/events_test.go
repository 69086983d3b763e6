package events_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	apievents "github.com/moby/moby/api/types/events"

	"github.com/cleatlabs/cleat/engine/events"
)

func TestSinceThenLive(t *testing.T) {
	now := time.Unix(1000, 0)
	bus := events.NewBus(func() time.Time { return now })
	bus.Publish(apievents.ContainerEventType, "old", "c", nil)
	now = now.Add(time.Minute)
	bus.Publish(apievents.ContainerEventType, "kept", "c", nil)
	past, sub := bus.Subscribe(time.Unix(1030, 0))
	defer sub.Close()
	if len(past) != 1 || past[0].Action != "kept" {
		t.Fatalf("past: %+v", past)
	}
	bus.Publish(apievents.ContainerEventType, "live", "c", map[string]string{"name": "x"})
	if m := <-sub.C; m.Action != "live" || m.Actor.Attributes["name"] != "x" {
		t.Errorf("live: %+v", m)
	}
	sub.Close()
	sub.Close() // may be repeated
	if _, open := <-sub.C; open {
		t.Error("the channel is open after Close")
	}
}

// TestSlowReader: a reader that does not read is cut off, and nobody waits for it.
func TestSlowReader(t *testing.T) {
	bus := events.NewBus(time.Now)
	_, slow := bus.Subscribe(time.Time{})
	for i := range 5000 {
		bus.Publish(apievents.ContainerEventType, "x", fmt.Sprint(i), nil)
	}
	for range slow.C {
	}
	if !errors.Is(slow.Err(), events.ErrLagged) {
		t.Errorf("error %v", slow.Err())
	}
}
