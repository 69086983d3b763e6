package container

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

const minMemory = 6 << 20

// validateResources checks limits as Docker does. What the machine has no
// cgroup controller for is warned of and cleared in r.
func validateResources(r *container.Resources, f *Facts) (warnings []string, err error) {
	for _, check := range []func(*container.Resources, *Facts) ([]string, error){
		validateMemory, validateCPU, validateOther,
	} {
		w, err := check(r, f)
		if err != nil {
			return nil, err
		}
		warnings = append(warnings, w...)
	}
	return warnings, nil
}

func validateMemory(r *container.Resources, f *Facts) (warn []string, err error) {
	if !f.Controllers["memory"] {
		if r.Memory > 0 || r.MemorySwap > 0 || r.MemoryReservation > 0 || r.MemorySwappiness != nil {
			warn = append(warn, "Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded.")
		}
		r.Memory, r.MemorySwap, r.MemoryReservation, r.MemorySwappiness, r.OomKillDisable = 0, 0, 0, nil, nil
		return warn, nil
	}
	switch {
	case r.Memory < 0 || r.MemoryReservation < 0:
		return nil, errdefs.Invalidf("memory limits must not be negative")
	case r.Memory != 0 && r.Memory < minMemory:
		return nil, errdefs.Invalidf("Minimum memory limit allowed is 6MB")
	case r.MemorySwap < -1:
		return nil, errdefs.Invalidf("Minimum memoryswap limit should be larger than memory limit, see usage")
	case r.Memory > 0 && r.MemorySwap > 0 && r.MemorySwap < r.Memory:
		return nil, errdefs.Invalidf("Minimum memoryswap limit should be larger than memory limit, see usage")
	case r.Memory == 0 && r.MemorySwap > 0:
		return nil, errdefs.Invalidf("You should always set the Memory limit when using Memoryswap limit, see usage")
	case r.MemorySwappiness != nil && (*r.MemorySwappiness < -1 || *r.MemorySwappiness > 100):
		return nil, errdefs.Invalidf("Invalid value: %d, valid memory swappiness range is 0-100", *r.MemorySwappiness)
	case r.MemoryReservation > 0 && r.MemoryReservation < minMemory:
		return nil, errdefs.Invalidf("Minimum memory reservation allowed is 6MB")
	case r.Memory > 0 && r.MemoryReservation > 0 && r.Memory < r.MemoryReservation:
		return nil, errdefs.Invalidf("Minimum memory limit can not be less than memory reservation limit, see usage")
	}
	if !f.SwapLimit && r.MemorySwap != 0 {
		if r.MemorySwap > 0 && r.MemorySwap != 2*r.Memory {
			warn = append(warn, "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.")
		}
		r.MemorySwap = -1
	}
	if f.Cgroup2 && r.MemorySwappiness != nil && *r.MemorySwappiness != -1 {
		warn = append(warn, "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.")
		r.MemorySwappiness = nil
	}
	if r.OomKillDisable != nil && *r.OomKillDisable {
		if f.Cgroup2 {
			warn = append(warn, "Your kernel does not support OomKillDisable. OomKillDisable discarded.")
			r.OomKillDisable = nil
		} else if r.Memory == 0 {
			warn = append(warn, "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.")
		}
	}
	return warn, nil
}

func validateCPU(r *container.Resources, f *Facts) (warn []string, err error) {
	switch {
	case r.NanoCPUs > 0 && r.CPUPeriod > 0:
		return nil, errdefs.Invalidf("Conflicting options: Nano CPUs and CPU Period cannot both be set.")
	case r.NanoCPUs > 0 && r.CPUQuota > 0:
		return nil, errdefs.Invalidf("Conflicting options: Nano CPUs and CPU Quota cannot both be set.")
	case r.NanoCPUs < 0 || r.NanoCPUs > int64(f.CPUs)*1e9 || (r.NanoCPUs > 0 && r.NanoCPUs < 1e7):
		return nil, errdefs.Invalidf("range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available", f.CPUs, f.CPUs)
	case r.CPUShares < 0:
		return nil, errdefs.Invalidf("invalid CPU shares (%d): value must be a positive integer", r.CPUShares)
	case r.CPUPeriod != 0 && (r.CPUPeriod < 1000 || r.CPUPeriod > 1000000):
		return nil, errdefs.Invalidf("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
	case r.CPUQuota > 0 && r.CPUQuota < 1000:
		return nil, errdefs.Invalidf("CPU cfs quota can not be less than 1ms (i.e. 1000)")
	case r.CPURealtimePeriod != 0 && r.CPURealtimeRuntime > r.CPURealtimePeriod:
		return nil, errdefs.Invalidf("cpu real-time runtime cannot be higher than cpu real-time period")
	}
	if err := validateCPUSet(r, f); err != nil {
		return nil, err
	}
	if !f.Controllers["cpu"] && (r.NanoCPUs > 0 || r.CPUPeriod > 0 || r.CPUQuota > 0 || r.CPUShares > 0) {
		warn = append(warn, "Your kernel does not support CPU limits or the cgroup is not mounted. Limits discarded.")
		r.NanoCPUs, r.CPUPeriod, r.CPUQuota, r.CPUShares = 0, 0, 0, 0
	}
	if !f.Controllers["cpuset"] && (r.CpusetCpus != "" || r.CpusetMems != "") {
		warn = append(warn, "Your kernel does not support cpuset or the cgroup is not mounted. Cpuset discarded.")
		r.CpusetCpus, r.CpusetMems = "", ""
	}
	return warn, nil
}

func validateCPUSet(r *container.Resources, f *Facts) error {
	if r.CpusetCpus != "" {
		set, err := parseSet(r.CpusetCpus)
		if err != nil {
			return errdefs.Invalidf("Invalid value %s for cpuset cpus", r.CpusetCpus)
		}
		if slices.Max(set) >= f.CPUs {
			return errdefs.Invalidf("Requested CPUs are not available - requested %s, available: 0-%d", r.CpusetCpus, f.CPUs-1)
		}
	}
	if r.CpusetMems != "" {
		if _, err := parseSet(r.CpusetMems); err != nil {
			return errdefs.Invalidf("Invalid value %s for cpuset mems", r.CpusetMems)
		}
	}
	return nil
}

// parseSet reads the kernel's list format, "0-2,5".
func parseSet(s string) ([]int, error) {
	var set []int
	for part := range strings.SplitSeq(s, ",") {
		first, last, isRange := strings.Cut(part, "-")
		a, err := strconv.Atoi(first)
		if err != nil || a < 0 {
			return nil, fmt.Errorf("%q is not a number", first)
		}
		b := a
		if isRange {
			if b, err = strconv.Atoi(last); err != nil || b < a || b-a > 8192 {
				return nil, fmt.Errorf("%q is not a range", part)
			}
		}
		for ; a <= b; a++ {
			set = append(set, a)
		}
	}
	return set, nil
}

func validateOther(r *container.Resources, f *Facts) (warn []string, err error) {
	if r.BlkioWeight > 0 && (r.BlkioWeight < 10 || r.BlkioWeight > 1000) {
		return nil, errdefs.Invalidf("Range of blkio weight is from 10 to 1000")
	}
	for _, d := range r.BlkioWeightDevice {
		if d.Weight != 0 && (d.Weight < 10 || d.Weight > 1000) {
			return nil, errdefs.Invalidf("Range of blkio weight is from 10 to 1000")
		}
	}
	blkio := f.Controllers["blkio"] || f.Controllers["io"]
	if !blkio && (r.BlkioWeight > 0 || len(r.BlkioWeightDevice)+len(r.BlkioDeviceReadBps)+len(r.BlkioDeviceWriteBps)+
		len(r.BlkioDeviceReadIOps)+len(r.BlkioDeviceWriteIOps) > 0) {
		warn = append(warn, "Your kernel does not support Block I/O limits or the cgroup is not mounted. Limits discarded.")
		r.BlkioWeight, r.BlkioWeightDevice = 0, nil
		r.BlkioDeviceReadBps, r.BlkioDeviceWriteBps, r.BlkioDeviceReadIOps, r.BlkioDeviceWriteIOps = nil, nil, nil, nil
	}
	if r.PidsLimit != nil {
		switch {
		case *r.PidsLimit < -1:
			unlimited := int64(-1)
			r.PidsLimit = &unlimited
		case *r.PidsLimit > 0 && !f.Controllers["pids"]:
			warn = append(warn, "Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.")
			r.PidsLimit = nil
		}
	}
	known := rlimitNumbers()
	for _, u := range r.Ulimits {
		if _, ok := known[u.Name]; !ok {
			return nil, errdefs.Invalidf("invalid ulimit type: %s", u.Name)
		}
		if u.Hard != -1 && (u.Soft > u.Hard || u.Soft == -1) {
			return nil, errdefs.Invalidf("ulimit soft limit must be less than or equal to hard limit: %d > %d", u.Soft, u.Hard)
		}
		if top, ok := f.Limits[u.Name]; ok && !f.CanRaiseLimits && uint64(u.Hard) > top {
			warn = append(warn, fmt.Sprintf("Raising the limit %s above %d needs CAP_SYS_RESOURCE, which this daemon lacks. It is limited.", u.Name, top))
		}
	}
	return warn, nil
}
