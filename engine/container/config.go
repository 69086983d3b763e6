package container

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cleatlabs/cleat/engine/logs"
	"github.com/cleatlabs/cleat/internal/clock"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

// Config is this component's part of the daemon's configuration.
type Config struct {
	// Root is the folder of the container records; the service owns it.
	Root string `yaml:"root"`
	// CgroupParent is the cgroup that containers are made in unless they name
	// another. Default "/cleat".
	CgroupParent string `yaml:"cgroupParent"`
	// Runtimes are OCI runtime programs by name, beside the built-in "runc".
	Runtimes map[string]RuntimeProgram `yaml:"runtimes"`
	// DefaultRuntime is the runtime of containers that name none. Default "runc".
	DefaultRuntime string `yaml:"defaultRuntime"`
	// InitPath is the static program that `--init` runs as PID 1.
	InitPath string `yaml:"initPath"`
	// Init makes `--init` the default.
	Init bool `yaml:"init"`
	// SeccompProfile is the path of the default profile, "builtin" (the
	// default) or "unconfined".
	SeccompProfile string `yaml:"seccompProfile"`
	// NoNewPrivileges is the default of the security option of that name.
	NoNewPrivileges bool `yaml:"noNewPrivileges"`
	// ShmSize is the default size of /dev/shm. Default 64 MiB.
	ShmSize int64 `yaml:"shmSize"`
	// IpcMode is "private" (the default) or "shareable".
	IpcMode string `yaml:"ipcMode"`
	// CgroupnsMode is "private" or "host". Default: private on cgroup v2,
	// host on v1, as Docker.
	CgroupnsMode string `yaml:"cgroupnsMode"`
	// StopTimeout is the default grace period of stop in seconds. Default 10.
	StopTimeout int `yaml:"stopTimeout"`
	// LogDriver and LogOptions are the defaults of containers that name none.
	// Default "local".
	LogDriver  string            `yaml:"logDriver"`
	LogOptions map[string]string `yaml:"logOptions"`
	// Ulimits are the defaults by name.
	Ulimits map[string]Ulimit `yaml:"ulimits"`
	// UsernsRemap would map containers' root to a user of the host.
	UsernsRemap string `yaml:"usernsRemap"`
}

// RuntimeProgram is an OCI runtime such as crun.
type RuntimeProgram struct {
	Path string   `yaml:"path"`
	Args []string `yaml:"args"`
}

// Ulimit is a pair of limits; -1 is no limit.
type Ulimit struct {
	Soft int64 `yaml:"soft"`
	Hard int64 `yaml:"hard"`
}

// builtinRuntimes name the runtime that the shim has inside.
func builtinRuntimes() []string { return []string{"", "runc", "io.containerd.runc.v2"} }

// Validate fills in defaults and refuses what cannot work.
func (c *Config) Validate() error {
	if !filepath.IsAbs(c.Root) {
		return fmt.Errorf("containers: root %q is not an absolute path", c.Root)
	}
	setDefault(&c.CgroupParent, "/cleat")
	setDefault(&c.DefaultRuntime, "runc")
	setDefault(&c.SeccompProfile, "builtin")
	setDefault(&c.IpcMode, "private")
	setDefault(&c.LogDriver, "local")
	setDefault(&c.ShmSize, 64<<20)
	setDefault(&c.StopTimeout, 10)
	var errs []error
	if strings.Contains(c.CgroupParent, "..") {
		errs = append(errs, fmt.Errorf("containers: cgroupParent %q must not contain \"..\"", c.CgroupParent))
	}
	if c.IpcMode != "private" && c.IpcMode != "shareable" {
		errs = append(errs, fmt.Errorf("containers: ipcMode %q is neither private nor shareable", c.IpcMode))
	}
	if !slices.Contains([]string{"", "private", "host"}, c.CgroupnsMode) {
		errs = append(errs, fmt.Errorf("containers: cgroupnsMode %q is neither private nor host", c.CgroupnsMode))
	}
	if c.InitPath != "" && !filepath.IsAbs(c.InitPath) {
		errs = append(errs, fmt.Errorf("containers: initPath %q is not an absolute path", c.InitPath))
	}
	if c.ShmSize < 0 {
		errs = append(errs, errors.New("containers: shmSize is negative"))
	}
	for _, name := range slices.Sorted(maps.Keys(c.Runtimes)) {
		if slices.Contains(builtinRuntimes(), name) {
			errs = append(errs, fmt.Errorf("containers: runtime name %q is reserved for the built-in one", name))
		}
		if c.Runtimes[name].Path == "" {
			errs = append(errs, fmt.Errorf("containers: runtime %q has no path", name))
		}
	}
	if _, _, err := c.runtimeProgram(c.DefaultRuntime); err != nil {
		errs = append(errs, fmt.Errorf("containers: defaultRuntime: %w", err))
	}
	if c.UsernsRemap != "" {
		errs = append(errs, errdefs.NotImplementedf("containers: usernsRemap is not supported: remove the setting"))
	}
	return errors.Join(errs...)
}

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// runtimeProgram resolves a runtime's name; an empty path is the built-in one.
func (c *Config) runtimeProgram(name string) (path string, args []string, err error) {
	if slices.Contains(builtinRuntimes(), name) {
		return "", nil, nil
	}
	r, ok := c.Runtimes[name]
	if !ok {
		return "", nil, errdefs.Invalidf("unknown or invalid runtime name: %s", name)
	}
	return r.Path, r.Args, nil
}

// Deps are the neighbours of the service. All but Clock and Facts are needed.
type Deps struct {
	Runtime  Runtime
	Images   Images
	Networks Networks
	Volumes  Volumes
	Events   Publisher
	Logs     logs.Reader
	// Clock drives back-off, health checks and statistics; nil is real time.
	Clock clock.Clock
	// Facts describe the machine; nil has New look.
	Facts *Facts
}
