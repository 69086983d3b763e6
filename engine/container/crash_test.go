package container

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cleatlabs/cleat/internal/safepath"
	"github.com/cleatlabs/cleat/internal/testx"
)

// The shim's exit.json goes with the task: a daemon that dies right then must
// find the exit code in the record, or it would restart what ended well.
func TestEndIsOnDiskBeforeTheTaskGoes(t *testing.T) {
	for name, c := range map[string]struct {
		policy container.RestartPolicyMode
		code   int
		want   state
	}{
		"ended well":   {container.RestartPolicyOnFailure, 0, container.StateExited},
		"no policy":    {container.RestartPolicyDisabled, 4, container.StateExited},
		"will restart": {container.RestartPolicyAlways, 3, container.StateRestarting},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			found := make(chan *record, 1)
			w.onDelete = func(id string) {
				rec, err := readRecord(filepath.Join(w.root, id))
				if err != nil {
					t.Error(err)
				}
				select {
				case found <- rec:
				default:
				}
			}
			s := w.service()
			id := create(t, s, "", policy(container.RestartPolicy{Name: c.policy}), "sleep")
			must(t, s.Start(t.Context(), id))
			w.task(id).end(c.code, w.clock.Now())
			rec := <-found
			if rec.State != c.want || rec.ExitCode != c.code || rec.FinishedAt.IsZero() {
				t.Errorf("on disk: %s, code %d, finished %v; want %s, %d", rec.State, rec.ExitCode, rec.FinishedAt, c.want, c.code)
			}
			waitState(t, s, id, c.want)
		})
	}
}

// A stop that comes while an end is being cleared away wins over the policy.
func TestStopDuringClearAway(t *testing.T) {
	w := newWorld(t)
	deleting, goOn := make(chan struct{}), make(chan struct{})
	w.onDelete = func(string) { close(deleting); <-goOn }
	s := w.service()
	id := create(t, s, "", policy(container.RestartPolicy{Name: "always"}), "sleep")
	must(t, s.Start(t.Context(), id))
	w.task(id).end(1, w.clock.Now())
	<-deleting
	c, err := s.lookup(id)
	must(t, err)
	stopped := make(chan error, 1)
	go func() { stopped <- s.Stop(context.Background(), id, StopOptions{}) }()
	testx.Eventually(t, 30*time.Second, func() string {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.intent != intentStop {
			return "the stop is not noted"
		}
		return ""
	})
	close(goOn)
	must(t, <-stopped)
	rec, err := readRecord(filepath.Join(w.root, id))
	must(t, err)
	if st := stateOf(t, s, id); st.Status != container.StateExited || rec.State != container.StateExited || !rec.ManuallyStopped {
		t.Errorf("memory %s; disk %s, manually stopped %v", st.Status, rec.State, rec.ManuallyStopped)
	}
}

// An exec whose shim does not answer holds up nobody else.
func TestStuckExecHoldsUpNobody(t *testing.T) {
	w := newWorld(t)
	s := w.service()
	ctx := t.Context()
	stuck, other := create(t, s, "stuck", nil, "sleep"), create(t, s, "other", nil, "sleep")
	must(t, s.Start(ctx, stuck))
	must(t, s.Start(ctx, other))
	inExec, goOn := make(chan struct{}), make(chan struct{})
	w.onExec = func(id string) {
		if id == stuck {
			close(inExec)
			<-goOn
		}
	}
	cmd := container.ExecCreateRequest{Cmd: []string{"true"}}
	e, err := s.ExecCreate(ctx, stuck, cmd)
	must(t, err)
	started := make(chan error, 1)
	go func() {
		_, _, err := s.ExecStart(context.Background(), e, container.ExecStartRequest{}, false)
		started <- err
	}()
	<-inExec
	free := make(chan error, 1)
	go func() {
		_, err := s.ExecCreate(ctx, other, cmd)
		if err == nil {
			_, err = s.Inspect(ctx, stuck, false)
		}
		if err == nil {
			_, err = s.ExecInspect(ctx, e)
		}
		if err == nil {
			_, err = s.Create(ctx, CreateOptions{Config: &container.Config{Image: "demo", Cmd: []string{"true"}}})
		}
		free <- err
	}()
	select {
	case err := <-free:
		must(t, err)
	case <-time.After(30 * time.Second):
		close(goOn)
		t.Fatal("an exec that does not start holds up other containers")
	}
	if _, _, err = s.ExecStart(ctx, e, container.ExecStartRequest{}, false); err == nil {
		t.Error("an exec was started twice")
	}
	close(goOn)
	must(t, <-started)
}

// A daemon that died between freezing and recording, or during a commit, comes
// back to a container that is as its record says.
func TestRestoreSettlesTheFreezer(t *testing.T) {
	w := newWorld(t)
	s := w.service()
	ctx := t.Context()
	runs, paused := create(t, s, "runs", nil, "sleep"), create(t, s, "paused", nil, "sleep")
	must(t, s.Start(ctx, runs))
	must(t, s.Start(ctx, paused))
	must(t, s.Pause(ctx, paused))
	must(t, s.Shutdown(context.Background()))
	w.task(runs).frozen.Store(true)
	w.task(paused).frozen.Store(false)

	s = w.service()
	if w.task(runs).frozen.Load() {
		t.Error("a running container stays frozen")
	}
	if !w.task(paused).frozen.Load() {
		t.Error("a paused container runs")
	}
	must(t, s.Unpause(ctx, paused))
	if w.task(paused).frozen.Load() {
		t.Error("unpause does nothing")
	}
}

func subpathMount(name, sub string) func(*CreateOptions) {
	return func(o *CreateOptions) {
		o.HostConfig.Mounts = []mount.Mount{{
			Type: mount.TypeVolume, Source: name, Target: "/sub", VolumeOptions: &mount.VolumeOptions{Subpath: sub},
		}}
	}
}

// testVolume makes a volume's folder with a file sub/mine in it.
func testVolume(t *testing.T, w *world, name string) string {
	t.Helper()
	vol := (*fakeVolumes)(w).dir(name)
	must(t, os.MkdirAll(filepath.Join(vol, "sub"), 0o755))
	t.Cleanup(func() { must(t, os.RemoveAll(vol)) })
	must(t, os.WriteFile(filepath.Join(vol, "sub/mine"), []byte("data"), 0o644))
	return vol
}

// Whoever writes to a volume cannot turn another container's subpath into a
// way to the host, however late.
func TestSubpathCannotBeSwapped(t *testing.T) {
	w := newWorld(t)
	s := w.service()
	ctx := t.Context()
	vol := testVolume(t, w, "shared")
	id := create(t, s, "", subpathMount("shared", "sub"), "sleep")
	seen := ""
	w.onCreate = func(spec *specs.Spec) {
		must(t, os.Rename(filepath.Join(vol, "sub"), filepath.Join(vol, "old")))
		must(t, os.Symlink(filepath.Join(w.rootfs, "etc"), filepath.Join(vol, "sub")))
		for _, m := range spec.Mounts {
			if m.Destination == "/sub" {
				seen = names(t, m.Source)
			}
		}
	}
	must(t, s.Start(ctx, id))
	if seen != "mine" {
		t.Errorf("the container sees %q", seen)
	}
	must(t, s.Stop(ctx, id, StopOptions{}))
	noMountsBelow(t, w.root)
	must(t, s.Remove(ctx, id, RemoveOptions{}))
	if data, err := os.ReadFile(filepath.Join(vol, "old/mine")); err != nil || string(data) != "data" {
		t.Errorf("the volume's data: %q, %v", data, err)
	}
}

// What a start that was cut off has mounted goes with the next daemon.
func TestRestoreUnmountsHalfStarts(t *testing.T) {
	w := newWorld(t)
	s := w.service()
	vol := testVolume(t, w, "half")
	id := create(t, s, "", subpathMount("half", "sub"), "sleep")
	must(t, s.Shutdown(context.Background()))
	dir, rubbish := filepath.Join(w.root, id), filepath.Join(w.root, "rubbish")
	t.Cleanup(func() { must(t, unmountOwn(dir)); must(t, unmountOwn(rubbish)) })
	for range 2 {
		_, err := bindSubpath(dir, 0, vol, "sub")
		must(t, err)
	}
	must(t, mountShm(filepath.Join(dir, shmDir), 1<<20))
	_, err := bindSubpath(rubbish, 0, vol, "sub")
	must(t, err)
	w.service()
	noMountsBelow(t, w.root)
	if _, err := os.Stat(filepath.Join(vol, "sub/mine")); err != nil {
		t.Errorf("the volume's data: %v", err)
	}
}

func TestSubpathStaysInside(t *testing.T) {
	w := newWorld(t)
	vol := t.TempDir()
	must(t, os.Symlink("/etc", filepath.Join(vol, "out")))
	must(t, os.WriteFile(filepath.Join(vol, "file"), []byte("f"), 0o644))
	dir := filepath.Join(w.root, "c")
	t.Cleanup(func() { must(t, unmountOwn(dir)) })
	if p, err := bindSubpath(dir, 0, vol, "out"); err == nil {
		t.Errorf("a link out of the volume was mounted at %s", p)
	}
	p, err := bindSubpath(dir, 1, vol, "file")
	must(t, err)
	if data, err := os.ReadFile(p); err != nil || string(data) != "f" {
		t.Errorf("%q, %v", data, err)
	}
	must(t, unmountOwn(dir))
	must(t, unmountOwn(dir))
	noMountsBelow(t, w.root)
}

// cp of a stopped container shows the subpath, not the volume around it.
func TestCopyFromSubpath(t *testing.T) {
	w := newWorld(t)
	s := w.service()
	vol := testVolume(t, w, "cp")
	must(t, os.WriteFile(filepath.Join(vol, "secret"), nil, 0o644))
	must(t, os.MkdirAll(filepath.Join(w.rootfs, "sub"), 0o755))
	id := create(t, s, "", subpathMount("cp", "sub"), "sleep")
	c, err := s.lookup(id)
	must(t, err)
	must(t, s.withFiles(t.Context(), c, true, func(f *files) error {
		dir, err := f.root.OpenPath("/sub")
		must(t, err)
		defer dir.Close() // a handle
		if got := names(t, safepath.FDPath(dir)); got != "mine" {
			t.Errorf("/sub holds %q", got)
		}
		return nil
	}))
}

func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return strings.Join(list, " ")
}

func noMountsBelow(t *testing.T, dir string) {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	for line := range strings.Lines(string(data)) {
		if strings.Contains(line, " "+dir+"/") {
			t.Errorf("still mounted: %s", line)
		}
	}
}
