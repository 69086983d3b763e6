package container

import (
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/sys/signal"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

// completeHost fills in the defaults of a host configuration. It works on a
// copy that the caller owns.
func completeHost(h *container.HostConfig, d *Config, f *Facts) {
	if h.NetworkMode == "" || h.NetworkMode.IsDefault() {
		h.NetworkMode = "bridge"
	}
	setDefault(&h.RestartPolicy.Name, container.RestartPolicyDisabled)
	setDefault(&h.Runtime, d.DefaultRuntime)
	setDefault(&h.IpcMode, container.IpcMode(d.IpcMode))
	if h.ShmSize == 0 && !h.IpcMode.IsHost() && !h.IpcMode.IsContainer() {
		h.ShmSize = d.ShmSize
	}
	if h.CgroupnsMode == "" {
		h.CgroupnsMode = container.CgroupnsMode(d.CgroupnsMode)
		if h.CgroupnsMode == "" && f.Cgroup2 && !h.Privileged {
			h.CgroupnsMode = container.CgroupnsModePrivate
		}
		setDefault(&h.CgroupnsMode, container.CgroupnsModeHost)
	}
	setDefault(&h.LogConfig.Type, d.LogDriver)
	if len(h.LogConfig.Config) == 0 && h.LogConfig.Type == d.LogDriver {
		h.LogConfig.Config = maps.Clone(d.LogOptions)
	}
	if h.LogConfig.Config == nil {
		h.LogConfig.Config = map[string]string{}
	}
	if h.Memory > 0 && h.MemorySwap == 0 {
		h.MemorySwap = 2 * h.Memory
	}
	if h.Init == nil && d.Init {
		on := true
		h.Init = &on
	}
	if h.MaskedPaths == nil && !h.Privileged {
		h.MaskedPaths = defaultMaskedPaths()
	}
	if h.ReadonlyPaths == nil && !h.Privileged {
		h.ReadonlyPaths = defaultReadonlyPaths()
	}
}

// validateConfig refuses a merged configuration that cannot run.
func validateConfig(c *container.Config) error {
	for _, e := range c.Env {
		if k, _, _ := strings.Cut(e, "="); k == "" {
			return errdefs.Invalidf("invalid environment variable: %s", e)
		}
		if strings.ContainsRune(e, 0) {
			return errdefs.Invalidf("invalid environment variable: %q contains a NUL", e)
		}
	}
	for _, a := range slices.Concat(c.Entrypoint, c.Cmd) {
		if strings.ContainsRune(a, 0) {
			return errdefs.Invalidf("invalid argument: %q contains a NUL", a)
		}
	}
	if c.WorkingDir != "" && !path.IsAbs(c.WorkingDir) {
		return errdefs.Invalidf("the working directory '%s' is invalid, it needs to be an absolute path", c.WorkingDir)
	}
	if len(c.Hostname) > 64 || strings.ContainsAny(c.Hostname, "/\x00\n ") {
		return errdefs.Invalidf("invalid hostname format: %s", c.Hostname)
	}
	if len(c.Domainname) > 64 || strings.ContainsAny(c.Domainname, "/\x00\n ") {
		return errdefs.Invalidf("invalid domainname format: %s", c.Domainname)
	}
	if c.StopSignal != "" {
		if _, err := signal.ParseSignal(c.StopSignal); err != nil {
			return errdefs.As(errdefs.ErrInvalidArgument, err)
		}
	}
	for v := range c.Volumes {
		if err := validateDestination(v, v); err != nil {
			return err
		}
	}
	return validateHealth(c.Healthcheck)
}

func validateHealth(h *container.HealthConfig) error {
	if h == nil {
		return nil
	}
	if len(h.Test) > 0 && !slices.Contains([]string{"NONE", "CMD", "CMD-SHELL", ""}, h.Test[0]) {
		return errdefs.Invalidf("Unknown type '%s' in HEALTHCHECK (try CMD)", h.Test[0])
	}
	for _, d := range []struct {
		name string
		v    time.Duration
	}{{"Interval", h.Interval}, {"Timeout", h.Timeout}, {"StartPeriod", h.StartPeriod}, {"StartInterval", h.StartInterval}} {
		if d.v != 0 && d.v < container.MinimumDuration {
			return errdefs.Invalidf("%s in Healthcheck cannot be less than %s", d.name, container.MinimumDuration)
		}
	}
	if h.Retries < 0 {
		return errdefs.Invalidf("Retries in Healthcheck cannot be negative")
	}
	return nil
}

// validateHost refuses a host configuration that is malformed or contradicts
// itself; warnings say what this machine cannot do and is left out. h is
// complete, see completeHost.
func validateHost(c *container.Config, h *container.HostConfig, d *Config, f *Facts) (warnings []string, err error) {
	if err := container.ValidateRestartPolicy(h.RestartPolicy); err != nil {
		return nil, errdefs.As(errdefs.ErrInvalidArgument, err)
	}
	if h.AutoRemove && !h.RestartPolicy.IsNone() {
		return nil, errdefs.Invalidf("can't create 'AutoRemove' container with restart policy")
	}
	if _, ok := h.Annotations[""]; ok {
		return nil, errdefs.Invalidf("invalid Annotations: the empty string is not permitted as an annotation key")
	}
	if _, _, err := d.runtimeProgram(h.Runtime); err != nil {
		return nil, err
	}
	if h.Init != nil && *h.Init && d.InitPath == "" {
		return nil, errdefs.WithHint(errdefs.Invalidf("this daemon has no init program: it is configured without one"),
			"set containers.initPath in the daemon's configuration, or leave --init away")
	}
	if len(h.StorageOpt) > 0 {
		return nil, errdefs.Invalidf("--storage-opt is not supported by this storage driver")
	}
	for _, check := range []func(*container.Config, *container.HostConfig) error{
		validateModes, validateNetworking, validateDevices,
	} {
		if err := check(c, h); err != nil {
			return nil, err
		}
	}
	if _, err := planCapabilities(h, f); err != nil {
		return nil, err
	}
	if _, err := parseSecurity(h.SecurityOpt, d); err != nil {
		return nil, err
	}
	if err := validateSysctls(h); err != nil {
		return nil, err
	}
	if err := validateLog(h.LogConfig); err != nil {
		return nil, err
	}
	if h.OomScoreAdj < -1000 || h.OomScoreAdj > 1000 {
		return nil, errdefs.Invalidf("Invalid value %d, range for oom score adj is [-1000, 1000]", h.OomScoreAdj)
	}
	if h.ShmSize < 0 {
		return nil, errdefs.Invalidf("SHM size can not be less than 0")
	}
	warnings, err = validateResources(&h.Resources, f)
	if err != nil {
		return nil, err
	}
	if !f.CanRaiseLimits && h.OomScoreAdj < f.OOMScoreAdj {
		warnings = append(warnings, "Lowering the OOM score needs CAP_SYS_RESOURCE, which this daemon lacks. The adjustment is limited.")
	}
	if h.NetworkMode.IsHost() && (len(h.PortBindings) > 0 || h.PublishAllPorts) {
		warnings = append(warnings, "Published ports are discarded when using host network mode")
	}
	return warnings, nil
}

func validateModes(c *container.Config, h *container.HostConfig) error {
	switch {
	case !h.IpcMode.Valid():
		return errdefs.Invalidf("invalid IPC mode: %v", h.IpcMode)
	case !h.PidMode.Valid():
		return errdefs.Invalidf("invalid PID mode: %v", h.PidMode)
	case !h.UTSMode.Valid():
		return errdefs.Invalidf("invalid UTS mode: %v", h.UTSMode)
	case !h.UsernsMode.Valid():
		return errdefs.Invalidf("invalid user namespace mode: %v", h.UsernsMode)
	case !h.CgroupnsMode.Valid():
		return errdefs.Invalidf("invalid cgroup namespace mode: %v", h.CgroupnsMode)
	case h.Cgroup != "":
		return errdefs.Invalidf("invalid cgroup spec: %v: joining another container's cgroup is not supported", h.Cgroup)
	case h.UTSMode.IsHost() && c.Hostname != "":
		return errdefs.Invalidf("conflicting options: hostname and the UTS mode")
	case h.IpcMode.IsContainer() && h.IpcMode.Container() == "":
		return errdefs.Invalidf("invalid IPC mode: %v", h.IpcMode)
	case !h.Isolation.IsValid():
		return errdefs.Invalidf("invalid isolation '%s' on linux", h.Isolation)
	}
	return nil
}

func validateNetworking(c *container.Config, h *container.HostConfig) error {
	m := h.NetworkMode
	for _, host := range h.ExtraHosts {
		if name, addr, ok := strings.Cut(host, ":"); !ok || name == "" || addr == "" {
			return errdefs.Invalidf("bad format for add-host: %q", host)
		}
	}
	for port := range h.PortBindings {
		if !port.IsValid() || port.Num() == 0 {
			return errdefs.Invalidf("invalid port specification: %q", port.String())
		}
	}
	if m.IsHost() && len(h.Links) > 0 {
		return errdefs.Invalidf("conflicting options: host type networking can't be used with links. This would result in undefined behavior")
	}
	if !m.IsContainer() {
		return nil
	}
	switch {
	case m.ConnectedContainer() == "":
		return errdefs.Invalidf("Invalid network mode: invalid container format container:<name|id>")
	case c.Hostname != "":
		return errdefs.Invalidf("conflicting options: hostname and the network mode")
	case len(h.Links) > 0:
		return errdefs.Invalidf("conflicting options: container type network can't be used with links. This would result in undefined behavior")
	case len(h.DNS) > 0:
		return errdefs.Invalidf("conflicting options: dns and the network mode")
	case len(h.ExtraHosts) > 0:
		return errdefs.Invalidf("conflicting options: custom host-to-IP mapping and the network mode")
	case len(h.PortBindings) > 0 || h.PublishAllPorts:
		return errdefs.Invalidf("conflicting options: port publishing and the container type network mode")
	case len(c.ExposedPorts) > 0:
		return errdefs.Invalidf("conflicting options: port exposing and the container type network mode")
	}
	return nil
}

func validateDevices(_ *container.Config, h *container.HostConfig) error {
	for _, r := range h.DeviceRequests {
		return errdefs.WithHint(errdefs.Invalidf("could not select device driver %q with capabilities: %v", r.Driver, r.Capabilities),
			"this engine has no device drivers; pass device files with --device")
	}
	for _, d := range h.Devices {
		if d.PathOnHost == "" {
			return errdefs.Invalidf("invalid device specification: the path on the host is empty")
		}
		if strings.Trim(d.CgroupPermissions, "rwm") != "" {
			return errdefs.Invalidf("invalid device mode: %s", d.CgroupPermissions)
		}
	}
	for _, r := range h.DeviceCgroupRules {
		if _, err := parseDeviceRule(r); err != nil {
			return err
		}
	}
	return nil
}

// validateLog checks driver and options by name; values are the driver's.
func validateLog(l container.LogConfig) error {
	known := []string{"max-size", "max-file", "compress", "labels", "labels-regex", "env", "env-regex", "tag", "mode", "max-buffer-size"}
	switch l.Type {
	case "local", "json-file":
	case "none":
		known = append(known, "mode")
	default:
		return errdefs.Invalidf("logger: no log driver named '%s' is registered", l.Type)
	}
	for _, k := range slices.Sorted(maps.Keys(l.Config)) {
		if !slices.Contains(known, k) {
			return errdefs.Invalidf("unknown log opt '%s' for %s log driver", k, l.Type)
		}
	}
	return nil
}
