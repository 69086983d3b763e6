package container

import (
	"maps"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

// planNamespaces lists the namespaces: one that is not listed is the host's.
func planNamespaces(in *specInput) []specs.LinuxNamespace {
	ns := []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	if in.NetPath != "" {
		ns = append(ns, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: in.NetPath})
	}
	if !in.Host.UTSMode.IsHost() {
		ns = append(ns, specs.LinuxNamespace{Type: specs.UTSNamespace})
	}
	if !in.Host.PidMode.IsHost() {
		ns = append(ns, specs.LinuxNamespace{Type: specs.PIDNamespace, Path: in.PIDPath})
	}
	if !in.Host.IpcMode.IsHost() {
		ns = append(ns, specs.LinuxNamespace{Type: specs.IPCNamespace, Path: in.IPCPath})
	}
	if in.Host.CgroupnsMode.IsPrivate() {
		ns = append(ns, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	return ns
}

// networkSysctls are those of the net. subtree, which the network writes.
// Docker's defaults let anybody use low ports and ping in a container of its own.
func networkSysctls(h *container.HostConfig) map[string]string {
	m := map[string]string{
		"net.ipv4.ip_unprivileged_port_start": "0",
		"net.ipv4.ping_group_range":           "0 2147483647",
	}
	for k, v := range h.Sysctls {
		if k = cleanSysctl(k); strings.HasPrefix(k, "net.") {
			m[k] = v
		}
	}
	return m
}

// containerSysctls are the others.
func containerSysctls(h *container.HostConfig) map[string]string {
	var m map[string]string
	for k, v := range h.Sysctls {
		if k = cleanSysctl(k); !strings.HasPrefix(k, "net.") {
			if m == nil {
				m = map[string]string{}
			}
			m[k] = v
		}
	}
	return m
}

func cleanSysctl(k string) string { return strings.ReplaceAll(strings.TrimSpace(k), "/", ".") }

// validateSysctls lets only settings pass that belong to a namespace which the
// container has to itself.
func validateSysctls(h *container.HostConfig) error {
	ipc := []string{
		"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax",
		"kernel.shmmni", "kernel.shm_rmid_forced",
	}
	for _, raw := range slices.Sorted(maps.Keys(h.Sysctls)) {
		k := cleanSysctl(raw)
		if strings.Contains(k, "..") || strings.ContainsRune(k, 0) {
			return errdefs.Invalidf("sysctl '%s' is not whitelisted", raw)
		}
		switch {
		case strings.HasPrefix(k, "net."):
			if h.NetworkMode.IsHost() {
				return errdefs.Invalidf("sysctl '%s' not allowed in host network namespace", raw)
			}
			if h.NetworkMode.IsContainer() {
				return errdefs.Invalidf("sysctl '%s' not allowed in the network namespace of another container", raw)
			}
		case slices.Contains(ipc, k) || strings.HasPrefix(k, "fs.mqueue."):
			if h.IpcMode.IsHost() {
				return errdefs.Invalidf("sysctl '%s' not allowed in host ipc namespace", raw)
			}
			if h.IpcMode.IsContainer() {
				return errdefs.Invalidf("sysctl '%s' not allowed in the ipc namespace of another container", raw)
			}
		case k == "kernel.domainname" || k == "kernel.hostname":
			return errdefs.Invalidf("sysctl '%s' is set by the options --hostname and --domainname", raw)
		default:
			return errdefs.Invalidf("sysctl '%s' is not whitelisted", raw)
		}
	}
	return nil
}
