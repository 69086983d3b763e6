package container

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

// Top lists the processes of a container, with ps(1) of this host.
func (s *Service) Top(ctx context.Context, ref, psArgs string) (container.TopResponse, error) {
	c, err := s.lookup(ref)
	if err != nil {
		return container.TopResponse{}, err
	}
	r, err := c.liveTask(verbExec)
	if err != nil {
		return container.TopResponse{}, err
	}
	if psArgs == "" {
		psArgs = "-ef"
	}
	if err := checkPsArgs(psArgs); err != nil {
		return container.TopResponse{}, err
	}
	pids, err := r.task.Pids(ctx)
	if err != nil {
		return container.TopResponse{}, err
	}
	out, err := exec.CommandContext(ctx, "ps", strings.Fields(psArgs)...).Output()
	if errors.Is(err, exec.ErrNotFound) || err != nil && psArgs == "-ef" && ctx.Err() == nil {
		s.publish(c, events.ActionTop, nil)
		return s.ownTop(pids), nil
	}
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) && len(exit.Stderr) > 0 {
			line, _, _ := bytes.Cut(exit.Stderr, []byte("\n"))
			return container.TopResponse{}, errdefs.Invalidf("ps: %s", line)
		}
		return container.TopResponse{}, errdefs.Invalidf("error running ps: %v", err)
	}
	top, err := parsePs(string(out), pids)
	if err == nil {
		s.publish(c, events.ActionTop, nil)
	}
	return top, err
}

// checkPsArgs refuses to rename the PID column, by which processes are found.
func checkPsArgs(args string) error {
	for _, a := range strings.Fields(args) {
		for col := range strings.SplitSeq(a, ",") {
			if name, renamed, ok := strings.Cut(col, "="); ok && strings.EqualFold(strings.TrimLeft(name, "-o"), "pid") && renamed != "PID" {
				return errdefs.Invalidf("specifying \"%s\" is not allowed", col)
			}
		}
	}
	return nil
}

// parsePs keeps the lines of the processes given. It is pure.
func parsePs(out string, pids []int) (container.TopResponse, error) {
	lines := strings.Split(strings.TrimRight(out, "\n"), "\n")
	titles := strings.Fields(lines[0])
	at := slices.Index(titles, "PID")
	if at < 0 {
		return container.TopResponse{}, errdefs.Invalidf("couldn't find PID field in ps output")
	}
	top := container.TopResponse{Titles: titles, Processes: [][]string{}}
	for _, line := range lines[1:] {
		f := strings.Fields(line)
		if len(f) <= at {
			continue
		}
		pid, err := strconv.Atoi(f[at])
		if err != nil || !slices.Contains(pids, pid) {
			continue
		}
		if n := len(titles); len(f) > n { // the last column has spaces
			f = append(f[:n-1:n-1], strings.Join(f[n-1:], " "))
		}
		top.Processes = append(top.Processes, f)
	}
	return top, nil
}
