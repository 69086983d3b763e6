package container

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

// security is what the options of `--security-opt` say.
type security struct {
	// seccomp is "" for the daemon's default, "unconfined", "builtin", or the
	// text of a profile.
	seccomp         string
	apparmor        string
	noNewPrivileges bool
}

func parseSecurity(opts []string, d *Config) (security, error) {
	s := security{noNewPrivileges: d.NoNewPrivileges}
	for _, o := range opts {
		if o == "no-new-privileges" {
			s.noNewPrivileges = true
			continue
		}
		key, value, ok := strings.Cut(o, "=")
		if !ok {
			key, value, ok = strings.Cut(o, ":")
		}
		if !ok {
			return s, errdefs.Invalidf("invalid --security-opt: %q", o)
		}
		switch key {
		case "no-new-privileges":
			on, err := strconv.ParseBool(value)
			if err != nil {
				return s, errdefs.Invalidf("invalid --security-opt: %q", o)
			}
			s.noNewPrivileges = on
		case "seccomp":
			s.seccomp = value
			if value != "unconfined" && value != "builtin" && !json.Valid([]byte(value)) {
				return s, errdefs.Invalidf("decoding seccomp profile failed: it is not JSON")
			}
		case "apparmor":
			s.apparmor = value
		case "label", "systempaths", "writable-cgroups":
			// SELinux labels mean nothing here; the command line has turned
			// systempaths into MaskedPaths and ReadonlyPaths.
		default:
			return s, errdefs.Invalidf("invalid --security-opt 2: %q", o)
		}
	}
	return s, nil
}

// defaultCapabilities are Docker's.
func defaultCapabilities() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
		"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
	}
}

// planCapabilities applies CapAdd and CapDrop. No container gets more than the
// daemon has.
func planCapabilities(h *container.HostConfig, f *Facts) ([]string, error) {
	add, err := normalizeCaps(h.CapAdd)
	if err != nil {
		return nil, err
	}
	drop, err := normalizeCaps(h.CapDrop)
	if err != nil {
		return nil, err
	}
	var base []string
	switch {
	case h.Privileged:
		return slices.Clone(f.Capabilities), nil
	case slices.Contains(add, "ALL"):
		base = slices.DeleteFunc(slices.Clone(f.Capabilities), func(c string) bool { return slices.Contains(drop, c) })
	case slices.Contains(drop, "ALL"):
		base = add
	default:
		base = slices.DeleteFunc(defaultCapabilities(), func(c string) bool { return slices.Contains(drop, c) })
		for _, c := range add {
			if !slices.Contains(base, c) {
				base = append(base, c)
			}
		}
	}
	return slices.DeleteFunc(base, func(c string) bool { return !slices.Contains(f.Capabilities, c) }), nil
}

func normalizeCaps(list []string) ([]string, error) {
	known := capabilityNames()
	var out []string
	for _, c := range list {
		n := strings.ToUpper(c)
		if n != "ALL" {
			if !strings.HasPrefix(n, "CAP_") {
				n = "CAP_" + n
			}
			if !slices.Contains(known, n) {
				return nil, errdefs.Invalidf("invalid capability: %q", c)
			}
		}
		if !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out, nil
}

// processCapabilities are the sets of a process: one that is not root gets only
// the bounding set, as execve(2) would leave it.
func processCapabilities(caps []string, uid uint32) *specs.LinuxCapabilities {
	if uid != 0 {
		return &specs.LinuxCapabilities{Bounding: caps}
	}
	return &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
}

// seccompProfiles makes seccomp filters; the default profile's expansion is
// kept by set of capabilities, on which alone it depends.
type seccompProfiles struct {
	unconfined bool
	custom     string // text of the daemon's own default profile

	mu    sync.Mutex
	cache map[string]*specs.LinuxSeccomp
}

func newSeccompProfiles(def string) (*seccompProfiles, error) {
	p := &seccompProfiles{cache: map[string]*specs.LinuxSeccomp{}}
	switch def {
	case "builtin":
	case "unconfined":
		p.unconfined = true
	default:
		b, err := os.ReadFile(def)
		if err != nil {
			return nil, fmt.Errorf("containers: seccompProfile: %w", err)
		}
		p.custom = string(b)
	}
	return p, nil
}

// get returns the filter for a container, nil for none. The result is shared:
// it must not be changed.
func (p *seccompProfiles) get(opt string, privileged bool, caps []string, f *Facts) (*specs.LinuxSeccomp, error) {
	if opt == "" {
		switch {
		case privileged || p.unconfined:
			opt = "unconfined"
		case p.custom != "":
			opt = p.custom
		default:
			opt = "builtin"
		}
	}
	if opt == "unconfined" || !f.Seccomp {
		return nil, nil
	}
	spec := &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps}}}
	if opt != "builtin" {
		prof, err := seccomp.LoadProfile(opt, spec)
		if err != nil {
			return nil, errdefs.As(errdefs.ErrInvalidArgument, err)
		}
		return prof, nil
	}
	key := strings.Join(caps, ",")
	p.mu.Lock()
	defer p.mu.Unlock()
	if prof, ok := p.cache[key]; ok {
		return prof, nil
	}
	prof, err := seccomp.GetDefaultProfile(spec)
	if err != nil {
		return nil, err
	}
	// The sets that people use are few; a client that tries all of them must
	// not fill the memory.
	if len(p.cache) >= 64 {
		clear(p.cache)
	}
	p.cache[key] = prof
	return prof, nil
}
