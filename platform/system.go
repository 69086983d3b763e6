package platform

import (
	"context"
	"os"
	goruntime "runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/system"
	"golang.org/x/sys/unix"

	econtainer "github.com/cleatlabs/cleat/engine/container"
	"github.com/cleatlabs/cleat/engine/dockerapi"
	"github.com/cleatlabs/cleat/engine/filter"
	"github.com/cleatlabs/cleat/engine/image"
	"github.com/cleatlabs/cleat/internal/machine"
	"github.com/cleatlabs/cleat/internal/version"
)

// systemInfo answers for the daemon as a whole, out of what the nouns say. It
// keeps nothing but the facts of the machine, gathered once.
type systemInfo struct {
	cfg        Config
	id         string
	facts      machine.Facts
	containers dockerapi.Containers
	images     *image.Service
	volumes    dockerapi.Volumes
	debug      bool
	listeners  *atomic.Int64
}

// kernel is what uname(2) says.
func kernel() (release, arch string) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", goruntime.GOARCH
	}
	return unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Machine[:])
}

// distribution is PRETTY_NAME and VERSION_ID of os-release(5).
func distribution() (name, id string) {
	name = "Linux"
	data, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return name, ""
	}
	for line := range strings.Lines(string(data)) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch v = strings.Trim(v, `"`); k {
		case "PRETTY_NAME":
			name = v
		case "VERSION_ID":
			id = v
		}
	}
	return name, id
}

func (s *systemInfo) Version(context.Context) (system.VersionResponse, error) {
	release, _ := kernel()
	v := system.VersionResponse{
		Platform:      system.PlatformInfo{Name: "Cleat"},
		Version:       version.Version(),
		APIVersion:    dockerapi.MaxVersion,
		MinAPIVersion: dockerapi.MinVersion,
		Os:            goruntime.GOOS,
		Arch:          goruntime.GOARCH,
		GitCommit:     version.Commit(),
		GoVersion:     version.Go(),
		KernelVersion: release,
	}
	v.Components = []system.ComponentVersion{{
		Name: "Engine", Version: v.Version,
		Details: map[string]string{
			"ApiVersion": v.APIVersion, "MinAPIVersion": v.MinAPIVersion, "Arch": v.Arch, "Os": v.Os,
			"GitCommit": v.GitCommit, "GoVersion": v.GoVersion, "KernelVersion": v.KernelVersion,
			"Experimental": "false",
		},
	}}
	return v, nil
}

func (s *systemInfo) Info(ctx context.Context) (*system.Info, error) {
	all, err := s.containers.List(ctx, econtainer.ListOptions{All: true})
	if err != nil {
		return nil, err
	}
	images, err := s.images.List(ctx, image.ListOptions{All: true})
	if err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	release, arch := kernel()
	distro, distroVersion := distribution()
	info := &system.Info{
		ID: s.id, Name: host, ServerVersion: version.Version(),
		Containers: len(all), Images: len(images),
		Driver:       s.images.Snapshotter(),
		DriverStatus: [][2]string{{"driver-type", "io.containerd.snapshotter.v1"}},
		Plugins: system.PluginsInfo{
			Volume: []string{"local"}, Network: []string{"bridge", "host", "macvlan", "null"},
			Log: []string{"json-file", "local", "none"},
		},
		NGoroutines: goruntime.NumGoroutine(), SystemTime: time.Now().Format(time.RFC3339Nano),
		LoggingDriver: "local", CgroupDriver: "cgroupfs", Debug: s.debug,
		KernelVersion: release, OperatingSystem: distro, OSVersion: distroVersion,
		OSType: goruntime.GOOS, Architecture: arch, NCPU: goruntime.NumCPU(),
		IndexServerAddress: "https://index.docker.io/v1/",
		RegistryConfig:     &registry.ServiceConfig{},
		DockerRootDir:      s.cfg.Root, LiveRestoreEnabled: true,
		DefaultRuntime: "runc", InitBinary: "docker-init",
		Runtimes:     map[string]system.RuntimeWithStatus{"runc": {}},
		FirewallBackend: &system.FirewallInfo{Driver: "nftables"},
	}
	for name, path := range s.cfg.Container.Runtimes {
		info.Runtimes[name] = system.RuntimeWithStatus{Runtime: system.Runtime{Path: path}}
	}
	if entries, err := os.ReadDir("/proc/self/fd"); err == nil {
		info.NFd = len(entries)
	}
	var si unix.Sysinfo_t
	if err := unix.Sysinfo(&si); err == nil {
		info.MemTotal = int64(si.Totalram) * int64(si.Unit)
	}
	for _, c := range all {
		switch c.State {
		case container.StateRunning, container.StateRestarting:
			info.ContainersRunning++
		case container.StatePaused:
			info.ContainersPaused++
		default:
			info.ContainersStopped++
		}
	}
	s.addMachine(info)
	return info, nil
}

// DiskUsage reports what takes space, by kind.
func (s *systemInfo) DiskUsage(ctx context.Context, kinds []string, verbose bool) (*dockerapi.DiskUsage, error) {
	want := func(kind string) bool {
		if len(kinds) == 0 {
			return true
		}
		for _, k := range kinds {
			if k == kind {
				return true
			}
		}
		return false
	}
	du := &dockerapi.DiskUsage{}
	if want("image") {
		images, err := s.images.List(ctx, image.ListOptions{All: true, SharedSize: true})
		if err != nil {
			return nil, err
		}
		du.Images = images
		if du.LayersSize, err = s.images.LayersSize(ctx); err != nil {
			return nil, err
		}
	}
	if want("container") {
		all, err := s.containers.List(ctx, econtainer.ListOptions{All: true, Size: true})
		if err != nil {
			return nil, err
		}
		du.Containers = all
	}
	if want("volume") {
		list, err := s.volumes.List(ctx, filter.Args{})
		if err != nil {
			return nil, err
		}
		du.Volumes = list.Volumes
	}
	return du, nil
}

// Doctor checks the machine anew.
func (s *systemInfo) Doctor(ctx context.Context) (any, error) {
	return nil, nil
}
