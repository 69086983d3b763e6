package volume

import (
	"crypto/rand"
	"encoding/hex"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/volume"

	"github.com/cleatlabs/cleat/engine/filter"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

const (
	localDriver = "local"
	// anonymousLabel marks volumes that nobody named, as in Docker.
	anonymousLabel = "com.docker.volume.anonymous"

	recordFile = "volume.json"
	dataDir    = "_data"
)

// record is what volume.json holds.
type record struct {
	Name    string            `json:"name"`
	Driver  string            `json:"driver"`
	Labels  map[string]string `json:"labels,omitempty"`
	Options map[string]string `json:"options,omitempty"`
	Created time.Time         `json:"created"`
}

func (r record) api(mountpoint, scope string) volume.Volume {
	v := volume.Volume{
		Name: r.Name, Driver: r.Driver, Scope: scope, Mountpoint: mountpoint,
		Labels: maps.Clone(r.Labels), Options: maps.Clone(r.Options),
	}
	if !r.Created.IsZero() {
		v.CreatedAt = r.Created.Format(time.RFC3339)
	}
	return v
}

func (r record) anonymous() bool {
	_, ok := r.Labels[anonymousLabel]
	return ok
}

var localName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// validName applies the rule of local volumes, in Docker's words. It holds for
// plugins' volumes too where their record's folder is concerned.
func validName(name string) error {
	if len(name) == 1 {
		return errdefs.Invalidf("volume name is too short, names should be at least two alphanumeric characters")
	}
	if !localName.MatchString(name) || len(name) > 255 {
		return errdefs.Invalidf("%q includes invalid characters for a local volume name, only %q are allowed. "+
			"If you intended to pass a host directory, use absolute path", name, "[a-zA-Z0-9][a-zA-Z0-9_.-]")
	}
	return nil
}

// validOptions checks the options of driver local, in Docker's words.
func validOptions(opts map[string]string) error {
	for _, k := range slices.Sorted(maps.Keys(opts)) {
		switch k {
		case "type", "o", "device":
		case "size":
			return errdefs.Invalidf("quota size requested but no quota support")
		default:
			return errdefs.Invalidf("invalid option: %q", k)
		}
	}
	needs := []struct {
		opt  string
		with []string
	}{{"device", []string{"type"}}, {"type", []string{"device"}}, {"o", []string{"device", "type"}}}
	for _, n := range needs {
		if _, ok := opts[n.opt]; !ok {
			continue
		}
		for _, w := range n.with {
			if _, ok := opts[w]; !ok {
				return errdefs.Invalidf("missing required option: %q", w)
			}
		}
	}
	return nil
}

// complete decides what a request means: its defaults and whether it is valid.
func complete(req volume.CreateRequest, now time.Time) (record, error) {
	if req.ClusterVolumeSpec != nil {
		return record{}, errdefs.NotImplementedf("cluster volumes are not supported")
	}
	r := record{
		Name: req.Name, Driver: req.Driver, Created: now.UTC().Truncate(time.Second),
		Labels: maps.Clone(req.Labels), Options: maps.Clone(req.DriverOpts),
	}
	if r.Driver == "" {
		r.Driver = localDriver
	}
	if r.Name == "" {
		var b [32]byte
		rand.Read(b[:]) // never fails
		r.Name = hex.EncodeToString(b[:])
		if r.Labels == nil {
			r.Labels = make(map[string]string, 1)
		}
		r.Labels[anonymousLabel] = ""
	}
	if err := validName(r.Name); err != nil {
		return r, err
	}
	if r.Driver == localDriver {
		return r, validOptions(r.Options)
	}
	return r, nil
}

// conflict says why a volume that exists does not satisfy a request for
// another, or nil. As in Docker, labels do not matter; and neither do options if
// the request has none.
func conflict(have, want record) error {
	if have.Driver != want.Driver {
		return errdefs.Conflictf("driver '%s' already has volume '%s': volume name must be unique", have.Driver, have.Name)
	}
	if len(want.Options) > 0 && !maps.Equal(have.Options, want.Options) {
		return errdefs.WithHint(
			errdefs.Conflictf("volume '%s' already exists with other options: volume name must be unique", have.Name),
			"remove the volume first, or choose another name")
	}
	return nil
}

// listed says whether a volume passes the filters of a list.
func listed(f filter.Args, v volume.Volume, inUse bool) (bool, error) {
	dangling := true
	if f.Has("dangling") {
		want, err := f.Bool("dangling", false)
		if err != nil {
			return false, err
		}
		dangling = want != inUse
	}
	return dangling && f.Match("name", v.Name) && f.Exact("driver", v.Driver) && f.Labels("label", v.Labels), nil
}

// prunable says whether an unused volume passes the filters of a prune.
func prunable(f filter.Args, r record) (bool, error) {
	everything, err := f.Bool("all", false)
	if err != nil {
		return false, err
	}
	return (everything || r.anonymous()) && f.Labels("label", r.Labels) && f.NotLabels("label!", r.Labels), nil
}

func inUse(name string, users []string) error {
	return errdefs.Conflictf("remove %s: volume is in use - [%s]", name, strings.Join(users, ", "))
}
