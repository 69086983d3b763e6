// Package env is what every command needs: the streams, the daemon, the
// configuration, how errors become exit codes and hints.
//
// The root command makes one Env and hands it to the constructors of all
// commands. Everything in it that costs time happens at first use, so that a
// command pays only for what it needs.
package env

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/cleatlabs/cleat/client"
	"github.com/cleatlabs/cleat/internal/version"
)

// Globals are the flags of the root command.
type Globals struct {
	client.Selection
	Config string
	Debug  bool
}

// Env is shared by all commands of one run of the program.
type Env struct {
	In       io.Reader
	Out, Err io.Writer
	Getenv   func(string) string
	Globals  Globals

	engineOnce sync.Once
	engine     *client.Engine
	engineErr  error

	settingsOnce sync.Once
	settings     client.Settings
	settingsErr  error
}

// New makes an Env over the given streams.
func New(in io.Reader, out, errw io.Writer, getenv func(string) string) *Env {
	return &Env{In: in, Out: out, Err: errw, Getenv: getenv}
}

// Engine is the daemon that flags, environment and context choose.
func (e *Env) Engine() (*client.Engine, error) {
	e.engineOnce.Do(func() {
		ep, err := e.Endpoint()
		if err != nil {
			e.engineErr = err
			return
		}
		e.engine, e.engineErr = client.Open(ep, client.Options{
			Version: strings.TrimPrefix(e.Getenv("DOCKER_API_VERSION"), "v"), UserAgent: "cleat/" + version.Version(), Trace: e.tracer(),
		})
	})
	return e.engine, e.engineErr
}

// tracer prints requests when --debug is given.
func (e *Env) tracer() func(method, path string, status int, took time.Duration) {
	if !e.Globals.Debug {
		return nil
	}
	return func(method, path string, status int, took time.Duration) {
		fmt.Fprintf(e.Err, "debug: %s %s: %d in %s\n", method, path, status, took.Round(10*time.Microsecond))
	}
}

// Endpoint is where that daemon is.
func (e *Env) Endpoint() (client.Endpoint, error) {
	return client.Resolve(e.Globals.Selection, e.Getenv, e.Contexts())
}

// Close drops the connections to the daemon, if there are any.
func (e *Env) Close() {
	if e.engine != nil {
		_ = e.engine.Close() // only drops idle connections
	}
}

// OpenedEngine is the daemon if a command spoke to it, else nil.
func (e *Env) OpenedEngine() *client.Engine { return e.engine }

// ConfigDir is the folder of contexts and settings.
func (e *Env) ConfigDir() string {
	if e.Globals.Config != "" {
		return e.Globals.Config
	}
	return client.ConfigDir(e.Getenv)
}

// Contexts is the store of contexts.
func (e *Env) Contexts() *client.Contexts { return client.NewContexts(e.ConfigDir()) }

// Auth is the file of registry credentials.
func (e *Env) Auth() *client.AuthFile { return client.OpenAuthFile(e.Getenv) }

// Settings are the user's settings in config.json.
func (e *Env) Settings() (client.Settings, error) {
	e.settingsOnce.Do(func() { e.settings, e.settingsErr = e.Contexts().Settings() })
	return e.settings, e.settingsErr
}

// DetachKeys gives the flag's value, else that of the settings.
func (e *Env) DetachKeys(flag string) string {
	if flag != "" {
		return flag
	}
	s, err := e.Settings()
	if err != nil {
		return "" // a broken settings file must not keep containers from running
	}
	return s.DetachKeys
}

// fd gives the file descriptor behind a stream.
func fd(stream any) (int, bool) {
	f, ok := stream.(*os.File)
	if !ok {
		return 0, false
	}
	return int(f.Fd()), true
}

// InTerminal says whether standard input is a terminal, and its descriptor.
func (e *Env) InTerminal() (int, bool) { return terminal(e.In) }

// OutTerminal says whether standard output is a terminal, and its descriptor.
func (e *Env) OutTerminal() (int, bool) { return terminal(e.Out) }

// ErrTerminal says whether standard error is a terminal, and its descriptor.
func (e *Env) ErrTerminal() (int, bool) { return terminal(e.Err) }

func terminal(stream any) (int, bool) {
	n, ok := fd(stream)
	return n, ok && term.IsTerminal(n)
}

// Size gives height and width of the terminal on standard output, or zeros.
func (e *Env) Size() (height, width uint) {
	n, ok := e.OutTerminal()
	if !ok {
		return 0, 0
	}
	w, h, err := term.GetSize(n)
	if err != nil {
		return 0, 0
	}
	return uint(h), uint(w) //nolint:gosec // sizes are not negative
}
