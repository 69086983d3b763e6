package shim

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// capSysResource is CAP_SYS_RESOURCE.
const capSysResource = 24

// privileges is what this process may grant to a container.
type privileges struct {
	sysResource bool
	hard        func(resource int) (uint64, error)
	oomScoreAdj int
}

// ownPrivileges reads what this process may do.
func ownPrivileges() privileges {
	p := privileges{hard: func(resource int) (uint64, error) {
		var l unix.Rlimit
		err := unix.Getrlimit(resource, &l)
		return l.Max, err
	}}
	var hdr = unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if unix.Capget(&hdr, &data[0]) == nil {
		p.sysResource = data[0].Effective&(1<<capSysResource) != 0
	}
	if b, err := os.ReadFile("/proc/self/oom_score_adj"); err == nil {
		// An unreadable value leaves 0, the default.
		p.oomScoreAdj, _ = strconv.Atoi(strings.TrimSpace(string(b)))
	}
	return p
}

// degrade lowers what p asks for to what may be granted, and says so.
func degrade(p *specs.Process, priv privileges) []string {
	if priv.sysResource {
		return nil
	}
	var warnings []string
	if adj := p.OOMScoreAdj; adj != nil && *adj < priv.oomScoreAdj {
		p.OOMScoreAdj = nil
		warnings = append(warnings, fmt.Sprintf(
			"oom_score_adj %d is ignored: lowering it below %d needs CAP_SYS_RESOURCE", *adj, priv.oomScoreAdj))
	}
	limits := make([]specs.POSIXRlimit, 0, len(p.Rlimits))
	for _, l := range p.Rlimits {
		resource, known := rlimits[l.Type]
		if !known {
			limits = append(limits, l) // refused later, with the runtime's words
			continue
		}
		max, err := priv.hard(resource)
		if err != nil || l.Hard <= max && l.Soft <= max {
			limits = append(limits, l)
			continue
		}
		warnings = append(warnings, fmt.Sprintf(
			"%s %d:%d is lowered to %d: raising it needs CAP_SYS_RESOURCE", l.Type, l.Soft, l.Hard, max))
		l.Hard, l.Soft = min(l.Hard, max), min(l.Soft, max)
		limits = append(limits, l)
	}
	p.Rlimits = limits
	return warnings
}

// rlimits are the names of the OCI spec.
var rlimits = map[string]int{
	"RLIMIT_AS": unix.RLIMIT_AS, "RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_CPU": unix.RLIMIT_CPU,
	"RLIMIT_DATA": unix.RLIMIT_DATA, "RLIMIT_FSIZE": unix.RLIMIT_FSIZE, "RLIMIT_LOCKS": unix.RLIMIT_LOCKS,
	"RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK, "RLIMIT_MSGQUEUE": unix.RLIMIT_MSGQUEUE, "RLIMIT_NICE": unix.RLIMIT_NICE,
	"RLIMIT_NOFILE": unix.RLIMIT_NOFILE, "RLIMIT_NPROC": unix.RLIMIT_NPROC, "RLIMIT_RSS": unix.RLIMIT_RSS,
	"RLIMIT_RTPRIO": unix.RLIMIT_RTPRIO, "RLIMIT_RTTIME": unix.RLIMIT_RTTIME,
	"RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING, "RLIMIT_STACK": unix.RLIMIT_STACK,
}
