package container

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/engine/filter"
	"github.com/cleatlabs/cleat/engine/runtime"
	"github.com/cleatlabs/cleat/internal/errdefs"
	"github.com/cleatlabs/cleat/internal/testx"
)

func create(t *testing.T, s *Service, name string, edit func(*CreateOptions), cmd ...string) string {
	t.Helper()
	o := CreateOptions{Name: name, Config: &container.Config{Image: "demo", Cmd: cmd}, HostConfig: &container.HostConfig{}}
	if edit != nil {
		edit(&o)
	}
	r, err := s.Create(t.Context(), o)
	must(t, err)
	return r.ID
}

func stateOf(t *testing.T, s *Service, ref string) container.State {
	t.Helper()
	r, err := s.Inspect(t.Context(), ref, false)
	must(t, err)
	return *r.State
}

func waitState(t *testing.T, s *Service, ref string, want state) {
	t.Helper()
	testx.Eventually(t, 30*time.Second, func() string {
		if st := stateOf(t, s, ref).Status; st != want {
			return "state is " + string(st) + ", want " + string(want)
		}
		return ""
	})
}

func wantClass(t *testing.T, err, class error, words string) {
	t.Helper()
	if !errors.Is(err, class) || !strings.Contains(err.Error(), words) {
		t.Fatalf("got %v, want class %v with %q", err, class, words)
	}
}

func policy(p container.RestartPolicy) func(*CreateOptions) {
	return func(o *CreateOptions) { o.HostConfig.RestartPolicy = p }
}

func TestLife(t *testing.T) {
	w := newWorld(t)
	s := w.service()
	ctx := t.Context()
	id := create(t, s, "one", nil, "sleep")
	if st := stateOf(t, s, "one"); st.Status != container.StateCreated || st.Running {
		t.Fatalf("after create: %+v", st)
	}
	must(t, s.Start(ctx, "one"))
	wantClass(t, s.Start(ctx, "one"), errdefs.ErrNotModified, "")
	wantClass(t, s.Remove(ctx, "one", RemoveOptions{}), errdefs.ErrConflict,
		`cannot remove container "/one": container is running: stop the container before removing or force remove`)
	must(t, s.Pause(ctx, "one"))
	wantClass(t, s.Pause(ctx, "one"), errdefs.ErrConflict, "is already paused")
	must(t, s.Unpause(ctx, "one"))
	wantClass(t, s.Unpause(ctx, "one"), errdefs.ErrConflict, "is not paused")
	_, err := s.Create(ctx, CreateOptions{Name: "one", Config: &container.Config{Image: "demo"}})
	wantClass(t, err, errdefs.ErrConflict, `Conflict. The container name "/one" is already in use by container "`+id+`"`)

	exits, err := s.Wait(ctx, id[:12], "")
	must(t, err)
	must(t, s.Stop(ctx, "one", StopOptions{}))
	if r := <-exits; r.StatusCode != 143 {
		t.Fatalf("wait: %+v", r)
	}
	wantClass(t, s.Stop(ctx, "one", StopOptions{}), errdefs.ErrNotModified, "")
	wantClass(t, s.Kill(ctx, "one", ""), errdefs.ErrConflict, "is not running")
	must(t, s.Rename(ctx, "one", "two"))
	_, err = s.Inspect(ctx, "one", false)
	wantClass(t, err, errdefs.ErrNotFound, "No such container: one")
	must(t, s.Restart(ctx, "two", StopOptions{}))
	must(t, s.Remove(ctx, "two", RemoveOptions{Force: true}))
	if left := w.leftovers(); left != "" {
		t.Fatal(left)
	}
	want := []string{"create", "start", "pause", "unpause", "kill", "die", "stop", "rename", "start", "restart", "kill", "die", "destroy"}
	if got := w.eventList(); !slices.Equal(got, want) {
		t.Fatalf("events\n%v, want\n%v", got, want)
	}
}

func TestStopKillsTheDeaf(t *testing.T) {
	w := newWorld(t)
	s := w.service()
	create(t, s, "deaf", nil, "deaf")
	must(t, s.Start(t.Context(), "deaf"))
	done := make(chan error, 1)
	go func() { done <- s.Stop(context.Background(), "deaf", StopOptions{}) }()
	w.clock.BlockUntil(1)
	w.clock.Advance(10 * time.Second)
	must(t, <-done)
	if st := stateOf(t, s, "deaf"); st.ExitCode != 137 {
		t.Fatalf("%+v", st)
	}
}

func TestAutoRemove(t *testing.T) {
	w := newWorld(t)
	s := w.service()
	id := create(t, s, "", func(o *CreateOptions) { o.HostConfig.AutoRemove = true }, "false")
	removed, err := s.Wait(t.Context(), id, container.WaitConditionRemoved)
	must(t, err)
	must(t, s.Start(t.Context(), id))
	if r := <-removed; r.StatusCode != 1 {
		t.Fatalf("%+v", r)
	}
	if left := w.leftovers(); left != "" {
		t.Fatal(left)
	}
	if _, err := os.Stat(filepath.Join(w.root, id)); !os.IsNotExist(err) {
		t.Fatal("the folder is still there")
	}
}

func TestFailedStarts(t *testing.T) {
	for _, tt := range []struct {
		name, cmd, network string
		class              error
		code               int
	}{
		{"missing", "missing", "", errdefs.ErrInvalidArgument, 127},
		{"noexec", "noexec", "", errdefs.ErrInvalidArgument, 126},
		{"network", "sleep", "broken", errdefs.ErrUnavailable, 128},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			s := w.service()
			id := create(t, s, tt.name, func(o *CreateOptions) { o.HostConfig.NetworkMode = container.NetworkMode(tt.network) }, tt.cmd)
			a, _, err := s.Attach(t.Context(), id, runtime.AttachOptions{Stdout: true})
			must(t, err)
			wantClass(t, s.Start(t.Context(), id), tt.class, "")
			if b, err := io.ReadAll(a.Output()); err != nil || len(b) > 0 {
				t.Fatalf("attachment: %q, %v", b, err)
			}
			st := stateOf(t, s, id)
			if st.ExitCode != tt.code || st.Status != container.StateCreated || st.Error == "" {
				t.Fatalf("%+v", st)
			}
			if w.task(id) != nil || len(w.boxes) > 0 {
				t.Fatal("something is left: " + w.leftovers())
			}
			must(t, s.Remove(t.Context(), id, RemoveOptions{}))
		})
	}
}

func TestAttachBeforeStart(t *testing.T) {
	w := newWorld(t)
	s := w.service()
	id := create(t, s, "", nil, "sleep")
	a, tty, err := s.Attach(t.Context(), id, runtime.AttachOptions{Stdout: true})
	must(t, err)
	if tty {
		t.Fatal("it has no terminal")
	}
	read := make(chan string, 1)
	go func() {
		b, err := io.ReadAll(a.Output())
		if err != nil {
			b = []byte(err.Error())
		}
		read <- string(b)
	}()
	must(t, s.Start(t.Context(), id))
	task := w.task(id)
	_, err = io.WriteString(task.outW, "hello")
	must(t, err)
	must(t, s.Kill(t.Context(), id, "KILL"))
	if got := <-read; got != "hello" {
		t.Fatalf("%q", got)
	}
	// One that is never started ends with the container's removal.
	b, _, err := s.Attach(t.Context(), id, runtime.AttachOptions{Stdout: true})
	must(t, err)
	must(t, s.Remove(t.Context(), id, RemoveOptions{}))
	if out, err := io.ReadAll(b.Output()); err != nil || len(out) > 0 {
		t.Fatalf("%q, %v", out, err)
	}
}

func TestRestartPolicy(t *testing.T) {
	w := newWorld(t)
	s := w.service()
	id := create(t, s, "", policy(container.RestartPolicy{Name: "on-failure", MaximumRetryCount: 2}), "false")
	must(t, s.Start(t.Context(), id))
	for i := range 2 {
		waitState(t, s, id, container.StateRestarting)
		w.clock.BlockUntil(1)
		w.clock.Advance(time.Second)
		testx.Eventually(t, 30*time.Second, func() string {
			if r, err := s.Inspect(context.Background(), id, false); err != nil || r.RestartCount != i+1 {
				return "not restarted yet"
			}
			return ""
		})
	}
	waitState(t, s, id, container.StateExited)
}

func TestStopEndsBackOff(t *testing.T) {
	w := newWorld(t)
	s := w.service()
	id := create(t, s, "", policy(container.RestartPolicy{Name: "always"}), "false")
	must(t, s.Start(t.Context(), id))
	waitState(t, s, id, container.StateRestarting)
	must(t, s.Stop(t.Context(), id, StopOptions{}))
	if st := stateOf(t, s, id); st.Status != container.StateExited {
		t.Fatalf("%+v", st)
	}
	w.clock.Advance(time.Hour)
	if st := stateOf(t, s, id); st.Status != container.StateExited {
		t.Fatalf("it was started again: %+v", st)
	}
}

// A daemon that is killed leaves containers running, ended, half-started and
// half-removed; the next one sorts them out.
func TestRestore(t *testing.T) {
	w := newWorld(t)
	s := w.service()
	ctx := t.Context()
	runs := create(t, s, "runs", nil, "sleep")
	ended := create(t, s, "ended", nil, "sleep")
	lost := create(t, s, "lost", nil, "sleep")
	always := create(t, s, "always", policy(container.RestartPolicy{Name: "always"}), "sleep")
	stopped := create(t, s, "stopped", policy(container.RestartPolicy{Name: "unless-stopped"}), "sleep")
	auto := create(t, s, "auto", func(o *CreateOptions) { o.HostConfig.AutoRemove = true }, "sleep")
	fresh := create(t, s, "fresh", nil, "sleep")
	half := create(t, s, "half", nil, "sleep")
	for _, id := range []string{runs, ended, lost, always, stopped, auto} {
		must(t, s.Start(ctx, id))
	}
	must(t, s.Stop(ctx, stopped, StopOptions{}))
	must(t, s.Shutdown(context.Background()))

	w.task(ended).end(3, w.clock.Now())
	w.task(always).end(4, w.clock.Now())
	w.task(auto).end(5, w.clock.Now())
	w.mu.Lock()
	delete(w.tasks, lost) // the machine went down
	w.layers["orphan"] = true
	w.tasks["orphan"] = &fakeTask{fakeProcess: newFakeProcess(w.tasks[runs].spec.Process), w: w, id: "orphan"}
	w.boxes["orphan"] = true
	w.mu.Unlock()
	rec, err := readRecord(filepath.Join(w.root, half))
	must(t, err)
	rec.State = container.StateRemoving
	must(t, writeRecord(filepath.Join(w.root, half), rec, volatile))
	must(t, os.MkdirAll(filepath.Join(w.root, "rubbish"), 0o700))

	s = w.service()
	for id, want := range map[string]state{runs: "running", ended: "exited", lost: "exited", stopped: "exited", fresh: "created"} {
		if st := stateOf(t, s, id); st.Status != want {
			t.Errorf("%s: %+v, want %s", id, st, want)
		}
	}
	if c := stateOf(t, s, ended).ExitCode; c != 3 {
		t.Errorf("exit code %d", c)
	}
	waitState(t, s, always, container.StateRunning)
	for _, id := range []string{auto, half} {
		if _, err := s.Inspect(ctx, id, false); !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("%s is still there: %v", id, err)
		}
	}
	if w.task("orphan") != nil || w.layers["orphan"] || w.boxes["orphan"] {
		t.Error("what has no record is still there")
	}
	if _, err := os.Stat(filepath.Join(w.root, "rubbish")); err == nil {
		t.Error("a folder without a record is still there")
	}
	// The one that lives is waited for again.
	exits, err := s.Wait(ctx, runs, "")
	must(t, err)
	w.task(runs).end(9, w.clock.Now())
	if r := <-exits; r.StatusCode != 9 {
		t.Errorf("%+v", r)
	}
}

func TestExec(t *testing.T) {
	w := newWorld(t)
	s := w.service()
	ctx := t.Context()
	id := create(t, s, "", nil, "sleep")
	_, err := s.ExecCreate(ctx, id, container.ExecCreateRequest{Cmd: []string{"false"}})
	wantClass(t, err, errdefs.ErrConflict, "is not running")
	must(t, s.Start(ctx, id))
	e, err := s.ExecCreate(ctx, id, container.ExecCreateRequest{Cmd: []string{"false"}, AttachStdout: true, User: "bob"})
	must(t, err)
	a, _, err := s.ExecStart(ctx, e, container.ExecStartRequest{}, true)
	must(t, err)
	_, err = io.ReadAll(a.Output())
	must(t, err)
	testx.Eventually(t, 30*time.Second, func() string {
		i, err := s.ExecInspect(ctx, e)
		if err != nil || i.Running || i.ExitCode == nil || *i.ExitCode != 1 {
			return "the exec has not ended"
		}
		return ""
	})
	_, _, err = s.ExecStart(ctx, e, container.ExecStartRequest{}, false)
	wantClass(t, err, errdefs.ErrConflict, "already run")
	m, err := s.ExecCreate(ctx, id, container.ExecCreateRequest{Cmd: []string{"missing"}})
	must(t, err)
	_, _, err = s.ExecStart(ctx, m, container.ExecStartRequest{}, false)
	wantClass(t, err, errdefs.ErrInvalidArgument, "not found")
	_, err = s.ExecInspect(ctx, "nope")
	wantClass(t, err, errdefs.ErrNotFound, "No such exec instance: nope")
}

func TestHealth(t *testing.T) {
	w := newWorld(t)
	s := w.service()
	id := create(t, s, "", func(o *CreateOptions) {
		o.Config.Healthcheck = &container.HealthConfig{Test: []string{"CMD", "false"}, Interval: time.Second, Retries: 2}
	}, "sleep")
	must(t, s.Start(t.Context(), id))
	if h := stateOf(t, s, id).Health; h == nil || h.Status != container.Starting {
		t.Fatalf("%+v", h)
	}
	testx.Eventually(t, 30*time.Second, func() string {
		if w.clock.Waiting() > 0 {
			w.clock.Advance(time.Second)
		}
		h := stateOf(t, s, id).Health
		if h.Status != container.Unhealthy || h.FailingStreak < 2 || len(h.Log) == 0 {
			return "not unhealthy yet"
		}
		return ""
	})
	must(t, s.Kill(t.Context(), id, ""))
}

func TestListFilters(t *testing.T) {
	w := newWorld(t)
	s := w.service()
	ctx := t.Context()
	a := create(t, s, "alpha", func(o *CreateOptions) { o.Config.Labels = map[string]string{"k": "v"} }, "sleep")
	w.clock.Advance(time.Second)
	b := create(t, s, "beta", nil, "false")
	must(t, s.Start(ctx, a))
	must(t, s.Start(ctx, b))
	waitState(t, s, b, container.StateExited)
	for _, tt := range []struct {
		o    ListOptions
		want []string
	}{
		{ListOptions{}, []string{a}},
		{ListOptions{All: true}, []string{b, a}},
		{ListOptions{Limit: 1}, []string{b}},
		{ListOptions{Filters: filter.Args{"status": {"exited"}}}, []string{b}},
		{ListOptions{Filters: filter.Args{"exited": {"1"}}}, []string{b}},
		{ListOptions{All: true, Filters: filter.Args{"label": {"k=v"}}}, []string{a}},
		{ListOptions{All: true, Filters: filter.Args{"name": {"^/alp"}}}, []string{a}},
		{ListOptions{All: true, Filters: filter.Args{"since": {"alpha"}}}, []string{b}},
		{ListOptions{All: true, Filters: filter.Args{"before": {"beta"}}}, []string{a}},
		{ListOptions{All: true, Filters: filter.Args{"ancestor": {"absent"}}}, nil},
		{ListOptions{All: true, Filters: filter.Args{"network": {"bridge"}}}, []string{b, a}},
	} {
		list, err := s.List(ctx, tt.o)
		must(t, err)
		var got []string
		for _, c := range list {
			got = append(got, c.ID)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%+v: %v, want %v", tt.o, got, tt.want)
		}
	}
	_, err := s.List(ctx, ListOptions{Filters: filter.Args{"nope": {"1"}}})
	wantClass(t, err, errdefs.ErrInvalidArgument, "")
	report, err := s.Prune(ctx, nil)
	must(t, err)
	if !slices.Equal(report.ContainersDeleted, []string{b}) || report.SpaceReclaimed != 7 {
		t.Fatalf("%+v", report)
	}
}

func TestManyAtOnce(t *testing.T) {
	w := newWorld(t)
	s := w.service()
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			r, err := s.Create(context.Background(), CreateOptions{Config: &container.Config{Image: "demo"}})
			if err == nil {
				err = s.Start(context.Background(), r.ID)
			}
			if err == nil {
				_, err = s.List(context.Background(), ListOptions{})
			}
			if err == nil {
				err = s.Remove(context.Background(), r.ID, RemoveOptions{Force: true})
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if left := w.leftovers(); left != "" {
		t.Fatal(left)
	}
}

func TestVolumes(t *testing.T) {
	w := newWorld(t)
	must(t, os.MkdirAll(filepath.Join(w.rootfs, "data/sub"), 0o750))
	must(t, os.WriteFile(filepath.Join(w.rootfs, "data/sub/f"), []byte("from the image"), 0o640))
	s := w.service()
	id := create(t, s, "", func(o *CreateOptions) {
		o.HostConfig.Binds = []string{"named:/data"}
		o.Config.Volumes = map[string]struct{}{"/anon": {}}
	}, "sleep")
	got, err := os.ReadFile((*fakeVolumes)(w).dir("named") + "/sub/f")
	if err != nil || string(got) != "from the image" {
		t.Fatalf("%q, %v", got, err)
	}
	if len(w.holds) != 2 {
		t.Fatalf("%v", w.holds)
	}
	must(t, s.Start(t.Context(), id))
	must(t, s.Remove(t.Context(), id, RemoveOptions{Force: true, Volumes: true}))
	if len(w.holds) != 0 || w.leftovers() != "" {
		t.Fatalf("%v %s", w.holds, w.leftovers())
	}
	if _, err := os.Stat((*fakeVolumes)(w).dir("named")); err != nil {
		t.Fatal("a named volume was removed")
	}
}
