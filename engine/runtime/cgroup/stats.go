package cgroup

import (
	"path/filepath"
	"strings"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/manager"
)

// Stats reads what the group uses. path is the group's, as given to Find.
func (d Dirs) Stats(path string) (*cgroups.Stats, error) {
	m, err := manager.NewWithPaths(&cgroups.Cgroup{Path: path, Resources: &cgroups.Resources{}}, d.controllers(path))
	if err != nil {
		return nil, err
	}
	return m.GetStats()
}

// controllers names the folders as the cgroups library does: by controller on
// v1, by "" on v2.
func (d Dirs) controllers(path string) map[string]string {
	if cgroups.IsCgroup2UnifiedMode() {
		if len(d) == 0 {
			return nil
		}
		return map[string]string{"": d[0]}
	}
	clean := filepath.Clean("/" + path)
	paths := make(map[string]string, len(d))
	for _, dir := range d {
		hierarchy := filepath.Base(strings.TrimSuffix(dir, clean))
		if hierarchy == "unified" || hierarchy == "systemd" {
			continue
		}
		for name := range strings.SplitSeq(hierarchy, ",") {
			paths[name] = dir
		}
	}
	return paths
}
