package container

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"syscall"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/cleatlabs/cleat/engine/runtime"
)

// healthPlan is a health check with Docker's defaults filled in.
type healthPlan struct {
	command                                       []string
	interval, timeout, startPeriod, startInterval time.Duration
	retries                                       int
}

const (
	healthResults = 5    // results that inspect shows
	healthOutput  = 4096 // bytes of output that are kept
)

// planHealth returns nil for no health check.
func planHealth(c *container.Config) *healthPlan {
	h := c.Healthcheck
	if h == nil || len(h.Test) == 0 || h.Test[0] == "NONE" || h.Test[0] == "" {
		return nil
	}
	p := &healthPlan{interval: h.Interval, timeout: h.Timeout, startPeriod: h.StartPeriod, startInterval: h.StartInterval, retries: h.Retries}
	setDefault(&p.interval, 30*time.Second)
	setDefault(&p.timeout, 30*time.Second)
	setDefault(&p.startInterval, 5*time.Second)
	setDefault(&p.retries, 3)
	p.command = h.Test[1:]
	if h.Test[0] == "CMD-SHELL" {
		shell := c.Shell
		if len(shell) == 0 {
			shell = []string{"/bin/sh", "-c"}
		}
		p.command = slices.Concat(shell, h.Test[1:])
	}
	if len(p.command) == 0 {
		return nil
	}
	return p
}

// initialHealth is the status of a container that has just started.
func initialHealth(c *container.Config) container.HealthStatus {
	if planHealth(c) == nil {
		return ""
	}
	return container.Starting
}

// judge is the status after a result. A failure during the start period counts
// for nothing unless the container has been healthy before.
func (p *healthPlan) judge(was container.HealthStatus, streak, code int, age time.Duration) (container.HealthStatus, int) {
	switch {
	case code == 0:
		return container.Healthy, 0
	case was == container.Starting && age < p.startPeriod:
		return was, 0
	}
	streak++
	if streak >= p.retries {
		return container.Unhealthy, streak
	}
	return was, streak
}

// wait is the time until the next check.
func (p *healthPlan) wait(status container.HealthStatus, age time.Duration) time.Duration {
	if status == container.Starting && age < p.startPeriod {
		return p.startInterval
	}
	return p.interval
}

// startHealth runs c's health checks as long as r lives.
func (s *Service) startHealth(c *instance, r *run) {
	rec := c.snapshot()
	p := planHealth(rec.Config)
	if p == nil {
		return
	}
	r.beside.Add(1)
	started := s.spawn(func() {
		defer r.beside.Done()
		for {
			rec := c.snapshot()
			if s.clock.Sleep(r.ctx, p.wait(rec.Health, s.clock.Since(r.started))) != nil {
				return
			}
			if c.snapshot().State != container.StateRunning {
				continue // paused
			}
			result := s.probe(c, r, p)
			if r.ctx.Err() != nil {
				return
			}
			s.recordHealth(c, r, p, result)
		}
	})
	if !started { // the daemon stops
		r.beside.Done()
	}
}

// probe runs the check once.
func (s *Service) probe(c *instance, r *run, p *healthPlan) *container.HealthcheckResult {
	res := &container.HealthcheckResult{Start: s.clock.Now()}
	ctx, cancel := context.WithCancel(r.ctx)
	defer cancel()
	code, out, err := s.runProbe(ctx, c, r, p)
	res.End, res.ExitCode, res.Output = s.clock.Now(), code, string(out)
	if err != nil {
		res.ExitCode = -1
		res.Output = err.Error()
	}
	return res
}

// errProbeTimeout says that a check took too long.
var errProbeTimeout = errors.New("health check exceeded its timeout")

func (s *Service) runProbe(ctx context.Context, c *instance, r *run, p *healthPlan) (code int, output []byte, err error) {
	q := &container.ExecCreateRequest{Cmd: p.command, AttachStdout: true, AttachStderr: true}
	proc, err := s.execProcess(ctx, c, r, newID(), q, nil)
	if err != nil {
		return 0, nil, err
	}
	a, err := proc.Attach(ctx, runtime.AttachOptions{Stdout: true, Stderr: true})
	if err != nil {
		return 0, nil, err
	}
	type read struct{ out []byte }
	done := make(chan read, 1)
	closed := make(chan struct{})
	go func() { // ends with the attachment, which is closed below
		defer close(closed)
		done <- read{readFrames(a.Output(), healthOutput)}
	}()
	defer func() {
		_ = a.Close() // only read
		<-closed
	}()
	if err := proc.Start(ctx); err != nil {
		return 0, nil, err
	}
	timer := s.clock.NewTimer(p.timeout)
	defer timer.Stop()
	ended := make(chan struct{})
	var exit runtime.Exit
	var waitErr error
	go func() { // ends with the process, which is killed below, or with ctx
		defer close(ended)
		exit, waitErr = proc.Wait(ctx)
	}()
	select {
	case <-ended:
	case <-timer.C():
		if err := proc.Signal(ctx, syscall.SIGKILL); err != nil {
			s.log.Debug("a health check could not be killed", "container", c.id, "error", err)
		}
		<-ended
		return 0, nil, fmt.Errorf("%w (%s)", errProbeTimeout, p.timeout)
	}
	if waitErr != nil {
		return 0, nil, waitErr
	}
	return exit.Code, (<-done).out, nil
}

// readFrames joins the payloads of Docker's multiplexed framing, of which it
// keeps most bytes; it reads to the end so that the writer is not held up.
func readFrames(r io.Reader, most int) []byte {
	var out bytes.Buffer
	var head [8]byte
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return out.Bytes()
		}
		size := int64(binary.BigEndian.Uint32(head[4:]))
		keep := min(size, int64(max(0, most-out.Len())))
		if _, err := io.CopyN(&out, r, keep); err != nil {
			return out.Bytes()
		}
		if _, err := io.CopyN(io.Discard, r, size-keep); err != nil {
			return out.Bytes()
		}
	}
}

// recordHealth adds a result. A changed status is recorded and published.
func (s *Service) recordHealth(c *instance, r *run, p *healthPlan, res *container.HealthcheckResult) {
	unlock, err := c.lock(r.ctx)
	if err != nil {
		return // the container has ended
	}
	defer unlock()
	c.mu.Lock()
	if c.run != r {
		c.mu.Unlock()
		return
	}
	c.health = append(slices.Clone(c.health), res)
	if n := len(c.health); n > healthResults {
		c.health = c.health[n-healthResults:]
	}
	was := c.rec.Health
	status, streak := p.judge(was, c.rec.FailingStreak, res.ExitCode, res.Start.Sub(r.started))
	if status == was {
		c.rec.FailingStreak = streak
	}
	c.mu.Unlock()
	if status == was {
		return
	}
	if err := c.change(volatile, func(n *record) { n.Health, n.FailingStreak = status, streak }); err != nil {
		s.log.Warn("a health status could not be recorded", "container", c.id, "error", err)
	}
	s.publish(c, events.Action(string(events.ActionHealthStatus)+": "+string(status)), nil)
}
