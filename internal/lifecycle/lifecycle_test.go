package lifecycle_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/internal/lifecycle"
)

type part struct {
	name     string
	fail     error
	stopFail error
	said     *[]string
}

func (p part) Name() string { return p.name }
func (p part) Start(context.Context) error {
	*p.said = append(*p.said, "start "+p.name)
	return p.fail
}
func (p part) Stop(context.Context) error {
	*p.said = append(*p.said, "stop "+p.name)
	return p.stopFail
}

func TestOrder(t *testing.T) {
	var said []string
	g := lifecycle.NewGroup(slog.New(slog.NewTextHandler(io.Discard, nil)))
	broken := errors.New("broken")
	g.Add(part{name: "a", said: &said})
	g.Add(part{name: "b", said: &said, stopFail: broken})
	if err := g.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := g.Stop(t.Context()); !errors.Is(err, broken) {
		t.Errorf("stop: %v", err)
	}
	if got := strings.Join(said, ", "); got != "start a, start b, stop b, stop a" {
		t.Error(got)
	}
}

func TestFailedStartStopsWhatStarted(t *testing.T) {
	var said []string
	g := lifecycle.NewGroup(slog.New(slog.NewTextHandler(io.Discard, nil)))
	broken := errors.New("broken")
	g.Add(part{name: "a", said: &said})
	g.Add(part{name: "b", said: &said, fail: broken})
	g.Add(part{name: "c", said: &said})
	if err := g.Start(t.Context()); !errors.Is(err, broken) || !strings.Contains(err.Error(), "start b") {
		t.Errorf("start: %v", err)
	}
	if got := strings.Join(said, ", "); got != "start a, start b, stop a" {
		t.Error(got)
	}
}
