package system

import (
	"fmt"
	"io"
	"runtime"
	"sort"
	"strings"
	"text/tabwriter"

	"github.com/moby/moby/api/types/system"
	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/cleatlabs/cleat/cli/env"
	"github.com/cleatlabs/cleat/cli/formatting"
	"github.com/cleatlabs/cleat/internal/version"
)

// clientInfo is what this program knows of itself; templates name it .Client.
type clientInfo struct {
	Platform          struct{ Name string } `json:",omitempty"`
	Version           string
	APIVersion        string `json:"ApiVersion"`
	DefaultAPIVersion string
	GitCommit         string
	GoVersion         string
	Os                string
	Arch              string
	Context           string
}

func clientOf(e *env.Env) clientInfo {
	c := clientInfo{
		Version: version.Version(), APIVersion: moby.MaxAPIVersion, DefaultAPIVersion: moby.MaxAPIVersion,
		GitCommit: version.Commit(), GoVersion: version.Go(), Os: runtime.GOOS, Arch: runtime.GOARCH,
	}
	if len(c.GitCommit) > 12 {
		c.GitCommit = c.GitCommit[:12]
	}
	if eng := e.OpenedEngine(); eng != nil {
		c.APIVersion = eng.ClientVersion()
	}
	c.Context = e.Globals.Context
	if c.Context == "" {
		c.Context, _ = e.Contexts().CurrentName(e.Getenv)
	}
	return c
}

// serverInfo is the daemon's version in the shape that docker's templates use.
type serverInfo struct {
	Platform      struct{ Name string }     `json:",omitempty"`
	Components    []system.ComponentVersion `json:",omitempty"`
	Version       string
	APIVersion    string `json:"ApiVersion"`
	MinAPIVersion string
	GitCommit     string `json:",omitempty"`
	GoVersion     string `json:",omitempty"`
	Os            string
	Arch          string
	KernelVersion string `json:",omitempty"`
	BuildTime     string `json:",omitempty"`
	Experimental  bool
}

type versions struct {
	Client clientInfo
	Server *serverInfo
}

// NewVersionCommand is `cleat version`.
func NewVersionCommand(e *env.Env) *cobra.Command {
	var (
		out        formatting.Flags
		clientOnly bool
	)
	cmd := env.Command(env.Spec{
		Use:   "version [OPTIONS]",
		Short: "Show the versions of this program and of the daemon",
		Example: `cleat version --client
			cleat version --format '{{.Server.Version}}'`,
		Args: env.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) error {
			v := versions{}
			var serverErr error
			if !clientOnly {
				v.Server, serverErr = askServer(cmd, e)
			}
			v.Client = clientOf(e)
			var err error
			switch {
			case out.Output != "":
				err = formatting.Object(e.Out, out.Output, v)
			case out.Format != "":
				err = formatting.Template(e.Out, out.Format, v)
			default:
				err = printVersions(e.Out, v)
			}
			if err != nil && serverErr != nil {
				return serverErr // a template that wants the server fails without it
			}
			if err != nil {
				return err
			}
			return serverErr
		},
	})
	fs := cmd.Flags()
	fs.StringVarP(&out.Format, "format", "f", "", "Format output using a custom template, or 'json'")
	fs.BoolVar(&clientOnly, "client", false, "Show only the version of this program, without asking the daemon")
	out.AddOutput(fs)
	return cmd
}

func askServer(cmd *cobra.Command, e *env.Env) (*serverInfo, error) {
	engine, err := e.Engine()
	if err != nil {
		return nil, err
	}
	r, err := engine.ServerVersion(cmd.Context(), moby.ServerVersionOptions{})
	if err != nil {
		return nil, err
	}
	s := &serverInfo{
		Components: r.Components, Version: r.Version, APIVersion: r.APIVersion, MinAPIVersion: r.MinAPIVersion,
		Os: r.Os, Arch: r.Arch,
	}
	s.Platform.Name = r.Platform.Name
	for _, c := range r.Components {
		if c.Name == "Engine" {
			s.GitCommit, s.GoVersion = c.Details["GitCommit"], c.Details["GoVersion"]
			s.KernelVersion, s.BuildTime = c.Details["KernelVersion"], c.Details["BuildTime"]
			s.Experimental = c.Details["Experimental"] == "true"
		}
	}
	return s, nil
}

func printVersions(w io.Writer, v versions) error {
	tw := tabwriter.NewWriter(w, 20, 1, 1, ' ', 0)
	c := v.Client
	fmt.Fprintf(tw, "Client:\n Version:\t%s\n API version:\t%s\n Go version:\t%s\n Git commit:\t%s\n OS/Arch:\t%s/%s\n Context:\t%s\n",
		c.Version, c.APIVersion, c.GoVersion, c.GitCommit, c.Os, c.Arch, c.Context)
	if s := v.Server; s != nil {
		fmt.Fprintf(tw, "\nServer: %s\n Version:\t%s\n API version:\t%s (minimum version %s)\n OS/Arch:\t%s/%s\n",
			s.Platform.Name, s.Version, s.APIVersion, s.MinAPIVersion, s.Os, s.Arch)
		for _, part := range s.Components {
			fmt.Fprintf(tw, " %s:\n  Version:\t%s\n", part.Name, part.Version)
			keys := make([]string, 0, len(part.Details))
			for k := range part.Details {
				keys = append(keys, k)
			}
			sort.Strings(keys)
			for _, k := range keys {
				if k != "Version" {
					fmt.Fprintf(tw, "  %s:\t%s\n", k, part.Details[k])
				}
			}
		}
	}
	return tw.Flush()
}

// machineInfo is docker's shape of `info`: the daemon's fields on top.
type machineInfo struct {
	*system.Info `json:",omitempty"`
	ClientInfo   *clientInfo
	ServerErrors []string `json:",omitempty"`
}

// NewInfoCommand is `cleat info`.
func NewInfoCommand(e *env.Env) *cobra.Command {
	var out formatting.Flags
	cmd := env.Command(env.Spec{
		Use:   "info [OPTIONS]",
		Short: "Display system-wide information",
		Example: `cleat info
			cleat info --format '{{.CgroupVersion}}'`,
		Args: env.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) error {
			engine, err := e.Engine()
			if err != nil {
				return err
			}
			res, err := engine.Info(cmd.Context(), moby.InfoOptions{})
			if err != nil {
				return err
			}
			c := clientOf(e)
			m := machineInfo{Info: &res.Info, ClientInfo: &c}
			switch {
			case out.Output != "":
				return formatting.Object(e.Out, out.Output, m)
			case out.Format != "":
				return formatting.Template(e.Out, out.Format, m)
			}
			return printInfo(e.Out, e.Err, m)
		},
	})
	cmd.Flags().StringVarP(&out.Format, "format", "f", "", "Format output using a custom template, or 'json'")
	out.AddOutput(cmd.Flags())
	return cmd
}

func printInfo(w, errw io.Writer, m machineInfo) error {
	i := m.Info
	var b strings.Builder
	line := func(label string, value any) {
		if s := fmt.Sprint(value); s != "" {
			fmt.Fprintf(&b, " %s: %s\n", label, s)
		}
	}
	fmt.Fprintf(&b, "Client:\n Version: %s\n Context: %s\n\nServer:\n", m.ClientInfo.Version, m.ClientInfo.Context)
	line("Containers", i.Containers)
	fmt.Fprintf(&b, "  Running: %d\n  Paused: %d\n  Stopped: %d\n", i.ContainersRunning, i.ContainersPaused, i.ContainersStopped)
	line("Images", i.Images)
	line("Server Version", i.ServerVersion)
	line("Storage Driver", i.Driver)
	for _, p := range i.DriverStatus {
		fmt.Fprintf(&b, "  %s: %s\n", p[0], p[1])
	}
	line("Logging Driver", i.LoggingDriver)
	line("Cgroup Driver", i.CgroupDriver)
	line("Cgroup Version", i.CgroupVersion)
	fmt.Fprintf(&b, " Plugins:\n  Volume: %s\n  Network: %s\n  Log: %s\n",
		strings.Join(i.Plugins.Volume, " "), strings.Join(i.Plugins.Network, " "), strings.Join(i.Plugins.Log, " "))
	var runtimes []string
	for name := range i.Runtimes {
		runtimes = append(runtimes, name)
	}
	sort.Strings(runtimes)
	line("Runtimes", strings.Join(runtimes, " "))
	line("Default Runtime", i.DefaultRuntime)
	line("Init Binary", i.InitBinary)
	if len(i.SecurityOptions) > 0 {
		b.WriteString(" Security Options:\n")
		for _, o := range i.SecurityOptions {
			b.WriteString("  " + securityOption(o) + "\n")
		}
	}
	line("Kernel Version", i.KernelVersion)
	line("Operating System", i.OperatingSystem)
	line("OSType", i.OSType)
	line("Architecture", i.Architecture)
	line("CPUs", i.NCPU)
	line("Total Memory", formatting.BinarySize(float64(i.MemTotal)))
	line("Name", i.Name)
	line("ID", i.ID)
	line("Root Dir", i.DockerRootDir)
	line("Debug Mode", i.Debug)
	if i.Debug {
		fmt.Fprintf(&b, "  File Descriptors: %d\n  Goroutines: %d\n  System Time: %s\n  Events Listeners: %d\n", i.NFd, i.NGoroutines, i.SystemTime, i.NEventsListener)
	}
	line("HTTP Proxy", i.HTTPProxy)
	line("HTTPS Proxy", i.HTTPSProxy)
	line("No Proxy", i.NoProxy)
	if len(i.Labels) > 0 {
		b.WriteString(" Labels:\n  " + strings.Join(i.Labels, "\n  ") + "\n")
	}
	if r := i.RegistryConfig; r != nil {
		if len(r.Mirrors) > 0 {
			b.WriteString(" Registry Mirrors:\n  " + strings.Join(r.Mirrors, "\n  ") + "\n")
		}
		var insecure []string
		for name, x := range r.IndexConfigs {
			if !x.Secure {
				insecure = append(insecure, name)
			}
		}
		for _, p := range r.InsecureRegistryCIDRs {
			insecure = append(insecure, p.String())
		}
		sort.Strings(insecure)
		if len(insecure) > 0 {
			b.WriteString(" Insecure Registries:\n  " + strings.Join(insecure, "\n  ") + "\n")
		}
	}
	line("Live Restore Enabled", i.LiveRestoreEnabled)
	if f := i.FirewallBackend; f != nil {
		line("Firewall Backend", f.Driver)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return err
	}
	for _, warning := range i.Warnings {
		fmt.Fprintln(errw, warning)
	}
	return nil
}

// securityOption words "name=seccomp,profile=builtin".
func securityOption(o string) string {
	var name string
	var rest []string
	for part := range strings.SplitSeq(o, ",") {
		k, v, ok := strings.Cut(part, "=")
		switch {
		case ok && k == "name":
			name = v
		case ok:
			rest = append(rest, k+": "+v)
		default:
			name = part
		}
	}
	if len(rest) == 0 {
		return name
	}
	return name + " (" + strings.Join(rest, ", ") + ")"
}
