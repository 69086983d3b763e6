// Package context holds the commands about contexts: daemons by name.
package context

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cleatlabs/cleat/cli/completion"
	"github.com/cleatlabs/cleat/cli/env"
	"github.com/cleatlabs/cleat/cli/formatting"
	"github.com/cleatlabs/cleat/client"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

// NewGroup is `cleat context`.
func NewGroup(e *env.Env) *cobra.Command {
	return env.Group(env.Spec{Use: "context", Short: "Manage contexts (daemons by name)", Example: "cleat context ls"},
		newCreate(e), newUpdate(e), newList(e), newUse(e), newRemove(e), newInspect(e), newShow(e))
}

// endpointFlags describe a context on the command line: --host and --tls...,
// or docker's --docker "host=..,ca=..,cert=..,key=..,skip-tls-verify=true".
type endpointFlags struct {
	host, ca, cert, key, description string
	skipVerify                       bool
	docker                           map[string]string
}

func (f *endpointFlags) add(fs *pflag.FlagSet) {
	fs.StringVar(&f.host, "endpoint", "", "Address of the daemon (unix://, tcp://, ssh://)")
	fs.StringVar(&f.ca, "ca", "", "PEM file of the CA that signed the daemon's certificate")
	fs.StringVar(&f.cert, "cert", "", "PEM file of the client certificate")
	fs.StringVar(&f.key, "key", "", "PEM file of the client certificate's key")
	fs.BoolVar(&f.skipVerify, "skip-tls-verify", false, "Accept any certificate of the daemon")
	fs.StringVar(&f.description, "description", "", "Description of the context")
	fs.StringToStringVar(&f.docker, "docker", nil, "The same in one flag: host=..,ca=..,cert=..,key=..,skip-tls-verify=true")
}

// apply changes x by the flags that were given and reads the PEM files.
func (f *endpointFlags) apply(fs *pflag.FlagSet, x *client.Context) (client.TLSMaterial, error) {
	var m client.TLSMaterial
	for k, v := range f.docker {
		switch k {
		case "host":
			f.host = v
		case "ca":
			f.ca = v
		case "cert":
			f.cert = v
		case "key":
			f.key = v
		case "skip-tls-verify":
			f.skipVerify = v == "true" || v == "1"
		default:
			return m, errdefs.Invalidf("unrecognized config key: %s", k)
		}
	}
	if f.host != "" {
		x.Host = f.host
	}
	if fs.Changed("description") {
		x.Description = f.description
	}
	for _, pem := range []struct {
		path string
		into *[]byte
	}{{f.ca, &m.CA}, {f.cert, &m.Cert}, {f.key, &m.Key}} {
		if pem.path == "" {
			continue
		}
		b, err := os.ReadFile(pem.path)
		if err != nil {
			return m, err
		}
		*pem.into, x.UseTLS = b, true
	}
	if f.skipVerify || fs.Changed("skip-tls-verify") {
		x.SkipTLSVerify = f.skipVerify
		x.UseTLS = x.UseTLS || f.skipVerify
	}
	return m, nil
}

func newCreate(e *env.Env) *cobra.Command {
	var (
		f    endpointFlags
		from string
	)
	cmd := env.Command(env.Spec{
		Use:   "create [OPTIONS] CONTEXT",
		Short: "Create a context",
		Example: `cleat context create lab --endpoint ssh://root@lab.example.com
			cleat context create prod --endpoint tcp://10.0.0.5:2376 --ca ca.pem --cert cert.pem --key key.pem`,
		Args: env.ExactArgs(1),
		Run: func(cmd *cobra.Command, args []string) error {
			x := client.Context{Name: args[0]}
			if from != "" {
				base, err := e.Contexts().Get(from)
				if err != nil {
					return err
				}
				x.Host, x.Description, x.UseTLS, x.SkipTLSVerify = base.Host, base.Description, base.UseTLS, base.SkipTLSVerify
				if t := base.Endpoint().TLS; t != nil {
					f.ca, f.cert, f.key = or(f.ca, t.CA), or(f.cert, t.Cert), or(f.key, t.Key)
				}
			}
			// The root's --host names the daemon here, too.
			f.host = or(f.host, e.Globals.Host)
			m, err := f.apply(cmd.Flags(), &x)
			if err != nil {
				return err
			}
			if x.Host == "" {
				return env.Usage(cmd, errors.New("the address of the daemon is missing: use --endpoint"))
			}
			if err := e.Contexts().Create(x, m); err != nil {
				return err
			}
			fmt.Fprintln(e.Out, args[0])
			fmt.Fprintf(e.Err, "Successfully created context %q\n", args[0])
			return nil
		},
	})
	f.add(cmd.Flags())
	cmd.Flags().StringVar(&from, "from", "", "Create context from a named context")
	completion.Flag(cmd, "from", completion.Contexts(e, 0))
	return cmd
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func newUpdate(e *env.Env) *cobra.Command {
	var f endpointFlags
	cmd := env.Command(env.Spec{
		Use:     "update [OPTIONS] CONTEXT",
		Short:   "Update a context",
		Example: "cleat context update lab --endpoint ssh://root@lab2.example.com",
		Args:    env.ExactArgs(1), Complete: completion.Contexts(e, 1),
		Run: func(cmd *cobra.Command, args []string) error {
			x, err := e.Contexts().Get(args[0])
			if err != nil {
				return err
			}
			f.host = or(f.host, e.Globals.Host)
			m, err := f.apply(cmd.Flags(), &x)
			if err != nil {
				return err
			}
			if err := e.Contexts().Update(x, m); err != nil {
				return err
			}
			fmt.Fprintln(e.Out, args[0])
			fmt.Fprintf(e.Err, "Successfully updated context %q\n", args[0])
			return nil
		},
	})
	f.add(cmd.Flags())
	return cmd
}

// row has the fields of docker's context templates.
type row struct {
	Current                                            bool
	Description, DockerEndpoint, Endpoint, Error, Name string
}

func newList(e *env.Env) *cobra.Command {
	var out formatting.Flags
	cmd := env.Command(env.Spec{
		Use: "ls [OPTIONS]", Aliases: []string{"list"},
		Short:   "List contexts",
		Example: "cleat context ls --format '{{.Name}} {{.DockerEndpoint}}'",
		Args:    env.NoArgs,
		Run: func(*cobra.Command, []string) error {
			all, err := e.Contexts().List()
			if err != nil {
				return err
			}
			current := currentName(e)
			l := formatting.List{
				Format: out.Format, Output: out.Output, Quiet: out.Quiet, QuietFormat: "{{.Name}}", Objects: all,
				Table: "{{.Name}}{{if .Current}} *{{end}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}",
				Header: formatting.Header{
					"Name": "NAME", "Description": "DESCRIPTION", "DockerEndpoint": "ENDPOINT", "Endpoint": "ENDPOINT", "Error": "ERROR",
				},
			}
			for _, x := range all {
				r := row{Name: x.Name, Current: x.Name == current, Description: x.Description, DockerEndpoint: x.Host, Endpoint: x.Host}
				if !out.NoTrunc {
					r.Description = formatting.Ellipsis(r.Description, 40)
				}
				l.Rows = append(l.Rows, r)
			}
			if err := l.Print(e.Out); err != nil {
				return err
			}
			if v := overriding(e); v != "" && !out.Quiet {
				fmt.Fprintf(e.Err, "Warning: %s is set and takes precedence over the current context\n", v)
			}
			return nil
		},
	})
	out.AddList(cmd.Flags(), "context names")
	return cmd
}

// overriding names the variable that makes the current context not matter.
func overriding(e *env.Env) string {
	for _, v := range []string{"CLEAT_HOST", "DOCKER_HOST"} {
		if e.Getenv(v) != "" {
			return v
		}
	}
	return ""
}

func currentName(e *env.Env) string {
	if e.Globals.Context != "" {
		return e.Globals.Context
	}
	name, _ := e.Contexts().CurrentName(e.Getenv)
	return name
}

func newUse(e *env.Env) *cobra.Command {
	return env.Command(env.Spec{
		Use:     "use CONTEXT",
		Short:   "Set the current context",
		Example: "cleat context use lab",
		Args:    env.ExactArgs(1), Complete: completion.Contexts(e, 1),
		Run: func(_ *cobra.Command, args []string) error {
			if err := e.Contexts().Use(args[0]); err != nil {
				return err
			}
			fmt.Fprintln(e.Out, args[0])
			fmt.Fprintf(e.Err, "Current context is now %q\n", args[0])
			if v := overriding(e); v != "" {
				fmt.Fprintf(e.Err, "Warning: %s is set and takes precedence over it\n", v)
			}
			return nil
		},
	})
}

func newRemove(e *env.Env) *cobra.Command {
	var force bool
	cmd := env.Command(env.Spec{
		Use: "rm [OPTIONS] CONTEXT [CONTEXT...]", Aliases: []string{"remove"},
		Short:   "Remove one or more contexts",
		Example: "cleat context rm lab",
		Args:    env.MinArgs(1), Complete: completion.Contexts(e, 0),
		Run: func(_ *cobra.Command, args []string) error {
			var errs []error
			for _, n := range args {
				if err := e.Contexts().Remove(n, force); err != nil {
					errs = append(errs, err)
					continue
				}
				fmt.Fprintln(e.Out, n)
			}
			return errors.Join(errs...)
		},
	})
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force the removal of a context in use")
	return cmd
}

// detail is what inspect shows, in docker's shape.
type detail struct {
	Name      string
	Metadata  map[string]string
	Endpoints map[string]endpointDetail
	TLS       map[string]string `json:",omitempty"`
}

type endpointDetail struct {
	Host          string
	SkipTLSVerify bool
}

func newInspect(e *env.Env) *cobra.Command {
	var out formatting.Flags
	cmd := env.Command(env.Spec{
		Use:     "inspect [OPTIONS] [CONTEXT...]",
		Short:   "Display detailed information on one or more contexts",
		Example: "cleat context inspect lab",
		Args:    env.MinArgs(0), Complete: completion.Contexts(e, 0),
		Run: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = []string{currentName(e)}
			}
			return env.Inspect(e, out, args, func(name string) (formatting.Inspected, error) {
				x, err := e.Contexts().Get(name)
				if err != nil {
					return formatting.Inspected{}, err
				}
				d := detail{
					Name: x.Name, Metadata: map[string]string{},
					Endpoints: map[string]endpointDetail{"docker": {Host: x.Host, SkipTLSVerify: x.SkipTLSVerify}},
				}
				if x.Description != "" {
					d.Metadata["Description"] = x.Description
				}
				if t := x.Endpoint().TLS; t != nil {
					d.TLS = map[string]string{"ca": t.CA, "cert": t.Cert, "key": t.Key}
				}
				return formatting.Inspected{Value: d}, nil
			})
		},
	})
	cmd.Flags().StringVarP(&out.Format, "format", "f", "", "Format output using a custom template, or 'json'")
	out.AddOutput(cmd.Flags())
	return cmd
}

func newShow(e *env.Env) *cobra.Command {
	return env.Command(env.Spec{
		Use:     "show",
		Short:   "Print the name of the current context",
		Example: "cleat context show",
		Args:    env.NoArgs,
		Run: func(*cobra.Command, []string) error {
			name := currentName(e)
			if overriding(e) != "" && e.Globals.Context == "" {
				name = client.DefaultContext
			}
			_, err := fmt.Fprintln(e.Out, strings.TrimSpace(name))
			return err
		},
	})
}
