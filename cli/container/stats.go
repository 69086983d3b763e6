package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/cleatlabs/cleat/cli/completion"
	"github.com/cleatlabs/cleat/cli/env"
	"github.com/cleatlabs/cleat/cli/formatting"
	"github.com/cleatlabs/cleat/client"
)

// NewStatsCommand is `cleat stats`.
func NewStatsCommand(e *env.Env) *cobra.Command {
	var (
		all, noStream bool
		out           formatting.Flags
	)
	cmd := env.Command(env.Spec{
		Use:   "stats [OPTIONS] [CONTAINER...]",
		Short: "Display a live stream of container(s) resource usage statistics",
		Example: `cleat stats
			cleat stats --no-stream --format '{{.Name}} {{.CPUPerc}}' web`,
		Args: env.MinArgs(0), Complete: completion.Containers(e, 0, completion.Running()...),
		Run: func(cmd *cobra.Command, args []string) error {
			engine, err := e.Engine()
			if err != nil {
				return err
			}
			w := &watcher{e: e, engine: engine, stream: !noStream, samples: map[string]*sample{}}
			return w.run(cmd.Context(), args, all, out)
		},
	})
	fs := cmd.Flags()
	fs.BoolVarP(&all, "all", "a", false, "Show all containers (default shows just running)")
	fs.BoolVar(&noStream, "no-stream", false, "Disable streaming stats and only pull the first result")
	fs.BoolVar(&out.NoTrunc, "no-trunc", false, "Do not truncate output")
	out.AddFormat(fs)
	out.AddOutput(fs)
	return cmd
}

// sample is what is known of one container.
type sample struct {
	id, name string
	stats    *container.StatsResponse
	err      error
}

// watcher follows the statistics of containers, each in a goroutine of its own,
// and prints all of them every half second.
type watcher struct {
	e      *env.Env
	engine *client.Engine
	stream bool

	mu      sync.Mutex
	samples map[string]*sample
	order   []string
	wg      sync.WaitGroup
}

func (w *watcher) run(ctx context.Context, names []string, all bool, out formatting.Flags) error {
	ctx, cancel := context.WithCancel(ctx)
	defer func() { cancel(); w.wg.Wait() }()
	first := &sync.WaitGroup{}
	if len(names) == 0 {
		list, err := w.engine.ContainerList(ctx, moby.ContainerListOptions{All: all})
		if err != nil {
			return err
		}
		for _, c := range list.Items {
			w.follow(ctx, c.ID, first)
		}
		if w.stream {
			w.followNew(ctx, all)
		}
	} else {
		for _, n := range names {
			w.follow(ctx, n, first)
		}
	}
	first.Wait()
	if len(names) > 0 {
		if err := w.failures(); err != nil {
			return err
		}
	}
	if !w.stream {
		return w.print(out, "")
	}
	clear := "\x1b[H\x1b[2J"
	if _, ok := w.e.OutTerminal(); !ok {
		clear = ""
	}
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := w.print(out, clear); err != nil {
			return err
		}
		if len(names) > 0 && w.idle() {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// followNew adds containers that start from now on.
func (w *watcher) followNew(ctx context.Context, all bool) {
	actions := []string{string(events.ActionStart), string(events.ActionDie), string(events.ActionDestroy)}
	if all {
		actions = append(actions, string(events.ActionCreate))
	}
	f := moby.Filters{}.Add("type", string(events.ContainerEventType)).Add("event", actions...)
	res := w.engine.Events(ctx, moby.EventsListOptions{Filters: f})
	w.wg.Go(func() {
		for {
			select {
			case <-res.Err:
				return
			case m, ok := <-res.Messages:
				if !ok {
					return
				}
				switch m.Action {
				case events.ActionStart, events.ActionCreate:
					w.follow(ctx, m.Actor.ID, nil)
				case events.ActionDestroy:
					w.drop(m.Actor.ID)
				case events.ActionDie:
					if !all {
						w.drop(m.Actor.ID)
					}
				}
			}
		}
	})
}

func (w *watcher) drop(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.samples, id)
}

// follow reads one container's statistics; first is done with the first sample.
func (w *watcher) follow(ctx context.Context, id string, first *sync.WaitGroup) {
	w.mu.Lock()
	if _, ok := w.samples[id]; ok {
		w.mu.Unlock()
		return
	}
	s := &sample{id: id}
	w.samples[id] = s
	w.order = append(w.order, id)
	w.mu.Unlock()
	got := func() {}
	if first != nil {
		first.Add(1)
		got = sync.OnceFunc(first.Done)
	}
	w.wg.Go(func() {
		defer got()
		res, err := w.engine.ContainerStats(ctx, id, moby.ContainerStatsOptions{Stream: w.stream, IncludePreviousSample: !w.stream})
		if err != nil {
			w.set(s, nil, err)
			return
		}
		defer func() { _ = res.Body.Close() }() // read only
		dec := json.NewDecoder(res.Body)
		for {
			st := &container.StatsResponse{}
			if err := dec.Decode(st); err != nil {
				if !errors.Is(err, io.EOF) || w.stream {
					w.set(s, nil, err)
				}
				return
			}
			w.set(s, st, nil)
			// The first sample of a stream has no predecessor to compare with.
			if !w.stream || st.PreCPUStats.CPUUsage.TotalUsage != 0 || st.CPUStats.CPUUsage.TotalUsage == 0 {
				got()
			}
		}
	})
}

func (w *watcher) set(s *sample, st *container.StatsResponse, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if st != nil {
		s.stats, s.name = st, strings.TrimPrefix(st.Name, "/")
		if st.ID != "" {
			s.id = st.ID
		}
	}
	s.err = err
}

func (w *watcher) failures() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var errs []error
	for _, id := range w.order {
		if s := w.samples[id]; s != nil && s.err != nil && s.stats == nil {
			errs = append(errs, s.err)
		}
	}
	return errors.Join(errs...)
}

// idle says that no container is followed any more.
func (w *watcher) idle() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.samples {
		if s.err == nil {
			return false
		}
	}
	return true
}

func (w *watcher) print(out formatting.Flags, clear string) error {
	w.mu.Lock()
	var rows []any
	var objects []*container.StatsResponse
	for _, id := range w.order {
		if s := w.samples[id]; s != nil {
			rows = append(rows, statsRow(*s, out.NoTrunc))
			objects = append(objects, s.stats)
		}
	}
	w.mu.Unlock()
	var b strings.Builder
	b.WriteString(clear)
	l := formatting.List{
		Format: out.Format, Output: out.Output, Objects: objects, Rows: rows,
		Table: "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}",
		Header: formatting.Header{
			"ID": "CONTAINER ID", "Container": "CONTAINER", "Name": "NAME", "CPUPerc": "CPU %", "MemUsage": "MEM USAGE / LIMIT",
			"MemPerc": "MEM %", "NetIO": "NET I/O", "BlockIO": "BLOCK I/O", "PIDs": "PIDS",
		},
	}
	if err := l.Print(&b); err != nil {
		return err
	}
	_, err := io.WriteString(w.e.Out, b.String())
	return err
}

// statRow has the fields of docker's stats templates.
type statRow struct {
	BlockIO, CPUPerc, Container, ID, MemPerc, MemUsage, Name, NetIO, PIDs string
}

func statsRow(s sample, noTrunc bool) statRow {
	r := statRow{Container: s.id, ID: formatting.ID(s.id, noTrunc), Name: s.name, BlockIO: "--", CPUPerc: "--", MemPerc: "--", MemUsage: "-- / --", NetIO: "--", PIDs: "--"}
	if r.Name == "" {
		r.Name = "--"
	}
	if s.stats == nil || s.err != nil {
		return r
	}
	st := s.stats
	used := usedMemory(st.MemoryStats)
	percent := 0.0
	if st.MemoryStats.Limit > 0 {
		percent = used / float64(st.MemoryStats.Limit) * 100
	}
	var rx, tx uint64
	for _, n := range st.Networks {
		rx, tx = rx+n.RxBytes, tx+n.TxBytes
	}
	read, written := blockIO(st.BlkioStats)
	r.CPUPerc = fmt.Sprintf("%.2f%%", cpuPercent(st))
	r.MemUsage = formatting.BinarySize(used) + " / " + formatting.BinarySize(float64(st.MemoryStats.Limit))
	r.MemPerc = fmt.Sprintf("%.2f%%", percent)
	r.NetIO = formatting.Size(int64(rx)) + " / " + formatting.Size(int64(tx))          //nolint:gosec // counters of this size do not occur
	r.BlockIO = formatting.Size(int64(read)) + " / " + formatting.Size(int64(written)) //nolint:gosec // as above
	r.PIDs = fmt.Sprint(st.PidsStats.Current)
	return r
}

// cpuPercent is 100 for each CPU fully used since the sample before.
func cpuPercent(st *container.StatsResponse) float64 {
	cpu := float64(st.CPUStats.CPUUsage.TotalUsage) - float64(st.PreCPUStats.CPUUsage.TotalUsage)
	system := float64(st.CPUStats.SystemUsage) - float64(st.PreCPUStats.SystemUsage)
	cpus := float64(st.CPUStats.OnlineCPUs)
	if cpus == 0 {
		cpus = float64(len(st.CPUStats.CPUUsage.PercpuUsage))
	}
	if cpu <= 0 || system <= 0 {
		return 0
	}
	return cpu / system * cpus * 100
}

// usedMemory leaves out the page cache that can be dropped at once: cgroup v1
// calls it total_inactive_file, v2 inactive_file.
func usedMemory(m container.MemoryStats) float64 {
	for _, key := range []string{"total_inactive_file", "inactive_file"} {
		if v, ok := m.Stats[key]; ok && v < m.Usage {
			return float64(m.Usage - v)
		}
	}
	return float64(m.Usage)
}

func blockIO(b container.BlkioStats) (read, written uint64) {
	for _, x := range b.IoServiceBytesRecursive {
		switch strings.ToLower(x.Op) {
		case "read":
			read += x.Value
		case "write":
			written += x.Value
		}
	}
	return read, written
}
