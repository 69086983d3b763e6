// Package stream carries the standard streams between the user's terminal and
// a container: raw mode, detach keys, window size, signals.
//
// run, start, attach and exec use it. Restoring the terminal is guaranteed on
// every return of Pump.
package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/moby/moby/api/pkg/stdcopy"
	moby "github.com/moby/moby/client"
	"golang.org/x/term"

	"github.com/cleatlabs/cleat/cli/env"
)

// ErrDetached says that the user typed the detach keys.
var ErrDetached = errors.New("detached")

// Options say which streams are attached and how they are framed.
type Options struct {
	Stdin, Stdout, Stderr bool
	// TTY is the container's: its output is one raw stream.
	TTY bool
	// DetachKeys is the sequence that ends the session; empty is ctrl-p,ctrl-q.
	DetachKeys string
}

// Pump copies the streams until the container closes its output, the user
// detaches, or ctx ends. The reading of standard input cannot be interrupted;
// that goroutine is left behind and ends with the program.
func Pump(ctx context.Context, e *env.Env, h moby.HijackedResponse, o Options) error {
	restore := func() {}
	var in io.Reader
	if o.Stdin {
		in = e.In
		if o.TTY {
			keys, err := ParseDetachKeys(o.DetachKeys)
			if err != nil {
				return err
			}
			in = &escapeReader{in: e.In, keys: keys}
			var rerr error
			if restore, rerr = rawMode(e); rerr != nil {
				return fmt.Errorf("unable to set the terminal to raw mode: %w", rerr)
			}
		}
	}
	defer restore()

	outDone := make(chan error, 1)
	go func() { outDone <- copyOut(e, h, o) }()
	inDone := make(chan error, 1)
	go func() { inDone <- copyIn(h, in) }()

	for {
		select {
		case err := <-outDone:
			return err
		case err := <-inDone:
			if errors.Is(err, ErrDetached) {
				h.Close()
				<-outDone
				return ErrDetached
			}
			inDone = nil // input is over; the output goes on
			if !o.Stdout && !o.Stderr {
				<-outDone
				return err
			}
		case <-ctx.Done():
			h.Close()
			<-outDone
			return ctx.Err()
		}
	}
}

func copyOut(e *env.Env, h moby.HijackedResponse, o Options) error {
	out, errw := io.Discard, io.Discard
	if o.Stdout {
		out = e.Out
	}
	if o.Stderr {
		errw = e.Err
	}
	var err error
	if o.TTY {
		if o.Stdout || o.Stderr {
			out = e.Out
		}
		_, err = io.Copy(out, h.Reader)
	} else {
		_, err = stdcopy.StdCopy(out, errw, h.Reader)
	}
	return err
}

func copyIn(h moby.HijackedResponse, in io.Reader) error {
	if in == nil {
		return h.CloseWrite()
	}
	_, err := io.Copy(h.Conn, in)
	if errors.Is(err, ErrDetached) {
		return err
	}
	// A container that closed its stdin, or ended, is no error of ours: the
	// output and the exit code tell the rest.
	return h.CloseWrite()
}

// rawMode switches the terminal of stdin (and stdout, for Windows) to raw.
func rawMode(e *env.Env) (restore func(), err error) {
	var undo []func()
	restore = sync.OnceFunc(func() {
		for _, u := range undo {
			u()
		}
	})
	if n, ok := e.InTerminal(); ok {
		state, err := term.MakeRaw(n)
		if err != nil {
			return restore, err
		}
		undo = append(undo, func() { _ = term.Restore(n, state) }) // nothing else can be done
	}
	if n, ok := e.OutTerminal(); ok {
		if u := rawOutput(n); u != nil {
			undo = append(undo, u)
		}
	}
	return restore, nil
}

// CheckTTY refuses -t with an input that is not a terminal, as docker does.
func CheckTTY(e *env.Env, attachStdin, tty bool) error {
	if !attachStdin || !tty {
		return nil
	}
	if _, ok := e.InTerminal(); !ok {
		return errors.New("cannot attach stdin to a TTY-enabled container because stdin is not a terminal")
	}
	return nil
}
