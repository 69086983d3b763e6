// Package lifecycle starts the components of a process in order and stops them
// in reverse. platform/ is its user.
//
//	        Start ok                 Stop
//	new ──────────────▶ started ──────────────▶ stopped
//	 │ Start fails
//	 └──────────────▶ stopped   (everything started before is stopped too)
//
// Guarantees: Start runs components one after the other in the order they were
// added; when one fails, those already started are stopped in reverse and the
// error is returned. Stop runs every component's Stop, in reverse, whatever
// errors come, and joins the errors.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Component is a part of a process with a lifetime. Constructors start nothing.
type Component interface {
	// Name is used in logs and errors.
	Name() string
	// Start returns when the component is ready to serve; it must not keep
	// ctx beyond its return.
	Start(ctx context.Context) error
	// Stop returns when every goroutine of the component has ended, or when
	// ctx is done.
	Stop(ctx context.Context) error
}

// Group is an ordered set of components. It is not safe for concurrent use.
type Group struct {
	log     *slog.Logger
	all     []Component
	started int
}

// NewGroup returns an empty group that logs to log.
func NewGroup(log *slog.Logger) *Group { return &Group{log: log} }

// Add appends a component; it is a programming error to add after Start.
func (g *Group) Add(c Component) { g.all = append(g.all, c) }

// Start starts all components in order.
func (g *Group) Start(ctx context.Context) error {
	for _, c := range g.all {
		began := time.Now()
		if err := c.Start(ctx); err != nil {
			err = fmt.Errorf("start %s: %w", c.Name(), err)
			return errors.Join(err, g.Stop(context.WithoutCancel(ctx)))
		}
		g.started++
		g.log.Debug("component started", "component", c.Name(), "took", time.Since(began))
	}
	return nil
}

// Stop stops what was started, last first.
func (g *Group) Stop(ctx context.Context) error {
	var errs []error
	for g.started > 0 {
		g.started--
		c := g.all[g.started]
		if err := c.Stop(ctx); err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", c.Name(), err))
		}
	}
	return errors.Join(errs...)
}
