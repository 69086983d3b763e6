package container

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/opencontainers/cgroups"
)

// statsEvery is Docker's rhythm.
const statsEvery = time.Second

// Stats samples what a container uses.
func (s *Service) Stats(ctx context.Context, ref string, stream, oneShot bool, emit func(*container.StatsResponse) error) error {
	c, err := s.lookup(ref)
	if err != nil {
		return err
	}
	var last *container.StatsResponse
	for {
		now := s.sample(ctx, c)
		if last != nil {
			now.PreRead, now.PreCPUStats = last.Read, last.CPUStats
		}
		switch {
		case !stream && (oneShot || last != nil || now.Read.IsZero()):
			return emit(now)
		case stream:
			if err := emit(now); err != nil {
				return err
			}
		}
		last = now
		select {
		case <-c.gone:
			return nil
		default:
		}
		if s.clock.Sleep(ctx, statsEvery) != nil {
			return nil // the client has seen enough
		}
	}
}

// sample is empty but for the names when the container does not run.
func (s *Service) sample(ctx context.Context, c *instance) *container.StatsResponse {
	c.mu.Lock()
	out := &container.StatsResponse{ID: c.id, Name: "/" + c.rec.Name, OSType: "linux"}
	r, mode := c.run, c.rec.HostConfig.NetworkMode
	c.mu.Unlock()
	if r == nil {
		return out
	}
	st, err := r.task.Stats(ctx)
	if err != nil {
		s.log.Debug("no statistics", "container", c.id, "error", err)
		return out
	}
	fillStats(out, st, s.facts.Cgroup2)
	out.Read = s.clock.Now().UTC()
	out.CPUStats.SystemUsage = systemCPU()
	out.CPUStats.OnlineCPUs = uint32(s.facts.CPUs)
	if out.MemoryStats.Limit == 0 || out.MemoryStats.Limit > s.facts.MemoryTotal {
		out.MemoryStats.Limit = s.facts.MemoryTotal
	}
	if !mode.IsHost() {
		out.Networks = networkStats(r.task.Pid())
	}
	return out
}

// fillStats translates the cgroup's figures. It is pure.
func fillStats(out *container.StatsResponse, st *cgroups.Stats, v2 bool) {
	cpu := st.CpuStats
	out.CPUStats = container.CPUStats{
		CPUUsage: container.CPUUsage{
			TotalUsage: cpu.CpuUsage.TotalUsage, PercpuUsage: cpu.CpuUsage.PercpuUsage,
			UsageInKernelmode: cpu.CpuUsage.UsageInKernelmode, UsageInUsermode: cpu.CpuUsage.UsageInUsermode,
		},
		ThrottlingData: container.ThrottlingData{
			Periods: cpu.ThrottlingData.Periods, ThrottledPeriods: cpu.ThrottlingData.ThrottledPeriods, ThrottledTime: cpu.ThrottlingData.ThrottledTime,
		},
	}
	mem := st.MemoryStats
	out.MemoryStats = container.MemoryStats{Usage: mem.Usage.Usage, Limit: mem.Usage.Limit, Stats: mem.Stats}
	if !v2 {
		out.MemoryStats.MaxUsage, out.MemoryStats.Failcnt = mem.Usage.MaxUsage, mem.Usage.Failcnt
	}
	out.PidsStats = container.PidsStats{Current: st.PidsStats.Current, Limit: st.PidsStats.Limit}
	blk := st.BlkioStats
	out.BlkioStats = container.BlkioStats{
		IoServiceBytesRecursive: blkio(blk.IoServiceBytesRecursive), IoServicedRecursive: blkio(blk.IoServicedRecursive),
		IoQueuedRecursive: blkio(blk.IoQueuedRecursive), IoServiceTimeRecursive: blkio(blk.IoServiceTimeRecursive),
		IoWaitTimeRecursive: blkio(blk.IoWaitTimeRecursive), IoMergedRecursive: blkio(blk.IoMergedRecursive),
		IoTimeRecursive: blkio(blk.IoTimeRecursive), SectorsRecursive: blkio(blk.SectorsRecursive),
	}
}

func blkio(in []cgroups.BlkioStatEntry) []container.BlkioStatEntry {
	var out []container.BlkioStatEntry
	for _, e := range in {
		out = append(out, container.BlkioStatEntry{Major: e.Major, Minor: e.Minor, Op: e.Op, Value: e.Value})
	}
	return out
}

// systemCPU is the time that all processors have spent, in nanoseconds.
func systemCPU() uint64 {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := bytes.Cut(data, []byte("\n"))
	return parseCPULine(string(line))
}

// parseCPULine sums user, nice, system, idle, iowait, irq and softirq of
// proc(5), which are in hundredths of a second.
func parseCPULine(line string) uint64 {
	f := strings.Fields(line)
	var sum uint64
	for i := 1; i < len(f) && i <= 7; i++ {
		n, err := strconv.ParseUint(f[i], 10, 64)
		if err != nil {
			return 0
		}
		sum += n
	}
	return sum * uint64(time.Second/100)
}

// networkStats reads the counters of a process's interfaces.
func networkStats(pid int) map[string]container.NetworkStats {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/net/dev")
	if err != nil {
		return nil
	}
	return parseNetDev(data)
}

func parseNetDev(data []byte) map[string]container.NetworkStats {
	out := map[string]container.NetworkStats{}
	for sc := bufio.NewScanner(bytes.NewReader(data)); sc.Scan(); {
		name, rest, ok := strings.Cut(sc.Text(), ":")
		f := strings.Fields(rest)
		if name = strings.TrimSpace(name); !ok || len(f) < 12 || name == "lo" {
			continue
		}
		var n [12]uint64
		for i := range n {
			v, err := strconv.ParseUint(f[i], 10, 64)
			if err != nil {
				return out
			}
			n[i] = v
		}
		out[name] = container.NetworkStats{
			RxBytes: n[0], RxPackets: n[1], RxErrors: n[2], RxDropped: n[3],
			TxBytes: n[8], TxPackets: n[9], TxErrors: n[10], TxDropped: n[11],
		}
	}
	return out
}
