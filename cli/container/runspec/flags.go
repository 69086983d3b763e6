// Package runspec turns the flags of run and create into a create request of
// the Docker API, with docker's meaning for every flag.
//
// Flags collects values while the command line is parsed; Plan then makes the
// request. Plan reads the files that flags name (env files, label files,
// seccomp profiles) through the FileReader it is given, and touches nothing else.
package runspec

import (
	"net"
	"os"
	"regexp"
	"time"

	"github.com/docker/cli/opts"
	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"
)

// Flags are the values of the flags that end up in the request.
type Flags struct {
	attach, env, envFile, labels, labelFiles, groupAdd                opts.ListOpts
	volumes, volumesFrom, tmpfs                                       opts.ListOpts
	publish, expose, dns, dnsSearch, dnsOptions, extraHosts           opts.ListOpts
	links, aliases, linkLocalIPs                                      opts.ListOpts
	capAdd, capDrop, securityOpt, storageOpt, logOpt                  opts.ListOpts
	devices, deviceCgroupRules                                        opts.ListOpts
	mounts                                                            opts.MountOpt
	network                                                           opts.NetworkOpt
	gpus                                                              opts.GpuOpts
	sysctls, annotations                                              *opts.MapOpts
	ulimits                                                           *opts.UlimitOpt
	umask                                                             opts.UmaskOpt
	blkioWeightDevice                                                 opts.WeightdeviceOpt
	readBps, writeBps, readIOps, writeIOps                            opts.ThrottledeviceOpt
	memory, memoryReservation, shmSize, ioMaxBandwidth, kernelMemory  opts.MemBytes
	memorySwap                                                        opts.MemSwapBytes
	cpus                                                              opts.NanoCPUs
	swappiness, pidsLimit                                             int64
	cpuShares, cpuPeriod, cpuQuota, cpuRtPeriod, cpuRtRuntime         int64
	cpuCount, cpuPercent                                              int64
	blkioWeight                                                       uint16
	ioMaxIOps                                                         uint64
	oomScoreAdj, stopTimeout, healthRetries                           int
	stdin, tty, autoRemove, privileged, publishAll, readOnly          bool
	oomKillDisable, initProcess, noHealthcheck                        bool
	entrypoint, hostname, domainname, user, workdir                   string
	restart, stopSignal, cidFile, logDriver, volumeDriver, runtime    string
	pid, uts, userns, cgroupns, ipc, cgroupParent, isolation, mac     string
	cpusetCpus, cpusetMems, healthCmd                                 string
	healthInterval, healthTimeout, healthStartPeriod, healthStartIntv time.Duration
	ip4, ip6                                                          net.IP

	set *pflag.FlagSet
}

// Add defines the flags on fs.
func Add(fs *pflag.FlagSet) *Flags {
	f := &Flags{
		attach:            opts.NewListOpts(validStream),
		env:               opts.NewListOpts(opts.ValidateEnv),
		envFile:           opts.NewListOpts(nil),
		labels:            opts.NewListOpts(opts.ValidateLabel),
		labelFiles:        opts.NewListOpts(nil),
		groupAdd:          opts.NewListOpts(nil),
		volumes:           opts.NewListOpts(nil),
		volumesFrom:       opts.NewListOpts(nil),
		tmpfs:             opts.NewListOpts(nil),
		publish:           opts.NewListOpts(nil),
		expose:            opts.NewListOpts(nil),
		dns:               opts.NewListOpts(opts.ValidateIPAddress),
		dnsSearch:         opts.NewListOpts(opts.ValidateDNSSearch),
		dnsOptions:        opts.NewListOpts(nil),
		extraHosts:        opts.NewListOpts(opts.ValidateExtraHost),
		links:             opts.NewListOpts(opts.ValidateLink),
		aliases:           opts.NewListOpts(nil),
		linkLocalIPs:      opts.NewListOpts(nil),
		capAdd:            opts.NewListOpts(nil),
		capDrop:           opts.NewListOpts(nil),
		securityOpt:       opts.NewListOpts(nil),
		storageOpt:        opts.NewListOpts(nil),
		logOpt:            opts.NewListOpts(nil),
		devices:           opts.NewListOpts(nil),
		deviceCgroupRules: opts.NewListOpts(validDeviceRule),
		sysctls:           opts.NewMapOpts(nil, opts.ValidateSysctl),
		annotations:       opts.NewMapOpts(nil, nil),
		ulimits:           opts.NewUlimitOpt(nil),
		blkioWeightDevice: opts.NewWeightdeviceOpt(opts.ValidateWeightDevice),
		readBps:           opts.NewThrottledeviceOpt(opts.ValidateThrottleBpsDevice),
		writeBps:          opts.NewThrottledeviceOpt(opts.ValidateThrottleBpsDevice),
		readIOps:          opts.NewThrottledeviceOpt(opts.ValidateThrottleIOpsDevice),
		writeIOps:         opts.NewThrottledeviceOpt(opts.ValidateThrottleIOpsDevice),
		set:               fs,
	}
	f.addProcess(fs)
	f.addSecurity(fs)
	f.addNetwork(fs)
	f.addStorage(fs)
	f.addHealth(fs)
	f.addResources(fs)
	f.addNamespaces(fs)
	return f
}

func (f *Flags) addProcess(fs *pflag.FlagSet) {
	fs.VarP(&f.attach, "attach", "a", "Attach to STDIN, STDOUT or STDERR")
	fs.VarP(&f.env, "env", "e", "Set environment variables (NAME=VALUE, or NAME to pass one on)")
	fs.Var(&f.envFile, "env-file", "Read in a file of environment variables")
	fs.StringVar(&f.entrypoint, "entrypoint", "", "Overwrite the default ENTRYPOINT of the image")
	fs.Var(&f.groupAdd, "group-add", "Add additional groups to join")
	fs.StringVarP(&f.hostname, "hostname", "h", "", "Container host name")
	fs.StringVar(&f.domainname, "domainname", "", "Container NIS domain name")
	fs.BoolVarP(&f.stdin, "interactive", "i", false, "Keep STDIN open even if not attached")
	fs.VarP(&f.labels, "label", "l", "Set meta data on a container")
	fs.Var(&f.labelFiles, "label-file", "Read in a line delimited file of labels")
	fs.StringVar(&f.restart, "restart", "no", `Restart policy when the container exits: "no", "on-failure[:MAX]", "always", "unless-stopped"`)
	fs.StringVar(&f.stopSignal, "stop-signal", "", "Signal to stop the container")
	fs.IntVar(&f.stopTimeout, "stop-timeout", 0, "Timeout (in seconds) to stop a container")
	fs.BoolVarP(&f.tty, "tty", "t", false, "Allocate a pseudo-TTY")
	fs.StringVarP(&f.user, "user", "u", "", "Username or UID (format: <name|uid>[:<group|gid>])")
	fs.StringVarP(&f.workdir, "workdir", "w", "", "Working directory inside the container")
	fs.BoolVar(&f.autoRemove, "rm", false, "Remove the container and its anonymous volumes when it exits")
	fs.BoolVar(&f.initProcess, "init", false, "Run an init inside the container that forwards signals and reaps processes")
	fs.StringVar(&f.cidFile, "cidfile", "", "Write the container ID to the file")
	fs.Var(&f.umask, "umask", "Set umask for the container")
	fs.Var(f.annotations, "annotation", "Add an annotation to the container (passed through to the OCI runtime)")
}

func (f *Flags) addSecurity(fs *pflag.FlagSet) {
	fs.Var(&f.capAdd, "cap-add", "Add Linux capabilities")
	fs.Var(&f.capDrop, "cap-drop", "Drop Linux capabilities")
	fs.BoolVar(&f.privileged, "privileged", false, "Give extended privileges to this container")
	fs.Var(&f.securityOpt, "security-opt", "Security options (seccomp=FILE|unconfined, no-new-privileges, apparmor=, label=, systempaths=unconfined)")
	fs.BoolVar(&f.readOnly, "read-only", false, "Mount the container's root filesystem as read only")
	fs.Var(f.sysctls, "sysctl", "Sysctl options")
	fs.Var(&f.devices, "device", "Add a host device to the container")
	fs.Var(&f.deviceCgroupRules, "device-cgroup-rule", "Add a rule to the cgroup allowed devices list")
	fs.Var(&f.gpus, "gpus", "GPU devices to add to the container ('all' to pass all GPUs)")
}

func (f *Flags) addNetwork(fs *pflag.FlagSet) {
	fs.Var(&f.extraHosts, "add-host", "Add a custom host-to-IP mapping (host:ip)")
	fs.Var(&f.dns, "dns", "Set custom DNS servers")
	fs.Var(&f.dnsOptions, "dns-option", "Set DNS options")
	fs.Var(&f.dnsOptions, "dns-opt", "Set DNS options")
	fs.Var(&f.dnsSearch, "dns-search", "Set custom DNS search domains")
	fs.Var(&f.expose, "expose", "Expose a port or a range of ports")
	fs.IPVar(&f.ip4, "ip", nil, "IPv4 address (e.g., 172.30.100.104)")
	fs.IPVar(&f.ip6, "ip6", nil, "IPv6 address (e.g., 2001:db8::33)")
	fs.Var(&f.links, "link", "Add link to another container")
	fs.Var(&f.linkLocalIPs, "link-local-ip", "Container IPv4/IPv6 link-local addresses")
	fs.StringVar(&f.mac, "mac-address", "", "Container MAC address (e.g., 92:d0:c6:0a:29:33)")
	fs.VarP(&f.publish, "publish", "p", "Publish a container's port(s) to the host ([[IP:]HOSTPORT:]PORT[/PROTOCOL])")
	fs.BoolVarP(&f.publishAll, "publish-all", "P", false, "Publish all exposed ports to random ports")
	fs.Var(&f.network, "network", "Connect a container to a network (NAME, or name=NAME,ip=..,alias=..)")
	fs.Var(&f.network, "net", "Connect a container to a network")
	fs.Var(&f.aliases, "network-alias", "Add network-scoped alias for the container")
	fs.Var(&f.aliases, "net-alias", "Add network-scoped alias for the container")
	hide(fs, "dns-opt", "net", "net-alias")
}

func (f *Flags) addStorage(fs *pflag.FlagSet) {
	fs.StringVar(&f.logDriver, "log-driver", "", "Logging driver for the container")
	fs.Var(&f.logOpt, "log-opt", "Log driver options")
	fs.StringVar(&f.volumeDriver, "volume-driver", "", "Optional volume driver for the container")
	fs.Var(&f.storageOpt, "storage-opt", "Storage driver options for the container")
	fs.Var(&f.tmpfs, "tmpfs", "Mount a tmpfs directory")
	fs.Var(&f.volumesFrom, "volumes-from", "Mount volumes from the specified container(s)")
	fs.VarP(&f.volumes, "volume", "v", "Mount a volume or a host folder ([SOURCE:]PATH[:OPTIONS])")
	fs.Var(&f.mounts, "mount", "Attach a filesystem mount to the container (type=bind|volume|tmpfs|image,source=..,target=..)")
}

func (f *Flags) addHealth(fs *pflag.FlagSet) {
	fs.StringVar(&f.healthCmd, "health-cmd", "", "Command to run to check health")
	fs.DurationVar(&f.healthInterval, "health-interval", 0, "Time between running the check (ms|s|m|h) (default 0s)")
	fs.IntVar(&f.healthRetries, "health-retries", 0, "Consecutive failures needed to report unhealthy")
	fs.DurationVar(&f.healthTimeout, "health-timeout", 0, "Maximum time to allow one check to run (ms|s|m|h) (default 0s)")
	fs.DurationVar(&f.healthStartPeriod, "health-start-period", 0, "Time for the container to start before failures count (ms|s|m|h) (default 0s)")
	fs.DurationVar(&f.healthStartIntv, "health-start-interval", 0, "Time between checks during the start period (ms|s|m|h) (default 0s)")
	fs.BoolVar(&f.noHealthcheck, "no-healthcheck", false, "Disable any container-specified HEALTHCHECK")
}

func (f *Flags) addResources(fs *pflag.FlagSet) {
	fs.Uint16Var(&f.blkioWeight, "blkio-weight", 0, "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)")
	fs.Var(&f.blkioWeightDevice, "blkio-weight-device", "Block IO weight (relative device weight)")
	fs.StringVar(&f.cpusetCpus, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	fs.StringVar(&f.cpusetMems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
	fs.Int64Var(&f.cpuCount, "cpu-count", 0, "CPU count (Windows only)")
	fs.Int64Var(&f.cpuPercent, "cpu-percent", 0, "CPU percent (Windows only)")
	fs.Int64Var(&f.cpuPeriod, "cpu-period", 0, "Limit CPU CFS (Completely Fair Scheduler) period")
	fs.Int64Var(&f.cpuQuota, "cpu-quota", 0, "Limit CPU CFS (Completely Fair Scheduler) quota")
	fs.Int64Var(&f.cpuRtPeriod, "cpu-rt-period", 0, "Limit CPU real-time period in microseconds")
	fs.Int64Var(&f.cpuRtRuntime, "cpu-rt-runtime", 0, "Limit CPU real-time runtime in microseconds")
	fs.Int64VarP(&f.cpuShares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	fs.Var(&f.cpus, "cpus", "Number of CPUs")
	fs.Var(&f.readBps, "device-read-bps", "Limit read rate (bytes per second) from a device")
	fs.Var(&f.readIOps, "device-read-iops", "Limit read rate (IO per second) from a device")
	fs.Var(&f.writeBps, "device-write-bps", "Limit write rate (bytes per second) to a device")
	fs.Var(&f.writeIOps, "device-write-iops", "Limit write rate (IO per second) to a device")
	fs.Var(&f.ioMaxBandwidth, "io-maxbandwidth", "Maximum IO bandwidth limit for the system drive (Windows only)")
	fs.Uint64Var(&f.ioMaxIOps, "io-maxiops", 0, "Maximum IOps limit for the system drive (Windows only)")
	fs.VarP(&f.memory, "memory", "m", "Memory limit")
	fs.Var(&f.memoryReservation, "memory-reservation", "Memory soft limit")
	fs.Var(&f.memorySwap, "memory-swap", "Swap limit equal to memory plus swap: '-1' to enable unlimited swap")
	fs.Int64Var(&f.swappiness, "memory-swappiness", -1, "Tune container memory swappiness (0 to 100)")
	fs.Var(&f.kernelMemory, "kernel-memory", "Kernel memory limit (no longer supported by kernels)")
	fs.BoolVar(&f.oomKillDisable, "oom-kill-disable", false, "Disable OOM Killer")
	fs.IntVar(&f.oomScoreAdj, "oom-score-adj", 0, "Tune host's OOM preferences (-1000 to 1000)")
	fs.Int64Var(&f.pidsLimit, "pids-limit", 0, "Tune container pids limit (set -1 for unlimited)")
	fs.Var(f.ulimits, "ulimit", "Ulimit options")
	fs.Var(&f.shmSize, "shm-size", "Size of /dev/shm")
	hide(fs, "cpu-count", "cpu-percent", "io-maxbandwidth", "io-maxiops", "kernel-memory")
}

func (f *Flags) addNamespaces(fs *pflag.FlagSet) {
	fs.StringVar(&f.cgroupParent, "cgroup-parent", "", "Optional parent cgroup for the container")
	fs.StringVar(&f.cgroupns, "cgroupns", "", "Cgroup namespace to use (host|private; default: the daemon's)")
	fs.StringVar(&f.ipc, "ipc", "", "IPC mode to use")
	fs.StringVar(&f.isolation, "isolation", "", "Container isolation technology (Windows only)")
	fs.StringVar(&f.pid, "pid", "", "PID namespace to use")
	fs.StringVar(&f.uts, "uts", "", "UTS namespace to use")
	fs.StringVar(&f.userns, "userns", "", "User namespace to use")
	fs.StringVar(&f.runtime, "runtime", "", "Runtime to use for this container")
	hide(fs, "isolation")
}

func hide(fs *pflag.FlagSet, names ...string) {
	for _, n := range names {
		if fl := fs.Lookup(n); fl != nil {
			fl.Hidden = true
		}
	}
}

// AttachGiven says that -a was used.
func (f *Flags) AttachGiven() bool { return f.attach.Len() > 0 }

// AutoRemove says that --rm was used.
func (f *Flags) AutoRemove() bool { return f.autoRemove }

// CIDFile is the value of --cidfile.
func (f *Flags) CIDFile() string { return f.cidFile }

// AddProxyEnv adds the variables of a proxy configuration that -e does not set itself.
func (f *Flags) AddProxyEnv(vars map[string]string) error {
	given := opts.ConvertKVStringsToMap(f.env.GetSlice())
	for name, value := range vars {
		if _, ok := given[name]; ok {
			continue
		}
		if err := f.env.Set(name + "=" + value); err != nil {
			return err
		}
	}
	return nil
}

// FileReader is os.ReadFile, or a stand-in for it.
type FileReader func(path string) ([]byte, error)

// OSFiles reads the real files.
func OSFiles(path string) ([]byte, error) { return os.ReadFile(path) }

func validStream(v string) (string, error) {
	switch v {
	case "stdin", "STDIN", "Stdin":
		return "stdin", nil
	case "stdout", "STDOUT", "Stdout":
		return "stdout", nil
	case "stderr", "STDERR", "Stderr":
		return "stderr", nil
	}
	return v, errStreams
}

func validDeviceRule(v string) (string, error) {
	if !regexp.MustCompile(`^[acb] ([0-9]+|\*):([0-9]+|\*) [rwm]{1,3}$`).MatchString(v) {
		return v, errorf("invalid device cgroup format '%s'", v)
	}
	return v, nil
}

// modes are checked for their form only: whether a container exists is the daemon's matter.
func (f *Flags) checkModes() error {
	switch {
	case !container.PidMode(f.pid).Valid():
		return errorf("--pid: invalid PID mode")
	case !container.UTSMode(f.uts).Valid():
		return errorf("--uts: invalid UTS mode")
	case !container.UsernsMode(f.userns).Valid():
		return errorf("--userns: invalid USER mode")
	case !container.CgroupnsMode(f.cgroupns).Valid():
		return errorf("--cgroupns: invalid CGROUP mode")
	}
	return nil
}
