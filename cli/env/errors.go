package env

import (
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/cleatlabs/cleat/client"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

// ExitError ends the program with a code of its own. Err may be nil: then
// nothing is printed, as for the exit code of a container.
type ExitError struct {
	Code int
	Err  error
}

func (e *ExitError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit status %d", e.Code)
	}
	return e.Err.Error()
}

func (e *ExitError) Unwrap() error { return e.Err }

// Exit gives err the exit code.
func Exit(code int, err error) error { return &ExitError{Code: code, Err: err} }

// UsageError is a mistake on the command line.
type UsageError struct {
	Err     error
	Command string
}

func (e *UsageError) Error() string { return e.Err.Error() }
func (e *UsageError) Unwrap() error { return e.Err }

// Usage makes an error of wrong usage of cmd.
func Usage(cmd *cobra.Command, err error) error {
	return &UsageError{Err: err, Command: cmd.CommandPath()}
}

// ExactArgs wants n arguments.
func ExactArgs(n int) cobra.PositionalArgs { return RangeArgs(n, n) }

// MinArgs wants at least n arguments.
func MinArgs(n int) cobra.PositionalArgs { return RangeArgs(n, -1) }

// NoArgs wants none; for groups of commands it names the unknown one.
func NoArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasSubCommands() {
		return Usage(cmd, fmt.Errorf("unknown command: %s %s", cmd.CommandPath(), args[0]))
	}
	return RangeArgs(0, 0)(cmd, args)
}

// RangeArgs wants between least and most arguments; most < 0 is without end.
func RangeArgs(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= least && (most < 0 || len(args) <= most) {
			return nil
		}
		plural := func(n int) string {
			if n == 1 {
				return "argument"
			}
			return "arguments"
		}
		var want string
		switch {
		case least == most && most == 0:
			want = "accepts no arguments"
		case least == most:
			want = fmt.Sprintf("requires %d %s", least, plural(least))
		case most < 0:
			want = fmt.Sprintf("requires at least %d %s", least, plural(least))
		case least == 0:
			want = fmt.Sprintf("requires at most %d %s", most, plural(most))
		default:
			want = fmt.Sprintf("requires between %d and %d arguments", least, most)
		}
		return Usage(cmd, fmt.Errorf("%q %s", cmd.CommandPath(), want))
	}
}

// Report prints err as `cleat: ...` and `hint: ...` lines and gives the exit code.
func (e *Env) Report(err error) int {
	if err == nil {
		return 0
	}
	code := 1
	var exit *ExitError
	if errors.As(err, &exit) {
		code = exit.Code
		if exit.Err == nil {
			return code
		}
		if joined, ok := exit.Err.(interface{ Unwrap() []error }); !ok || len(joined.Unwrap()) == 0 {
			err = exit.Err
		}
	}
	for _, one := range flatten(err) {
		e.PrintError(e.Err, one)
	}
	return code
}

// flatten takes errors.Join apart, so that each has its line and hint.
func flatten(err error) []error {
	type joined interface{ Unwrap() []error }
	j, ok := err.(joined)
	if !ok || !strings.HasPrefix(fmt.Sprintf("%T", err), "*errors.join") {
		return []error{err}
	}
	var out []error
	for _, one := range j.Unwrap() {
		out = append(out, flatten(one)...)
	}
	return out
}

// PrintError writes one error and its hint.
func (e *Env) PrintError(w io.Writer, err error) {
	hint := e.hint(err)
	fmt.Fprintf(w, "cleat: %s\n", e.message(err))
	if hint != "" {
		fmt.Fprintf(w, "hint: %s\n", hint)
	}
}

const daemonPrefix = "Error response from daemon: "

func (e *Env) message(err error) string {
	if client.IsUnreachable(err) {
		ep, eerr := e.Endpoint()
		if eerr == nil {
			return fmt.Sprintf("cannot connect to the daemon at %s: %s", ep.Host, e.reason(err))
		}
	}
	return strings.TrimSpace(strings.Replace(err.Error(), daemonPrefix, "", 1))
}

// reason shortens the chain of a failed dial to what the system said.
func (e *Env) reason(err error) string {
	if e.engine != nil && e.engine.DialError() != nil {
		err = e.engine.DialError()
	}
	var sys syscall.Errno
	if errors.As(err, &sys) {
		return sys.Error()
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return dns.Error()
	}
	return strings.TrimPrefix(err.Error(), "error during connect: ")
}

// localHint advises on errors of daemons that send no hints.
type localHint struct {
	pattern *regexp.Regexp
	hint    string
}

// The patterns are compiled only when an error is printed.
func localHints() []localHint {
	re := regexp.MustCompile
	return []localHint{
		{re(`(?i)no such image|image .*not found|pull access denied|manifest unknown|manifest .*not found`), "`cleat images` lists local images; get one with `cleat pull IMAGE` or `cleat load -i FILE`; private registries need `cleat login`"},
		{re(`(?i)container name "?/?([^" ]+)"? is already in use`), "remove or rename the other one: `cleat rm -f $1`, or choose another --name"},
		{re(`(?i)port is already allocated|address already in use|bind for .* failed`), "another program or container publishes this port: see `cleat ps`, or choose another host port with -p"},
		{re(`(?i)no such container: (\S+)`), "`cleat ps -a` lists all containers"},
		{re(`(?i)no such network|network \S+ not found`), "`cleat network ls` lists the networks; make one with `cleat network create`"},
		{re(`(?i)no such volume|get \S+: no such volume`), "`cleat volume ls` lists the volumes; make one with `cleat volume create`"},
		{re(`(?i)cannot remove container .*(running|paused)|container is running: stop`), "stop it first, or remove it with `cleat rm -f`"},
		{re(`(?i)volume is in use`), "remove the containers that use it first: `cleat ps -a --filter volume=NAME`"},
		{re(`(?i)has active endpoints`), "disconnect its containers first: `cleat network disconnect NETWORK CONTAINER`"},
		{re(`(?i)container .* is not running|is not running$`), "start it with `cleat start`"},
		{re(`(?i)unauthorized|authentication required|no basic auth credentials`), "log in with `cleat login REGISTRY`"},
		{re(`(?i)x509: |tls: `), "check --tlscacert, --tlscert and --tlskey, or the certificates of the context"},
	}
}

func (e *Env) hint(err error) string {
	if h := errdefs.Hint(err); h != "" {
		return h
	}
	if e.engine != nil {
		if h := e.engine.Hint(err); h != "" {
			return h
		}
	}
	var usage *UsageError
	if errors.As(err, &usage) {
		return fmt.Sprintf("see `%s --help`", usage.Command)
	}
	if client.IsUnreachable(err) {
		return e.unreachableHint(err)
	}
	text := err.Error()
	for _, l := range localHints() {
		if m := l.pattern.FindStringSubmatchIndex(text); m != nil {
			return string(l.pattern.ExpandString(nil, l.hint, text, m))
		}
	}
	return ""
}

func (e *Env) unreachableHint(err error) string {
	ep, eerr := e.Endpoint()
	switch {
	case eerr != nil:
		return ""
	case e.reason(err) == "permission denied":
		return "run as root, or as a member of the group that owns the socket"
	case strings.HasPrefix(ep.Host, "ssh://"):
		return "try the same with ssh by hand; the other side needs `cleat` or `docker` in its PATH"
	case ep.Host == client.DefaultHost:
		return "start the daemon with `make up` or `cleatd`; another address goes with --host, CLEAT_HOST or `cleat context use`"
	default:
		return fmt.Sprintf("the address comes from %s: is a daemon listening there?", ep.Source)
	}
}
