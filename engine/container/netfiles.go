package container

import (
	"errors"
	"maps"
	"os"
	"path/filepath"

	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/engine/network"
)

// Names of files in a container's folder that are mounted into it.
const (
	hostsFile    = "hosts"
	resolvFile   = "resolv.conf"
	hostnameFile = "hostname"
	logsDir      = "logs"
)

// sandboxRequest is what the record asks of the network. It is pure.
func sandboxRequest(rec *record) *network.SandboxRequest {
	h := rec.HostConfig
	r := &network.SandboxRequest{
		ID: rec.ID, Name: rec.Name, Hostname: rec.Config.Hostname, Domainname: rec.Config.Domainname,
		Endpoints: maps.Clone(rec.Endpoints), Ports: h.PortBindings, Exposed: rec.Config.ExposedPorts, PublishAll: h.PublishAllPorts,
		DNS: h.DNS, Search: h.DNSSearch, Options: h.DNSOptions, ExtraHosts: h.ExtraHosts,
		Sysctls: networkSysctls(h),
	}
	if h.NetworkMode.IsNone() || rec.Config.NetworkDisabled {
		r.Endpoints = nil
	}
	if e, ok := r.Endpoints[apinetwork.NetworkBridge]; ok && len(h.Links) > 0 {
		e = e.Copy()
		e.Links = append(e.Links, h.Links...)
		r.Endpoints[apinetwork.NetworkBridge] = e
	}
	return r
}

// makeNames makes the files, which are mounted before they are written.
func makeNames(dir string) error {
	for _, name := range []string{hostsFile, resolvFile} {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_WRONLY, 0o644)
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// writeNames writes hosts and resolv.conf in place: the files may be mounted
// in a container, which a replacement would not reach.
func writeNames(dir string, hosts, resolv []byte) error {
	return errors.Join(
		os.WriteFile(filepath.Join(dir, hostsFile), hosts, 0o644),
		os.WriteFile(filepath.Join(dir, resolvFile), resolv, 0o644),
	)
}

// copyHostNames gives a container in the host's network the host's files.
func copyHostNames(dir string) error {
	read := func(path string) ([]byte, error) {
		data, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			return nil, nil
		}
		return data, err
	}
	hosts, err := read("/etc/hosts")
	if err != nil {
		return err
	}
	resolv, err := read("/etc/resolv.conf")
	if err != nil {
		return err
	}
	return writeNames(dir, hosts, resolv)
}
