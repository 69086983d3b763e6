package container

import (
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

// donor is a container that `--volumes-from` names.
type donor struct {
	mounts []mountPoint
	mode   string
}

// planMounts lists a container's mount points in Docker's order of precedence:
// its own binds and mounts, then those of other containers, then the image's
// volumes. What is at a destination already hides the later ones; the user's
// own may not collide.
func planMounts(c *container.Config, h *container.HostConfig, from []donor) ([]mountPoint, error) {
	taken := map[string]bool{}
	for dest := range h.Tmpfs {
		if err := validateDestination(dest, dest); err != nil {
			return nil, err
		}
		taken[path.Clean(dest)] = true
	}
	var own []mountPoint
	for _, raw := range h.Binds {
		m, err := parseBind(raw, h.VolumeDriver)
		if err != nil {
			return nil, err
		}
		own = append(own, m)
	}
	for _, w := range h.Mounts {
		m, err := parseMount(w)
		if err != nil {
			return nil, err
		}
		setDefault(&m.Driver, h.VolumeDriver)
		if m.Type != mount.TypeVolume {
			m.Driver = ""
		}
		own = append(own, m)
	}
	for _, m := range own {
		if taken[m.Destination] {
			return nil, errdefs.Invalidf("Duplicate mount point: %s", m.Destination)
		}
		taken[m.Destination] = true
	}
	for _, d := range from {
		modes, err := parseBindModes(d.mode)
		if err != nil {
			return nil, err
		}
		for _, m := range d.mounts {
			if taken[m.Destination] || m.Type == mount.TypeTmpfs {
				continue
			}
			taken[m.Destination] = true
			m.ReadOnly = m.ReadOnly || modes.readOnly
			// It is the donor's; nothing is copied into it again.
			m.Anonymous, m.NoCopy, m.Mode = false, true, d.mode
			own = append(own, m)
		}
	}
	for _, dest := range slices.Sorted(maps.Keys(c.Volumes)) {
		clean := path.Clean(dest)
		if taken[clean] {
			continue
		}
		taken[clean] = true
		own = append(own, mountPoint{Type: mount.TypeVolume, Destination: clean, Driver: h.VolumeDriver, Anonymous: true})
	}
	return own, nil
}

// splitVolumesFrom reads "container[:mode]".
func splitVolumesFrom(s string) (ref, mode string, err error) {
	ref, mode, _ = strings.Cut(s, ":")
	if ref == "" {
		return "", "", errdefs.Invalidf("invalid volumes-from specification: %q", s)
	}
	if _, err := parseBindModes(mode); err != nil {
		return "", "", errdefs.Invalidf("invalid mode for volumes-from: %s", mode)
	}
	return ref, mode, nil
}

// ociMount is the spec's form of a bind or volume whose content is at source.
func (m *mountPoint) ociMount(source string, f *Facts) specs.Mount {
	bind := "rbind"
	if m.NonRecursive {
		bind = "bind"
	}
	opts := []string{bind}
	if m.ReadOnly {
		opts = append(opts, m.readOnlyOption(f))
	}
	propagation := m.Propagation
	setDefault(&propagation, mount.PropagationRPrivate)
	return specs.Mount{Destination: m.Destination, Type: "bind", Source: source, Options: append(opts, string(propagation))}
}

// readOnlyOption is "rro" where everything below is made read-only too.
func (m *mountPoint) readOnlyOption(f *Facts) string {
	if m.ReadOnlyForceRecursive || f.RecursiveReadOnly && !m.NonRecursive && !m.ReadOnlyNonRecursive {
		return "rro"
	}
	return "ro"
}

// tmpfsMount is the spec's form of `--mount type=tmpfs`.
func (m *mountPoint) tmpfsMount() specs.Mount {
	var extra []string
	if m.ReadOnly {
		extra = append(extra, "ro")
	}
	if o := m.Tmpfs; o != nil {
		if o.Mode != 0 {
			extra = append(extra, "mode="+strconv.FormatUint(uint64(o.Mode.Perm()), 8))
		}
		if o.SizeBytes > 0 {
			extra = append(extra, "size="+strconv.FormatInt(o.SizeBytes, 10))
		}
		for _, kv := range o.Options {
			extra = append(extra, strings.Join(kv, "="))
		}
	}
	return tmpfs(m.Destination, extra)
}

// tmpfs merges the user's options over Docker's defaults for a tmpfs.
func tmpfs(dest string, user []string) specs.Mount {
	opts := []string{"noexec", "nosuid", "nodev", "rprivate"}
	for _, o := range user {
		if o == "" {
			continue
		}
		opposite := map[string]string{
			"exec": "noexec", "suid": "nosuid", "dev": "nodev", "noexec": "exec", "nosuid": "suid", "nodev": "dev", "ro": "rw", "rw": "ro",
		}[o]
		key, _, isValue := strings.Cut(o, "=")
		opts = slices.DeleteFunc(opts, func(have string) bool {
			return have == o || have == opposite || isValue && strings.HasPrefix(have, key+"=") ||
				slices.Contains(mount.Propagations, mount.Propagation(o)) && slices.Contains(mount.Propagations, mount.Propagation(have))
		})
		opts = append(opts, o)
	}
	return specs.Mount{Destination: path.Clean(dest), Type: "tmpfs", Source: "tmpfs", Options: opts}
}

// shared says whether the mount's events must reach the daemon's mount
// namespace, for which the root has to be mounted there.
func (m *mountPoint) shared() bool {
	return m.Propagation == mount.PropagationShared || m.Propagation == mount.PropagationRShared
}

func (m *mountPoint) slave() bool {
	return m.Propagation == mount.PropagationSlave || m.Propagation == mount.PropagationRSlave
}

// apiMount is how inspect shows the mount point.
func (m *mountPoint) apiMount() container.MountPoint {
	p := container.MountPoint{
		Type: m.Type, Name: m.Name, Source: m.Source, Destination: m.Destination, Driver: m.Driver,
		Mode: m.Mode, RW: !m.ReadOnly, Propagation: m.Propagation,
	}
	if m.Type == mount.TypeVolume {
		setDefault(&p.Mode, "z")
		setDefault(&p.Driver, "local")
	}
	return p
}
