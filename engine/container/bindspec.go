package container

import (
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/mount"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

// mountPoint is a mount of a container as its record keeps it.
type mountPoint struct {
	Type        mount.Type `json:"type"`
	Name        string     `json:"name,omitempty"`   // the volume's
	Source      string     `json:"source,omitempty"` // host path of a bind
	Destination string     `json:"destination"`
	Driver      string     `json:"driver,omitempty"`
	// Mode is what the user wrote; ReadOnly and Propagation what it means.
	Mode        string            `json:"mode,omitempty"`
	ReadOnly    bool              `json:"readOnly,omitempty"`
	Propagation mount.Propagation `json:"propagation,omitempty"`
	// Create has a missing bind source made.
	Create bool `json:"create,omitempty"`
	// NoCopy keeps the image's content out of a new volume.
	NoCopy bool `json:"noCopy,omitempty"`
	// Anonymous volumes are removed together with the container.
	Anonymous bool   `json:"anonymous,omitempty"`
	Subpath   string `json:"subpath,omitempty"`

	NonRecursive           bool `json:"nonRecursive,omitempty"`
	ReadOnlyNonRecursive   bool `json:"readOnlyNonRecursive,omitempty"`
	ReadOnlyForceRecursive bool `json:"readOnlyForceRecursive,omitempty"`

	Tmpfs *mount.TmpfsOptions `json:"tmpfs,omitempty"`
	// Labels and DriverOptions are those of a volume that is made for it.
	Labels        map[string]string `json:"-"`
	DriverOptions map[string]string `json:"-"`
}

// volumeName is Docker's rule for the names of volumes.
func validVolumeName(s string) bool {
	return regexp.MustCompile(`^` + nameChars + `+$`).MatchString(s)
}

// parseBind reads one entry of HostConfig.Binds: "volume-or-path:path[:modes]",
// or a path alone for an anonymous volume.
func parseBind(raw, volumeDriver string) (mountPoint, error) {
	invalid := errdefs.Invalidf("invalid volume specification: '%s'", raw)
	if strings.ContainsRune(raw, 0) {
		return mountPoint{}, invalid
	}
	parts := strings.Split(raw, ":")
	var m mountPoint
	var source string
	switch {
	case len(parts) > 3 || slices.Contains(parts, "") && !(len(parts) == 3 && parts[2] == "" && parts[0] != "" && parts[1] != ""):
		return mountPoint{}, invalid
	case len(parts) == 1:
		m.Destination = parts[0]
	case len(parts) == 2:
		if _, err := parseBindModes(parts[1]); err == nil {
			return mountPoint{}, invalid // a destination with a mode is no volume
		}
		source, m.Destination = parts[0], parts[1]
	default:
		source, m.Destination, m.Mode = parts[0], parts[1], parts[2]
	}
	if err := validateDestination(m.Destination, raw); err != nil {
		return mountPoint{}, err
	}
	m.Destination = path.Clean(m.Destination)
	modes, err := parseBindModes(m.Mode)
	if err != nil {
		return mountPoint{}, errdefs.Invalidf("invalid mode: %s", m.Mode)
	}
	m.ReadOnly, m.NoCopy, m.Propagation = modes.readOnly, modes.noCopy, modes.propagation
	switch {
	case source == "":
		m.Type, m.Driver, m.Anonymous = mount.TypeVolume, volumeDriver, true
	case path.IsAbs(source):
		m.Type, m.Source, m.Create = mount.TypeBind, path.Clean(source), true
		if m.NoCopy {
			return mountPoint{}, errdefs.Invalidf("invalid mode: %s", m.Mode)
		}
		setDefault(&m.Propagation, mount.PropagationRPrivate)
	case !validVolumeName(source):
		return mountPoint{}, errdefs.Invalidf("%q includes invalid characters for a local volume name, only %q are allowed. "+
			"If you intended to pass a host directory, use absolute path", source, nameChars)
	default:
		m.Type, m.Name, m.Driver = mount.TypeVolume, source, volumeDriver
		if m.Propagation != "" {
			return mountPoint{}, errdefs.Invalidf("invalid mode: %s", m.Mode)
		}
	}
	return m, nil
}

func validateDestination(dest, raw string) error {
	switch {
	case strings.ContainsRune(dest, 0):
		return errdefs.Invalidf("invalid mount path: '%s' contains a NUL", dest)
	case !path.IsAbs(dest):
		return errdefs.Invalidf("invalid volume specification: '%s': invalid mount path: '%s' mount path must be absolute", raw, dest)
	case path.Clean(dest) == "/":
		return errdefs.Invalidf("invalid volume specification: '%s': invalid specification: destination can't be '/'", raw)
	}
	return nil
}

type bindModes struct {
	readOnly, noCopy bool
	propagation      mount.Propagation
}

// parseBindModes reads "ro,z,rslave"; each kind of mode may come once.
func parseBindModes(s string) (bindModes, error) {
	var m bindModes
	if s == "" {
		return m, nil
	}
	seen := map[string]bool{}
	for word := range strings.SplitSeq(s, ",") {
		kind := ""
		switch {
		case word == "ro" || word == "rw":
			kind, m.readOnly = "access", word == "ro"
		case word == "z" || word == "Z":
			kind = "label"
		case word == "nocopy":
			kind, m.noCopy = "copy", true
		case word == "consistent" || word == "cached" || word == "delegated" || word == "default":
			kind = "consistency"
		case slices.Contains(mount.Propagations, mount.Propagation(word)):
			kind, m.propagation = "propagation", mount.Propagation(word)
		default:
			return m, errdefs.Invalidf("invalid mode: %s", s)
		}
		if seen[kind] {
			return m, errdefs.Invalidf("invalid mode: %s", s)
		}
		seen[kind] = true
	}
	return m, nil
}

// parseMount reads one entry of HostConfig.Mounts.
func parseMount(w mount.Mount) (mountPoint, error) {
	bad := func(format string, args ...any) (mountPoint, error) {
		return mountPoint{}, errdefs.Invalidf("invalid mount config for type %q: "+format, append([]any{w.Type}, args...)...)
	}
	if w.Target == "" {
		return bad("field Target must not be empty")
	}
	if !path.IsAbs(w.Target) || strings.ContainsRune(w.Target, 0) {
		return bad("invalid mount path: '%s' mount path must be absolute", w.Target)
	}
	if path.Clean(w.Target) == "/" {
		return bad("invalid specification: destination can't be '/'")
	}
	m := mountPoint{Type: w.Type, Destination: path.Clean(w.Target), ReadOnly: w.ReadOnly}
	if w.Type != mount.TypeBind && w.BindOptions != nil {
		return bad("field BindOptions must not be specified")
	}
	if w.Type != mount.TypeVolume && w.VolumeOptions != nil {
		return bad("field VolumeOptions must not be specified")
	}
	if w.Type != mount.TypeTmpfs && w.TmpfsOptions != nil {
		return bad("field TmpfsOptions must not be specified")
	}
	switch w.Type {
	case mount.TypeBind:
		return parseBindMount(m, w, bad)
	case mount.TypeVolume:
		return parseVolumeMount(m, w, bad)
	case mount.TypeTmpfs:
		if w.Source != "" {
			return bad("field Source must not be specified")
		}
		if o := w.TmpfsOptions; o != nil && o.SizeBytes < 0 {
			return bad("TmpfsOptions.SizeBytes must not be negative")
		}
		m.Tmpfs = w.TmpfsOptions
		return m, nil
	default:
		return mountPoint{}, errdefs.Invalidf("mount type %q is not supported: use bind, volume or tmpfs", w.Type)
	}
}

type refuse func(format string, args ...any) (mountPoint, error)

func parseBindMount(m mountPoint, w mount.Mount, bad refuse) (mountPoint, error) {
	if w.Source == "" {
		return bad("field Source must not be empty")
	}
	if !path.IsAbs(w.Source) || strings.ContainsRune(w.Source, 0) {
		return bad("invalid mount path: '%s' mount path must be absolute", w.Source)
	}
	m.Source = path.Clean(w.Source)
	m.Propagation = mount.PropagationRPrivate
	if o := w.BindOptions; o != nil {
		if o.Propagation != "" {
			if !slices.Contains(mount.Propagations, o.Propagation) {
				return bad("invalid propagation mode: %s", o.Propagation)
			}
			m.Propagation = o.Propagation
		}
		if o.ReadOnlyForceRecursive && (o.ReadOnlyNonRecursive || !w.ReadOnly) {
			return bad("mount options conflict: ReadOnlyForceRecursive needs ReadOnly and excludes ReadOnlyNonRecursive")
		}
		if o.ReadOnlyNonRecursive && !w.ReadOnly {
			return bad("mount source is writable: conflicts with ReadOnlyNonRecursive")
		}
		m.NonRecursive, m.Create = o.NonRecursive, o.CreateMountpoint
		m.ReadOnlyNonRecursive, m.ReadOnlyForceRecursive = o.ReadOnlyNonRecursive, o.ReadOnlyForceRecursive
	}
	return m, nil
}

func parseVolumeMount(m mountPoint, w mount.Mount, bad refuse) (mountPoint, error) {
	m.Name, m.Anonymous = w.Source, w.Source == ""
	if m.Name != "" && !validVolumeName(m.Name) {
		return bad("%q includes invalid characters for a local volume name, only %q are allowed", m.Name, nameChars)
	}
	if o := w.VolumeOptions; o != nil {
		m.NoCopy, m.Subpath, m.Labels = o.NoCopy, o.Subpath, o.Labels
		if m.Anonymous && o.Subpath != "" {
			return bad("must not set Subpath when using anonymous volumes")
		}
		if path.IsAbs(o.Subpath) || slices.Contains(strings.Split(o.Subpath, "/"), "..") || strings.ContainsRune(o.Subpath, 0) {
			return bad("subpath must be a relative path within the volume")
		}
		if o.DriverConfig != nil {
			m.Driver, m.DriverOptions = o.DriverConfig.Name, o.DriverConfig.Options
		}
	}
	return m, nil
}
