package shim

import "github.com/opencontainers/runtime-spec/specs-go"

// mergeResources gives cur with everything that r names replaced.
func mergeResources(cur specs.LinuxResources, r *specs.LinuxResources) specs.LinuxResources {
	next := cur
	if r.Memory != nil {
		var m specs.LinuxMemory
		if cur.Memory != nil {
			m = *cur.Memory
		}
		set(&m.Limit, r.Memory.Limit)
		set(&m.Reservation, r.Memory.Reservation)
		set(&m.Swap, r.Memory.Swap)
		set(&m.Swappiness, r.Memory.Swappiness)
		set(&m.DisableOOMKiller, r.Memory.DisableOOMKiller)
		set(&m.CheckBeforeUpdate, r.Memory.CheckBeforeUpdate)
		next.Memory = &m
	}
	if r.CPU != nil {
		next.CPU = mergeCPU(cur.CPU, r.CPU)
	}
	if r.Pids != nil {
		next.Pids = r.Pids
	}
	if r.BlockIO != nil {
		next.BlockIO = mergeBlockIO(cur.BlockIO, r.BlockIO)
	}
	if r.HugepageLimits != nil {
		next.HugepageLimits = r.HugepageLimits
	}
	if r.Unified != nil {
		next.Unified = r.Unified
	}
	return next
}

func mergeCPU(cur, r *specs.LinuxCPU) *specs.LinuxCPU {
	var c specs.LinuxCPU
	if cur != nil {
		c = *cur
	}
	set(&c.Shares, r.Shares)
	set(&c.Quota, r.Quota)
	set(&c.Burst, r.Burst)
	set(&c.Period, r.Period)
	set(&c.RealtimeRuntime, r.RealtimeRuntime)
	set(&c.RealtimePeriod, r.RealtimePeriod)
	set(&c.Idle, r.Idle)
	if r.Cpus != "" {
		c.Cpus = r.Cpus
	}
	if r.Mems != "" {
		c.Mems = r.Mems
	}
	return &c
}

func mergeBlockIO(cur, r *specs.LinuxBlockIO) *specs.LinuxBlockIO {
	var b specs.LinuxBlockIO
	if cur != nil {
		b = *cur
	}
	set(&b.Weight, r.Weight)
	set(&b.LeafWeight, r.LeafWeight)
	setList(&b.WeightDevice, r.WeightDevice)
	setList(&b.ThrottleReadBpsDevice, r.ThrottleReadBpsDevice)
	setList(&b.ThrottleWriteBpsDevice, r.ThrottleWriteBpsDevice)
	setList(&b.ThrottleReadIOPSDevice, r.ThrottleReadIOPSDevice)
	setList(&b.ThrottleWriteIOPSDevice, r.ThrottleWriteIOPSDevice)
	return &b
}

func set[T any](to **T, from *T) {
	if from != nil {
		*to = from
	}
}

func setList[T any](to *[]T, from []T) {
	if from != nil {
		*to = from
	}
}
