// Package registry holds login and logout. Credentials are kept where the
// docker command keeps them.
package registry

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/moby/moby/api/types/registry"
	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/cleatlabs/cleat/cli/env"
	"github.com/cleatlabs/cleat/client"
)

// NewLoginCommand is `cleat login`.
func NewLoginCommand(e *env.Env) *cobra.Command {
	var (
		user, password string
		fromStdin      bool
	)
	cmd := env.Command(env.Spec{
		Use:   "login [OPTIONS] [SERVER]",
		Short: "Authenticate to a registry",
		Long:  "Authenticate to a registry; without SERVER to Docker Hub.",
		Example: `cleat login registry.example.com
			echo "$TOKEN" | cleat login -u ci --password-stdin registry.example.com`,
		Args: env.RangeArgs(0, 1),
		Run: func(cmd *cobra.Command, args []string) error {
			switch {
			case password != "" && fromStdin:
				return env.Usage(cmd, errors.New("conflicting options: cannot specify both --password and --password-stdin"))
			case fromStdin && user == "":
				return env.Usage(cmd, errors.New("the --password-stdin option requires --username to be set"))
			}
			server := client.IndexServer
			if len(args) == 1 {
				server = client.ServerKey(args[0])
			}
			if password != "" {
				fmt.Fprintln(e.Err, "WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
			}
			a, err := ask(e, server, user, password, fromStdin)
			if err != nil {
				return err
			}
			engine, err := e.Engine()
			if err != nil {
				return err
			}
			res, err := engine.RegistryLogin(cmd.Context(), moby.RegistryLoginOptions{
				Username: a.Username, Password: a.Password, ServerAddress: a.ServerAddress, IdentityToken: a.IdentityToken,
			})
			if err != nil {
				return err
			}
			if res.Auth.IdentityToken != "" {
				a.Password, a.IdentityToken = "", res.Auth.IdentityToken
			}
			helper, err := e.Auth().Store(a)
			if err != nil {
				return fmt.Errorf("error saving credentials: %w", err)
			}
			if helper == "" {
				fmt.Fprintf(e.Err, "WARNING! Your credentials are stored unencrypted in '%s'.\n", e.Auth().Path())
			}
			status := res.Auth.Status
			if status == "" {
				status = "Login Succeeded"
			}
			_, err = fmt.Fprintln(e.Out, status)
			return err
		},
	})
	fs := cmd.Flags()
	fs.StringVarP(&user, "username", "u", "", "Username")
	fs.StringVarP(&password, "password", "p", "", "Password or Personal Access Token (PAT)")
	fs.BoolVar(&fromStdin, "password-stdin", false, "Take the Password or Personal Access Token (PAT) from stdin")
	return cmd
}

// ask completes the credentials: from stdin, from what is stored, or by asking.
func ask(e *env.Env, server, user, password string, fromStdin bool) (registry.AuthConfig, error) {
	a := registry.AuthConfig{ServerAddress: server, Username: user, Password: password}
	if fromStdin {
		b, err := io.ReadAll(io.LimitReader(e.In, 1<<20))
		if err != nil {
			return a, err
		}
		a.Password = strings.TrimRight(string(b), "\r\n")
	}
	if a.Username != "" && a.Password != "" {
		return a, nil
	}
	if user == "" && password == "" {
		stored, err := e.Auth().Get(server)
		if err == nil && (stored.Username != "" && stored.Password != "" || stored.IdentityToken != "") {
			fmt.Fprintln(e.Err, "Authenticating with existing credentials...")
			return stored, nil
		}
	}
	fd, ok := e.InTerminal()
	if !ok {
		return a, errors.New("cannot perform an interactive login from a non TTY device: use --username and --password-stdin")
	}
	if a.Username == "" {
		fmt.Fprint(e.Err, "Username: ")
		line, err := bufio.NewReader(e.In).ReadString('\n')
		if err != nil {
			return a, err
		}
		if a.Username = strings.TrimSpace(line); a.Username == "" {
			return a, errors.New("username is required")
		}
	}
	if a.Password == "" {
		fmt.Fprint(e.Err, "Password: ")
		b, err := term.ReadPassword(fd)
		fmt.Fprintln(e.Err)
		if err != nil {
			return a, err
		}
		if a.Password = string(b); a.Password == "" {
			return a, errors.New("password is required")
		}
	}
	return a, nil
}

// NewLogoutCommand is `cleat logout`.
func NewLogoutCommand(e *env.Env) *cobra.Command {
	return env.Command(env.Spec{
		Use:     "logout [SERVER]",
		Short:   "Log out from a registry",
		Example: "cleat logout registry.example.com",
		Args:    env.RangeArgs(0, 1),
		Run: func(_ *cobra.Command, args []string) error {
			server := client.IndexServer
			if len(args) == 1 {
				server = client.ServerKey(args[0])
			}
			found, err := e.Auth().Erase(server)
			if err != nil {
				return err
			}
			if !found {
				_, err = fmt.Fprintf(e.Out, "Not logged in to %s\n", server)
				return err
			}
			_, err = fmt.Fprintf(e.Out, "Removing login credentials for %s\n", server)
			return err
		},
	})
}
