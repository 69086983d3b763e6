package container

import (
	"context"
	"testing"

	"github.com/moby/moby/api/types/container"
)

// What this package adds to `run --rm`, beside its neighbours.
func BenchmarkRunRemove(b *testing.B) {
	w := newWorld(b)
	s := w.service()
	ctx := context.Background()
	for b.Loop() {
		r, err := s.Create(ctx, CreateOptions{Config: &container.Config{Image: "demo", Cmd: []string{"true"}}, HostConfig: &container.HostConfig{AutoRemove: true}})
		must(b, err)
		gone, err := s.Wait(ctx, r.ID, container.WaitConditionRemoved)
		must(b, err)
		must(b, s.Start(ctx, r.ID))
		<-gone
	}
}

func BenchmarkList200(b *testing.B) {
	w := newWorld(b)
	s := w.service()
	ctx := context.Background()
	for range 200 {
		r, err := s.Create(ctx, CreateOptions{Config: &container.Config{Image: "demo", Cmd: []string{"sleep"}}, HostConfig: &container.HostConfig{AutoRemove: true}})
		must(b, err)
		must(b, s.Start(ctx, r.ID))
	}
	for b.Loop() {
		_, err := s.List(ctx, ListOptions{})
		must(b, err)
	}
}
