package platform

import (
	"context"
	"os"
	goruntime "runtime"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	apiimage "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"
	"golang.org/x/sys/unix"

	econtainer "github.com/cleatlabs/cleat/engine/container"
	"github.com/cleatlabs/cleat/engine/dockerapi"
	"github.com/cleatlabs/cleat/engine/image"
	evolume "github.com/cleatlabs/cleat/engine/volume"
	"github.com/cleatlabs/cleat/internal/machine"
	"github.com/cleatlabs/cleat/internal/version"
)

// systemInfo answers for the daemon as a whole, out of what the nouns say. It
// keeps nothing but the facts of the machine, gathered once.
type systemInfo struct {
	cfg        Config
	id         string
	containers dockerapi.Containers
	images     *image.Service
	volumes    *evolume.Service
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
		APIVersion:    dockerapi.MaxAPIVersion,
		MinAPIVersion: dockerapi.MinAPIVersion,
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
		LoggingDriver: "local", CgroupDriver: "cgroupfs", Debug: s.cfg.Log.Level == "debug",
		KernelVersion: release, OperatingSystem: distro, OSVersion: distroVersion,
		OSType: goruntime.GOOS, Architecture: arch, NCPU: goruntime.NumCPU(),
		IndexServerAddress: "https://index.docker.io/v1/",
		RegistryConfig:     &registry.ServiceConfig{},
		DockerRootDir:      s.cfg.Root, LiveRestoreEnabled: true,
		DefaultRuntime: "runc", InitBinary: "docker-init",
		Runtimes:        map[string]system.RuntimeWithStatus{"runc": {}},
		FirewallBackend: &system.FirewallInfo{Driver: "nftables"},
	}
	for name, program := range s.cfg.Container.Runtimes {
		info.Runtimes[name] = system.RuntimeWithStatus{Runtime: system.Runtime{Path: program.Path, Args: program.Args}}
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
	want := func(kind system.DiskUsageObject) bool { return len(kinds) == 0 || slices.Contains(kinds, string(kind)) }
	du := &dockerapi.DiskUsage{}
	if want(system.ImageObject) {
		u, err := s.images.DiskUsage(ctx)
		if err != nil {
			return nil, err
		}
		du.Images = &apiimage.DiskUsage{ActiveCount: u.Active, TotalCount: int64(len(u.Images)), TotalSize: u.Total, Reclaimable: u.Reclaimable}
		if verbose {
			du.Images.Items = u.Images
		}
	}
	if want(system.ContainerObject) {
		all, err := s.containers.List(ctx, econtainer.ListOptions{All: true, Size: true})
		if err != nil {
			return nil, err
		}
		du.Containers = containerUsage(all)
		if verbose {
			du.Containers.Items = all
		}
	}
	if want(system.VolumeObject) {
		list, err := s.volumes.Usage(ctx)
		if err != nil {
			return nil, err
		}
		du.Volumes = volumeUsage(list)
		if verbose {
			du.Volumes.Items = list
		}
	}
	if want(system.BuildCacheObject) {
		du.BuildCache = &build.DiskUsage{}
	}
	return du, nil
}

func containerUsage(all []container.Summary) *container.DiskUsage {
	u := &container.DiskUsage{TotalCount: int64(len(all))}
	for _, c := range all {
		u.TotalSize += c.SizeRw
		switch c.State {
		case container.StateRunning, container.StatePaused, container.StateRestarting:
			u.ActiveCount++
		default:
			u.Reclaimable += c.SizeRw
		}
	}
	return u
}

func volumeUsage(all []volume.Volume) *volume.DiskUsage {
	u := &volume.DiskUsage{TotalCount: int64(len(all))}
	for _, v := range all {
		if v.UsageData == nil {
			continue
		}
		u.TotalSize += max(0, v.UsageData.Size)
		if v.UsageData.RefCount > 0 {
			u.ActiveCount++
		} else {
			u.Reclaimable += max(0, v.UsageData.Size)
		}
	}
	return u
}

// Doctor checks the machine anew.
func (s *systemInfo) Doctor(context.Context) (any, error) {
	return machine.Judge(machine.Gather(s.cfg.Root)), nil
}

// addMachine fills in what this kernel offers, and warns of what it lacks.
func (s *systemInfo) addMachine(info *system.Info) {
	f := machine.Gather(s.cfg.Root)
	has := func(c string) bool { return slices.Contains(f.Controllers, c) }
	info.MemoryLimit, info.PidsLimit, info.CPUSet = has("memory"), has("pids"), has("cpuset")
	info.CPUCfsPeriod, info.CPUCfsQuota, info.CPUShares = has("cpu"), has("cpu"), has("cpu")
	info.IPv4Forwarding = f.Forwarding
	info.CgroupVersion = "1"
	if f.Cgroups == "v2" {
		info.CgroupVersion = "2"
	} else {
		info.OomKillDisable = has("memory")
	}
	if _, err := os.Stat("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes"); err == nil || f.Cgroups == "v2" && has("memory") {
		info.SwapLimit = true
	}
	if f.Seccomp {
		info.SecurityOptions = append(info.SecurityOptions, "name=seccomp,profile=builtin")
	}
	if f.AppArmor {
		info.SecurityOptions = append(info.SecurityOptions, "name=apparmor")
	}
	if f.Cgroups == "v2" {
		info.SecurityOptions = append(info.SecurityOptions, "name=cgroupns")
	}
	for _, c := range machine.Judge(f).Checks {
		if c.Status != machine.OK {
			info.Warnings = append(info.Warnings, "WARNING: "+c.Name+": "+c.Detail)
		}
	}
}
