package shim

import (
	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/manager"

	"github.com/cleatlabs/cleat/engine/runtime/wire"
)

// oomKills reads the kernel's counter. A group that is gone killed nobody.
func oomKills(req *wire.Create, paths map[string]string) uint64 {
	cg := &cgroups.Cgroup{Path: req.Spec.Linux.CgroupsPath, Resources: &cgroups.Resources{}}
	m, err := manager.NewWithPaths(cg, paths)
	if err != nil {
		return 0
	}
	n, err := m.OOMKillCount()
	if err != nil {
		return 0
	}
	return n
}
