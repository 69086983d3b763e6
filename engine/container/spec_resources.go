package container

import (
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

// blockDevice is the number of a block device of the host.
type blockDevice struct{ major, minor int64 }

// planResources translates limits; those that are not set stay unset.
func planResources(r *container.Resources, block map[string]blockDevice) (*specs.LinuxResources, error) {
	out := &specs.LinuxResources{Memory: planMemory(r), CPU: planCPU(r)}
	if r.PidsLimit != nil {
		limit := *r.PidsLimit
		if limit == 0 {
			limit = -1
		}
		out.Pids = &specs.LinuxPids{Limit: &limit}
	}
	var err error
	out.BlockIO, err = planBlkio(r, block)
	return out, err
}

func planMemory(r *container.Resources) *specs.LinuxMemory {
	m := &specs.LinuxMemory{}
	set := false
	put := func(p **int64, v int64) {
		if v != 0 {
			*p, set = &v, true
		}
	}
	put(&m.Limit, r.Memory)
	put(&m.Reservation, r.MemoryReservation)
	put(&m.Swap, r.MemorySwap)
	if r.MemorySwappiness != nil && *r.MemorySwappiness >= 0 {
		v := uint64(*r.MemorySwappiness)
		m.Swappiness, set = &v, true
	}
	if r.OomKillDisable != nil && *r.OomKillDisable {
		m.DisableOOMKiller, set = r.OomKillDisable, true
	}
	if !set {
		return nil
	}
	return m
}

func planCPU(r *container.Resources) *specs.LinuxCPU {
	c := &specs.LinuxCPU{Cpus: r.CpusetCpus, Mems: r.CpusetMems}
	period, quota := r.CPUPeriod, r.CPUQuota
	if r.NanoCPUs > 0 {
		period = 100000
		quota = r.NanoCPUs * period / 1e9
	}
	unsigned := func(p **uint64, v int64) {
		if v > 0 {
			u := uint64(v)
			*p = &u
		}
	}
	unsigned(&c.Shares, r.CPUShares)
	unsigned(&c.Period, period)
	unsigned(&c.RealtimePeriod, r.CPURealtimePeriod)
	if quota != 0 {
		c.Quota = &quota
	}
	if r.CPURealtimeRuntime != 0 {
		rt := r.CPURealtimeRuntime
		c.RealtimeRuntime = &rt
	}
	if *c == (specs.LinuxCPU{}) {
		return nil
	}
	return c
}

func planBlkio(r *container.Resources, block map[string]blockDevice) (*specs.LinuxBlockIO, error) {
	b := &specs.LinuxBlockIO{}
	set := false
	if r.BlkioWeight > 0 {
		w := r.BlkioWeight
		b.Weight, set = &w, true
	}
	for _, d := range r.BlkioWeightDevice {
		dev, ok := block[d.Path]
		if !ok {
			return nil, errdefs.Invalidf("%s is not a block device", d.Path)
		}
		w := d.Weight
		wd := specs.LinuxWeightDevice{Weight: &w}
		wd.Major, wd.Minor = dev.major, dev.minor
		b.WeightDevice, set = append(b.WeightDevice, wd), true
	}
	for _, t := range []struct {
		from []*blkiodev.ThrottleDevice
		to   *[]specs.LinuxThrottleDevice
	}{
		{r.BlkioDeviceReadBps, &b.ThrottleReadBpsDevice}, {r.BlkioDeviceWriteBps, &b.ThrottleWriteBpsDevice},
		{r.BlkioDeviceReadIOps, &b.ThrottleReadIOPSDevice}, {r.BlkioDeviceWriteIOps, &b.ThrottleWriteIOPSDevice},
	} {
		for _, d := range t.from {
			dev, ok := block[d.Path]
			if !ok {
				return nil, errdefs.Invalidf("%s is not a block device", d.Path)
			}
			td := specs.LinuxThrottleDevice{Rate: d.Rate}
			td.Major, td.Minor = dev.major, dev.minor
			*t.to, set = append(*t.to, td), true
		}
	}
	if !set {
		return nil, nil
	}
	return b, nil
}
