package container

import (
	"path"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// specInput is everything that decides a container's OCI spec. The actors that
// look at the machine (users, devices, volumes, namespaces to join) fill it in;
// planSpec only computes.
type specInput struct {
	ID     string
	Config *container.Config
	Host   *container.HostConfig
	Daemon *Config
	Facts  *Facts

	// NetPath is the network namespace, "" the host's.
	NetPath string
	// NetSandboxed says that the namespace is one of our networks.
	NetSandboxed bool
	// PIDPath and IPCPath are namespaces of other containers to join.
	PIDPath, IPCPath string
	// ShmPath is a tmpfs of the host to use as /dev/shm, "" makes one.
	ShmPath string
	// Hostname is the one to set; "" leaves it.
	Hostname string

	Account account
	Caps    []string
	Seccomp *specs.LinuxSeccomp
	// Sec are the parsed security options.
	Sec security
	// Volumes are the binds, volumes and tmpfs; Files those of /etc.
	Volumes, Files []specs.Mount
	// Shared and Slave say what propagation the root needs.
	Shared, Slave bool
	Devices       []hostDevice
	BlockDevices  map[string]blockDevice
	// ServeInit is the path of the init program on the host, "" for none.
	ServeInit string
}

// initInside is where `--init` puts the init program.
const initInside = "/sbin/docker-init"

// planSpec makes the OCI spec; the result may share parts of in.
func planSpec(in *specInput) (*specs.Spec, error) {
	devices, rules, err := planDevices(in)
	if err != nil {
		return nil, err
	}
	s := &specs.Spec{
		Version:     specs.Version,
		Hostname:    in.Hostname,
		Process:     planProcess(in),
		Root:        &specs.Root{Readonly: in.Host.ReadonlyRootfs},
		Mounts:      planSpecMounts(in),
		Annotations: in.Host.Annotations,
		Linux: &specs.Linux{
			Namespaces:    planNamespaces(in),
			CgroupsPath:   cgroupsPath(in),
			Sysctl:        containerSysctls(in.Host),
			Devices:       devices,
			Seccomp:       in.Seccomp,
			MaskedPaths:   in.Host.MaskedPaths,
			ReadonlyPaths: in.Host.ReadonlyPaths,
		},
	}
	if s.Linux.Resources, err = planResources(&in.Host.Resources, in.BlockDevices); err != nil {
		return nil, err
	}
	s.Linux.Resources.Devices = rules
	if in.Config.Domainname != "" && in.Hostname != "" {
		s.Domainname = in.Config.Domainname
	}
	switch {
	case in.Shared:
		s.Linux.RootfsPropagation = "shared"
	case in.Slave:
		s.Linux.RootfsPropagation = "rslave"
	}
	return s, nil
}

// cgroupsPath is below the user's parent, or the daemon's.
func cgroupsPath(in *specInput) string {
	parent := in.Host.CgroupParent
	setDefault(&parent, in.Daemon.CgroupParent)
	return path.Join("/", parent, in.ID)
}

func planProcess(in *specInput) *specs.Process {
	p := &specs.Process{
		Terminal:        in.Config.Tty,
		Args:            slices.Concat(in.Config.Entrypoint, in.Config.Cmd),
		Cwd:             in.Config.WorkingDir,
		Env:             planEnv(in.Config, in.Host, in.Hostname, in.Account.home),
		User:            in.Account.user(in.Host.Umask),
		Capabilities:    processCapabilities(in.Caps, in.Account.uid),
		NoNewPrivileges: in.Sec.noNewPrivileges,
		Rlimits:         planRlimits(in.Host.Ulimits, in.Daemon.Ulimits, in.Facts),
		ApparmorProfile: planAppArmor(in),
		OOMScoreAdj:     planOOMScore(in.Host.OomScoreAdj, in.Facts),
	}
	setDefault(&p.Cwd, "/")
	p.Cwd = path.Clean(p.Cwd)
	if in.ServeInit != "" {
		p.Args = slices.Concat([]string{initInside, "--"}, p.Args)
	}
	if size := in.Host.ConsoleSize; in.Config.Tty && size[0] > 0 && size[1] > 0 {
		p.ConsoleSize = &specs.Box{Height: size[0], Width: size[1]}
	}
	return p
}

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// planEnv puts Docker's variables before the container's own, which win. A
// variable without "=" takes one away.
func planEnv(c *container.Config, h *container.HostConfig, hostname, home string) []string {
	env := []string{defaultPath}
	if hostname == "" {
		hostname = c.Hostname
	}
	if hostname != "" {
		env = append(env, "HOSTNAME="+hostname)
	}
	if c.Tty {
		env = append(env, "TERM=xterm")
	}
	env = replaceEnv(env, c.Env)
	if home != "" && !slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, "HOME=") }) {
		env = append(env, "HOME="+home)
	}
	return env
}

// replaceEnv sets and removes variables of base.
func replaceEnv(base, over []string) []string {
	at := make(map[string]int, len(base)+len(over))
	env := make([]string, 0, len(base)+len(over))
	for _, e := range slices.Concat(base, over) {
		k, _, set := strings.Cut(e, "=")
		i, known := at[k]
		switch {
		case known && set:
			env[i] = e
		case known:
			env[i] = ""
			delete(at, k)
		case set:
			at[k] = len(env)
			env = append(env, e)
		}
	}
	return slices.DeleteFunc(env, func(e string) bool { return e == "" })
}

// planRlimits puts the user's limits over the daemon's defaults, and keeps
// within what the daemon can give.
func planRlimits(user []*container.Ulimit, defaults map[string]Ulimit, f *Facts) []specs.POSIXRlimit {
	want := map[string]Ulimit{}
	for n, u := range defaults {
		want[n] = u
	}
	for _, u := range user {
		want[u.Name] = Ulimit{Soft: u.Soft, Hard: u.Hard}
	}
	var out []specs.POSIXRlimit
	for n, u := range want {
		soft, hard := uint64(u.Soft), uint64(u.Hard) // -1 is RLIM_INFINITY
		if top, ok := f.Limits[n]; ok && !f.CanRaiseLimits {
			soft, hard = min(soft, top), min(hard, top)
		}
		out = append(out, specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(n), Soft: soft, Hard: hard})
	}
	slices.SortFunc(out, func(a, b specs.POSIXRlimit) int { return strings.Compare(a.Type, b.Type) })
	return out
}

func planOOMScore(adj int, f *Facts) *int {
	if !f.CanRaiseLimits {
		adj = max(adj, f.OOMScoreAdj)
	}
	return &adj
}

// planAppArmor names a profile where the kernel has AppArmor. Only what the
// user names is applied: profiles are the host administrator's to load.
func planAppArmor(in *specInput) string {
	if !in.Facts.AppArmor || in.Sec.apparmor == "unconfined" || in.Host.Privileged && in.Sec.apparmor == "" {
		return ""
	}
	return in.Sec.apparmor
}
