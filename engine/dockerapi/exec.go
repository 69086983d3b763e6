package dockerapi

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/http"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"

	econtainer "github.com/cleatlabs/cleat/engine/container"
	"github.com/cleatlabs/cleat/engine/logs"
	"github.com/cleatlabs/cleat/engine/runtime"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

func (s *Server) containerAttach(c *call) error {
	keys, err := parseDetachKeys(c.param("detachKeys"))
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, http.MaxBytesReader(c.ResponseWriter, c.r.Body, s.cfg.MaxBody)); err != nil {
		return errdefs.As(errdefs.ErrInvalidArgument, err)
	}
	ref := c.path("name")
	o := runtime.AttachOptions{Stdin: c.flag("stdin"), Stdout: c.flag("stdout"), Stderr: c.flag("stderr")}
	replay := s.replayLogs(c, ref, o)
	if !c.flag("stream") {
		return s.attachLogs(c, ref, replay)
	}
	a, tty, err := s.Containers.Attach(c.lasting(), ref, o)
	if err != nil {
		return err
	}
	h, err := c.hijack(tty)
	if err != nil {
		_ = a.Close() // err says more
		return err
	}
	so := streamOptions{stdin: o.Stdin, linger: s.cfg.Linger}
	if tty {
		so.keys = keys
	}
	if c.flag("logs") {
		so.prelude = func(w io.Writer) error { return replay(w, tty) }
	}
	join(c.attached(), h, a, so)
	return nil
}

// replayLogs returns what writes the logs so far in the framing of an attachment.
func (s *Server) replayLogs(c *call, ref string, o runtime.AttachOptions) func(io.Writer, bool) error {
	return func(w io.Writer, tty bool) error {
		lo := econtainer.LogsOptions{Stdout: o.Stdout, Stderr: o.Stderr, Tail: -1}
		f := logFormat{tty: tty}
		return s.Containers.Logs(c.attached(), ref, lo, func(e logs.Entry) error {
			_, err := w.Write(f.entry(e))
			return err
		})
	}
}

// attachLogs serves attach without stream: the logs so far, if asked for.
func (s *Server) attachLogs(c *call, ref string, replay func(io.Writer, bool) error) error {
	tty, err := s.Containers.Tty(c.ctx(), ref)
	if err != nil {
		return err
	}
	h, err := c.hijack(tty)
	if err != nil {
		return err
	}
	defer h.Close()
	if !c.flag("logs") {
		return nil
	}
	return replay(h, tty)
}

func (s *Server) execCreate(c *call) error {
	var r container.ExecCreateRequest
	if err := s.readJSON(c, &r); err != nil {
		return err
	}
	if len(r.Cmd) == 0 {
		return errdefs.Invalidf("No exec command specified")
	}
	if _, err := parseDetachKeys(r.DetachKeys); err != nil {
		return err
	}
	if c.v < 42 {
		r.ConsoleSize = nil
	}
	id, err := s.Containers.ExecCreate(c.lasting(), c.path("name"), r)
	if err != nil {
		return err
	}
	return c.json(http.StatusCreated, container.ExecCreateResponse{ID: id})
}

func (s *Server) execStart(c *call) error {
	var r container.ExecStartRequest
	if err := s.readJSON(c, &r); err != nil {
		return err
	}
	id := c.path("id")
	info, err := s.Containers.ExecInspect(c.ctx(), id)
	if err != nil {
		return err
	}
	if c.v < 42 || !r.Tty {
		r.ConsoleSize = nil
	}
	a, tty, startErr := s.Containers.ExecStart(c.lasting(), id, r, !r.Detach)
	if r.Detach {
		if startErr != nil {
			return startErr
		}
		return c.empty(http.StatusOK)
	}
	if startErr != nil {
		// The client takes the connection for granted and asks for the exit
		// code after: the error is shown as output of the process.
		return c.execFailed(r.Tty, startErr)
	}
	h, err := c.hijack(tty)
	if err != nil {
		_ = a.Close() // err says more
		return err
	}
	so := streamOptions{stdin: info.OpenStdin, linger: s.cfg.Linger}
	if tty {
		so.keys = execKeys(info.DetachKeys)
	}
	join(c.attached(), h, a, so)
	return nil
}

// execKeys are the detach keys of an exec, which inspect gives parsed or as
// they were written.
func execKeys(b []byte) []byte {
	if keys, err := parseDetachKeys(string(b)); err == nil {
		return keys
	}
	return b
}

func (c *call) execFailed(tty bool, err error) error {
	h, hijackErr := c.hijack(tty)
	if hijackErr != nil {
		return err
	}
	defer h.Close()
	line := fmt.Appendf(nil, "%v\r\n", err)
	if !tty {
		line = appendFrame(nil, stdcopy.Stdout, line)
	}
	if _, err := h.Write(line); err != nil {
		return err
	}
	return h.closeWrite()
}

// appendFrame adds data in Docker's multiplexed framing.
func appendFrame(b []byte, stream stdcopy.StdType, data ...[]byte) []byte {
	size := 0
	for _, d := range data {
		size += len(d)
	}
	b = append(b, byte(stream), 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(size))
	for _, d := range data {
		b = append(b, d...)
	}
	return b
}

func (s *Server) execResize(c *call) error {
	size, err := c.size()
	if err != nil {
		return err
	}
	if err := s.Containers.ExecResize(c.ctx(), c.path("id"), size); err != nil {
		return err
	}
	return c.empty(http.StatusOK)
}

func (s *Server) execInspect(c *call) error {
	info, err := s.Containers.ExecInspect(c.ctx(), c.path("id"))
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, info)
}
