package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// dialSSH runs the user's ssh command, so that its keys, agent, known hosts and
// configuration apply, and on the other side `system dial-stdio`.
func dialSSH(ctx context.Context, a Address) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	// The process outlives ctx: ctx is of the dialling only, Close ends it.
	cmd := exec.Command("ssh", sshArgs(a)...) //nolint:gosec // the arguments are checked by ParseHost
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c := &commandConn{cmd: cmd, in: stdin, out: stdout, name: "ssh " + a.Addr}
	cmd.Stderr = &c.stderr
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting ssh: %w", err)
	}
	return c, nil
}

func sshArgs(a Address) []string {
	args := []string{"-T", "-o", "ConnectTimeout=30"}
	if a.User != "" {
		args = append(args, "-l", a.User)
	}
	if a.Port != "" {
		args = append(args, "-p", a.Port)
	}
	host := ""
	if a.Path != "" {
		host = " --host " + shellQuote("unix://"+a.Path)
	}
	remote := "if command -v cleat >/dev/null 2>&1; then exec cleat" + host + " system dial-stdio; else exec docker" + host + " system dial-stdio; fi"
	return append(args, "--", a.Addr, "sh", "-c", shellQuote(remote))
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// commandConn is the stdio of a process as a connection. Deadlines are not
// supported: net/http's client sets none on its connections.
type commandConn struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    io.ReadCloser
	name   string
	stderr lockedBuffer
	// inputEnded says that we closed the input.
	inputEnded atomic.Bool

	closeOnce sync.Once
	waitOnce  sync.Once
	waitErr   error
}

func (c *commandConn) Read(p []byte) (int, error) {
	n, err := c.out.Read(p)
	if n == 0 && errors.Is(err, io.EOF) {
		if werr := c.wait(); werr != nil {
			return 0, fmt.Errorf("%s: %w: %s", c.name, werr, c.stderr.String())
		}
	}
	return n, err
}

func (c *commandConn) Write(p []byte) (int, error) {
	n, err := c.in.Write(p)
	if err == nil || c.inputEnded.Load() {
		return n, err
	}
	// The process takes no input any more: its last words say why.
	if werr := c.wait(); werr != nil {
		err = fmt.Errorf("%s: %w: %s", c.name, werr, c.stderr.String())
	}
	return n, err
}

// CloseWrite tells the other side that no more input comes.
func (c *commandConn) CloseWrite() error {
	c.inputEnded.Store(true)
	return c.in.Close()
}

// Close ends the process and reaps it.
func (c *commandConn) Close() error {
	c.closeOnce.Do(func() {
		c.inputEnded.Store(true)
		_ = c.in.Close()         // a second close after CloseWrite is no matter
		_ = c.cmd.Process.Kill() // it may have ended already
		_ = c.wait()             // killed: the status says nothing
	})
	return nil
}

func (c *commandConn) wait() error {
	c.waitOnce.Do(func() { c.waitErr = c.cmd.Wait() })
	return c.waitErr
}

type commandAddr string

func (a commandAddr) Network() string { return "ssh" }
func (a commandAddr) String() string  { return string(a) }

func (c *commandConn) LocalAddr() net.Addr              { return commandAddr("local") }
func (c *commandConn) RemoteAddr() net.Addr             { return commandAddr(c.name) }
func (c *commandConn) SetDeadline(time.Time) error      { return nil }
func (c *commandConn) SetReadDeadline(time.Time) error  { return nil }
func (c *commandConn) SetWriteDeadline(time.Time) error { return nil }

// lockedBuffer keeps the last words of a process for error messages.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.buf.Len() > 8<<10 {
		b.buf.Reset()
	}
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.TrimSpace(b.buf.String())
}
