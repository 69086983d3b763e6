package runspec

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/docker/go-connections/nat"
	"github.com/moby/moby/api/types/network"
)

// ports reads -p and --expose.
func (f *Flags) ports() (network.PortSet, network.PortMap, error) {
	published, err := shortPorts(f.publish.GetSlice())
	if err != nil {
		return nil, nil, err
	}
	exposed, bindings, err := nat.ParsePortSpecs(published)
	if err != nil {
		return nil, nil, errorf("%w", err)
	}
	set, portMap := network.PortSet{}, network.PortMap{}
	for p := range exposed {
		port, err := network.ParsePort(string(p))
		if err != nil {
			return nil, nil, errorf("%w", err)
		}
		set[port] = struct{}{}
	}
	for p, all := range bindings {
		port, err := network.ParsePort(string(p))
		if err != nil {
			return nil, nil, errorf("%w", err)
		}
		out := make([]network.PortBinding, 0, len(all))
		for _, b := range all {
			var ip netip.Addr
			if b.HostIP != "" {
				if ip, err = netip.ParseAddr(b.HostIP); err != nil {
					return nil, nil, errorf("%w", err)
				}
			}
			out = append(out, network.PortBinding{HostIP: ip, HostPort: b.HostPort})
		}
		portMap[port] = out
	}
	for _, e := range f.expose.GetSlice() {
		r, err := network.ParsePortRange(e)
		if err != nil {
			return nil, nil, errorf("invalid range format for --expose: %w", err)
		}
		for p := range r.All() {
			set[p] = struct{}{}
		}
	}
	return set, portMap, nil
}

// shortPorts rewrites published=80,target=8080,protocol=tcp to the short form.
func shortPorts(given []string) ([]string, error) {
	out := make([]string, 0, len(given))
	for _, p := range given {
		if !strings.Contains(p, "=") {
			out = append(out, p)
			continue
		}
		fields := map[string]string{"protocol": "tcp"}
		for field := range strings.SplitSeq(p, ",") {
			k, v, ok := strings.Cut(field, "=")
			if !ok || k == "" {
				return nil, errorf("invalid publish opts format (should be name=value but got '%s')", field)
			}
			fields[k] = v
		}
		out = append(out, fmt.Sprintf("%s:%s/%s", fields["published"], fields["target"], fields["protocol"]))
	}
	return out, nil
}
