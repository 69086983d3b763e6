package runspec

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/docker/cli/opts"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

func errorf(format string, args ...any) error { return errdefs.Invalidf(format, args...) }

var errStreams = errorf("valid streams are STDIN, STDOUT and STDERR")

// Request is what is sent to the daemon.
type Request struct {
	Config     *container.Config
	HostConfig *container.HostConfig
	Networking *network.NetworkingConfig
}

// Plan makes the request for an image and its arguments.
func (f *Flags) Plan(image string, args []string, read FileReader) (Request, error) {
	var none Request
	if err := f.checkModes(); err != nil {
		return none, err
	}
	if f.swappiness != -1 && (f.swappiness < 0 || f.swappiness > 100) {
		return none, errorf("invalid value: %d. Valid memory swappiness range is 0-100", f.swappiness)
	}
	for _, m := range f.mounts.Value() {
		if m.Target == "" {
			return none, errorf("invalid argument for \"--mount\" flag: target is required")
		}
	}
	config, err := f.config(image, args)
	if err != nil {
		return none, err
	}
	host, err := f.hostConfig(read)
	if err != nil {
		return none, err
	}
	if config.Volumes, host.Binds, err = splitVolumes(f.volumes.GetSlice()); err != nil {
		return none, err
	}
	if config.ExposedPorts, host.PortBindings, err = f.ports(); err != nil {
		return none, err
	}
	endpoints, err := f.endpoints()
	if err != nil {
		return none, err
	}
	if f.autoRemove && !host.RestartPolicy.IsNone() {
		return none, errorf("conflicting options: cannot specify both --restart and --rm")
	}
	return Request{Config: config, HostConfig: host, Networking: &network.NetworkingConfig{EndpointsConfig: endpoints}}, nil
}

func (f *Flags) config(image string, args []string) (*container.Config, error) {
	env, err := opts.ReadKVEnvStrings(f.envFile.GetSlice(), f.env.GetSlice())
	if err != nil {
		return nil, errorf("--env-file: %w", err)
	}
	labels, err := opts.ReadKVStrings(f.labelFiles.GetSlice(), f.labels.GetSlice())
	if err != nil {
		return nil, errorf("--label-file: %w", err)
	}
	health, err := f.health()
	if err != nil {
		return nil, err
	}
	c := &container.Config{
		Hostname: f.hostname, Domainname: f.domainname, User: f.user, Tty: f.tty, OpenStdin: f.stdin,
		AttachStdin:  f.stdin || f.attach.Get("stdin"),
		AttachStdout: f.attach.Len() == 0 || f.attach.Get("stdout"),
		AttachStderr: f.attach.Len() == 0 || f.attach.Get("stderr"),
		Env:          env, Image: image, WorkingDir: f.workdir, StopSignal: f.stopSignal,
		Labels: opts.ConvertKVStringsToMap(labels), Healthcheck: health,
	}
	if len(args) > 0 {
		c.Cmd = args
	}
	switch {
	case f.entrypoint != "":
		c.Entrypoint = []string{f.entrypoint}
	case f.set.Changed("entrypoint"):
		c.Entrypoint = []string{""} // clears the image's
	}
	if f.set.Changed("stop-timeout") {
		c.StopTimeout = &f.stopTimeout
	}
	// Stdin of an attached session ends with the session.
	c.StdinOnce = c.OpenStdin && c.AttachStdin
	return c, nil
}

func (f *Flags) health() (*container.HealthConfig, error) {
	set := f.healthCmd != "" || f.healthRetries != 0 || f.healthInterval != 0 || f.healthTimeout != 0 ||
		f.healthStartPeriod != 0 || f.healthStartIntv != 0
	switch {
	case f.noHealthcheck && set:
		return nil, errorf("--no-healthcheck conflicts with --health-* options")
	case f.noHealthcheck:
		return &container.HealthConfig{Test: []string{"NONE"}}, nil
	case !set:
		return nil, nil
	case f.healthInterval < 0:
		return nil, errorf("--health-interval cannot be negative")
	case f.healthTimeout < 0:
		return nil, errorf("--health-timeout cannot be negative")
	case f.healthRetries < 0:
		return nil, errorf("--health-retries cannot be negative")
	case f.healthStartPeriod < 0:
		return nil, errorf("--health-start-period cannot be negative")
	case f.healthStartIntv < 0:
		return nil, errorf("--health-start-interval cannot be negative")
	}
	h := &container.HealthConfig{
		Interval: f.healthInterval, Timeout: f.healthTimeout, Retries: f.healthRetries,
		StartPeriod: f.healthStartPeriod, StartInterval: f.healthStartIntv,
	}
	if f.healthCmd != "" {
		h.Test = []string{"CMD-SHELL", f.healthCmd}
	}
	return h, nil
}

func (f *Flags) hostConfig(read FileReader) (*container.HostConfig, error) {
	restart, err := opts.ParseRestartPolicy(f.restart)
	if err != nil {
		return nil, errdefs.As(errdefs.ErrInvalidArgument, err)
	}
	if f.logDriver == "none" && f.logOpt.Len() > 0 {
		return nil, errorf("invalid logging opts for driver none")
	}
	security, unmasked, err := securityOptions(f.securityOpt.GetSlice(), read)
	if err != nil {
		return nil, err
	}
	storage := map[string]string{}
	for _, o := range f.storageOpt.GetSlice() {
		k, v, ok := strings.Cut(o, "=")
		if !ok {
			return nil, errorf("invalid storage option")
		}
		storage[k] = v
	}
	resources, err := f.resources()
	if err != nil {
		return nil, err
	}
	tmpfs := map[string]string{}
	for _, t := range f.tmpfs.GetSlice() {
		path, options, _ := strings.Cut(t, ":")
		tmpfs[path] = options
	}
	h := &container.HostConfig{
		ContainerIDFile: f.cidFile, OomScoreAdj: f.oomScoreAdj, AutoRemove: f.autoRemove, Privileged: f.privileged,
		Links: f.links.GetSlice(), PublishAllPorts: f.publishAll,
		// The three of DNS are lists also when empty, never null: old daemons need it.
		DNS: addresses(f.dns.GetAllOrEmpty()), DNSSearch: f.dnsSearch.GetAllOrEmpty(), DNSOptions: f.dnsOptions.GetAllOrEmpty(),
		ExtraHosts: f.extraHosts.GetSlice(), VolumesFrom: f.volumesFrom.GetSlice(),
		IpcMode: container.IpcMode(f.ipc), NetworkMode: container.NetworkMode(f.network.NetworkMode()),
		PidMode: container.PidMode(f.pid), UTSMode: container.UTSMode(f.uts), UsernsMode: container.UsernsMode(f.userns),
		CgroupnsMode: container.CgroupnsMode(f.cgroupns), CapAdd: f.capAdd.GetSlice(), CapDrop: f.capDrop.GetSlice(),
		GroupAdd: f.groupAdd.GetSlice(), RestartPolicy: restart, SecurityOpt: security, StorageOpt: storage,
		ReadonlyRootfs: f.readOnly, LogConfig: container.LogConfig{Type: f.logDriver, Config: opts.ConvertKVStringsToMap(f.logOpt.GetSlice())},
		VolumeDriver: f.volumeDriver, Isolation: container.Isolation(f.isolation), ShmSize: f.shmSize.Value(),
		Resources: resources, Tmpfs: tmpfs, Sysctls: f.sysctls.GetAll(), Runtime: f.runtime, Mounts: f.mounts.Value(),
		Annotations: f.annotations.GetAll(), Umask: f.umask.Value(),
	}
	if unmasked {
		h.MaskedPaths, h.ReadonlyPaths = []string{}, []string{}
	}
	if f.set.Changed("init") {
		h.Init = &f.initProcess
	}
	return h, nil
}

func (f *Flags) resources() (container.Resources, error) {
	devices, requests, err := deviceOptions(f.devices.GetSlice(), f.gpus.Value())
	if err != nil {
		return container.Resources{}, err
	}
	return container.Resources{
		CgroupParent: f.cgroupParent, Memory: f.memory.Value(), MemoryReservation: f.memoryReservation.Value(),
		MemorySwap: f.memorySwap.Value(), MemorySwappiness: &f.swappiness, OomKillDisable: &f.oomKillDisable,
		NanoCPUs: f.cpus.Value(), CPUCount: f.cpuCount, CPUPercent: f.cpuPercent, CPUShares: f.cpuShares,
		CPUPeriod: f.cpuPeriod, CPUQuota: f.cpuQuota, CpusetCpus: f.cpusetCpus, CpusetMems: f.cpusetMems,
		CPURealtimePeriod: f.cpuRtPeriod, CPURealtimeRuntime: f.cpuRtRuntime, PidsLimit: &f.pidsLimit,
		BlkioWeight: f.blkioWeight, BlkioWeightDevice: f.blkioWeightDevice.GetList(),
		BlkioDeviceReadBps: f.readBps.GetList(), BlkioDeviceWriteBps: f.writeBps.GetList(),
		BlkioDeviceReadIOps: f.readIOps.GetList(), BlkioDeviceWriteIOps: f.writeIOps.GetList(),
		IOMaximumIOps: f.ioMaxIOps, IOMaximumBandwidth: uint64(max(0, f.ioMaxBandwidth.Value())),
		Ulimits: f.ulimits.GetList(), DeviceCgroupRules: f.deviceCgroupRules.GetSlice(),
		Devices: devices, DeviceRequests: requests,
	}, nil
}

// securityOptions checks --security-opt. A seccomp profile in a file is sent as
// its content; systempaths=unconfined is for the client and is not sent.
func securityOptions(given []string, read FileReader) (out []string, unmasked bool, err error) {
	for _, o := range given {
		key, value, ok := strings.Cut(o, "=")
		if !ok && key != "no-new-privileges" {
			key, value, ok = strings.Cut(o, ":")
		}
		if (!ok || value == "") && key != "no-new-privileges" {
			return nil, false, errorf("invalid --security-opt: %q", o)
		}
		if o == "systempaths=unconfined" {
			unmasked = true
			continue
		}
		if key == "seccomp" && value != "unconfined" && value != "builtin" {
			profile, err := read(value)
			if err != nil {
				return nil, false, errorf("opening seccomp profile (%s) failed: %w", value, err)
			}
			var compact bytes.Buffer
			if err := json.Compact(&compact, profile); err != nil {
				return nil, false, errorf("compacting json for seccomp profile (%s) failed: %w", value, err)
			}
			o = "seccomp=" + compact.String()
		}
		out = append(out, o)
	}
	return out, unmasked, nil
}

// splitVolumes parts -v values: those with a source are binds (or named
// volumes), those without are anonymous volumes of the container's config.
// A source that begins with a dot is a path relative to where the user is.
func splitVolumes(given []string) (anonymous map[string]struct{}, binds []string, err error) {
	anonymous = map[string]struct{}{}
	seen := map[string]bool{}
	for _, v := range given {
		if seen[v] {
			continue
		}
		seen[v] = true
		source, err := volumeSource(v)
		if err != nil {
			return nil, nil, err
		}
		if source == "" {
			anonymous[v] = struct{}{}
			continue
		}
		if rest := v[len(source):]; strings.HasPrefix(source, ".") {
			if abs, err := filepath.Abs(source); err == nil {
				v = abs + rest
			}
		}
		binds = append(binds, v)
	}
	return anonymous, binds, nil
}

// volumeSource gives what stands before the path in the container, if anything.
// A drive letter belongs to the path that it begins.
func volumeSource(v string) (string, error) {
	if v == "" {
		return "", errorf("invalid empty volume spec")
	}
	if len(v) <= 2 {
		return "", nil
	}
	parts := splitColons(v)
	for _, p := range parts {
		if p == "" {
			return "", errorf("invalid spec: %s: empty section between colons", v)
		}
	}
	switch {
	case len(parts) == 1:
		return "", nil
	case len(parts) > 3:
		return "", errorf("invalid spec: %s: too many colons", v)
	}
	return parts[0], nil
}

func splitColons(v string) []string {
	parts := strings.Split(v, ":")
	var out []string
	for i := 0; i < len(parts); i++ {
		p := parts[i]
		if len(p) == 1 && isLetter(p[0]) && i+1 < len(parts) {
			i++
			p += ":" + parts[i]
		}
		out = append(out, p)
	}
	return out
}

func isLetter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

func addresses(given []string) []netip.Addr {
	var out []netip.Addr
	for _, s := range given {
		if a, err := netip.ParseAddr(s); err == nil {
			out = append(out, a) // flags that reach here were checked when they were parsed
		}
	}
	return out
}
