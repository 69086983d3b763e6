package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/moby/moby/api/types/container"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/engine/snapshot"
	"github.com/cleatlabs/cleat/internal/errdefs"
	"github.com/cleatlabs/cleat/oci/ocitest"
	"github.com/cleatlabs/cleat/oci/store"
)

// The child process does what it is killed in until it is killed.
const (
	crashRoot = "CLEAT_TEST_CRASH_ROOT"
	crashHost = "CLEAT_TEST_CRASH_HOST"
)

func TestMain(m *testing.M) {
	store.LogTo(slog.New(slog.DiscardHandler))
	if root := os.Getenv(crashRoot); root != "" {
		crashChild(root, os.Getenv(crashHost))
	}
	os.Exit(m.Run())
}

func crashChild(root, host string) {
	die := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "crash child:", err)
			os.Exit(3)
		}
	}
	ctx := context.Background()
	log := slog.New(slog.DiscardHandler)
	name, sn, err := snapshot.Open(snapshot.Config{Root: filepath.Join(root, "snapshots"), Driver: "auto"}, log)
	die(err)
	st, err := store.Open(ctx, store.Config{Root: root}, map[string]snapshots.Snapshotter{name: sn}, log)
	die(err)
	die(st.Start(ctx))
	s, err := New(Config{}, st, name, &recorder{}, time.Now, log)
	die(err)
	fmt.Println("ready")
	for n := 0; ; n++ {
		var buf bytes.Buffer
		i := big("load:" + fmt.Sprint(n%3))
		i.Layers[0].Files[1].Data = fmt.Appendf(nil, "load %d\n", n)
		die(ocitest.WriteOCI(&buf, i))
		die(s.Load(ctx, &buf, nil, nil))
		fmt.Println("named", i.Names[0])
		ref := host + "/lib/demo:1"
		die(s.Pull(ctx, PullOptions{Ref: ref}))
		fmt.Println("named", ref)
		img, err := s.Get(ctx, ref, nil)
		die(err)
		key := fmt.Sprintf("c%d-%d", os.Getpid(), n)
		die(s.PrepareSnapshot(ctx, key, img))
		fmt.Println("prepared", key)
		m, err := s.SnapshotMounts(ctx, key)
		die(err)
		if m[0].Type == "overlay" {
			for _, o := range m[0].Options {
				if dir, ok := strings.CutPrefix(o, "upperdir="); ok {
					die(os.WriteFile(filepath.Join(dir, "written"), fmt.Append(nil, n), 0o644))
				}
			}
		}
		_, err = s.Commit(ctx, CommitOptions{SnapshotKey: key, Parent: img, Repo: "commit", Tag: fmt.Sprint(n % 2), ContainerConfig: &container.Config{}})
		die(err)
		_, err = s.Remove(ctx, ref, RemoveOptions{})
		die(err)
		if n%2 == 1 {
			die(s.RemoveSnapshot(ctx, key))
			fmt.Println("removed", key)
		}
	}
}

// TestKilledAtRandom kills a process that pulls, loads, commits and removes, at
// many moments, and each time opens what it left: every name must lead to a
// complete image, every writable layer must mount, and after a collection
// nothing may be there that nothing refers to.
func TestKilledAtRandom(t *testing.T) {
	needRoot(t)
	_, host := serve(t, rangeRegistry(t, big()))
	root := t.TempDir()
	rounds := 12
	if testing.Short() {
		rounds = 3
	}
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewSource(seed))
	for round := range rounds {
		prepared := killedRun(t, root, host, time.Duration(rnd.Intn(250))*time.Millisecond)
		f := &fixture{rec: &recorder{}, root: root}
		f.open(t, nil)
		verifyStore(t, f, prepared)
		f.shut(t)
		if t.Failed() {
			t.Fatalf("round %d", round)
		}
	}
}

// killedRun lets the child work for a while after it is ready, and returns the
// writable layers that it said exist.
func killedRun(t *testing.T, root, host string, after time.Duration) map[string]bool {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), crashRoot+"="+root, crashHost+"="+host)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	first := make([]byte, len("ready\n"))
	if _, err := io.ReadFull(out, first); err != nil {
		t.Fatalf("child: %v: %s", err, errOut.String())
	}
	kill := time.AfterFunc(after, func() { _ = cmd.Process.Kill() }) // it may have ended by itself: Wait tells
	defer kill.Stop()
	said, err := io.ReadAll(out)
	must(t, err)
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() == 3 {
		t.Fatalf("child ended by itself: %v: %s", err, errOut.String())
	}
	prepared := map[string]bool{}
	for _, line := range strings.Split(string(said), "\n") {
		word, key, _ := strings.Cut(line, " ")
		switch word {
		case "prepared":
			prepared[key] = true
		case "removed":
			delete(prepared, key)
		}
	}
	return prepared
}

func verifyStore(t *testing.T, f *fixture, prepared map[string]bool) {
	t.Helper()
	ctx := f.st.Context(t.Context())
	all, err := f.st.Images().List(ctx)
	must(t, err)
	reachable := map[digest.Digest]bool{}
	for _, i := range all {
		err := images.Walk(ctx, images.HandlerFunc(func(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
			reachable[d.Digest] = true
			ra, err := f.st.Content().ReaderAt(ctx, d)
			if err != nil {
				return nil, err
			}
			defer ra.Close()
			got, err := digest.FromReader(content.NewReader(ra))
			if err == nil && got != d.Digest {
				err = fmt.Errorf("blob %s has digest %s", d.Digest, got)
			}
			if err != nil {
				return nil, err
			}
			return f.st.Children(ctx, d)
		}), i.Target)
		if err != nil {
			t.Errorf("image %s: %v", i.Name, err)
			continue
		}
		img, err := f.Get(t.Context(), i.Target.Digest.String(), nil)
		must(t, err)
		must(t, f.PrepareSnapshot(t.Context(), "probe", img))
		checkMounts(t, f, "probe")
		must(t, f.RemoveSnapshot(t.Context(), "probe"))
	}
	keys, err := f.SnapshotKeys(t.Context())
	must(t, err)
	for _, k := range keys {
		_, acknowledged := prepared[k]
		delete(prepared, k)
		// Killed between the lease and the layer: only the lease is there, for
		// whoever clears away to find.
		if _, err := f.SnapshotMounts(t.Context(), k); acknowledged || !errors.Is(err, errdefs.ErrNotFound) {
			checkMounts(t, f, k)
		}
		must(t, f.RemoveSnapshot(t.Context(), k))
	}
	t.Logf("%d names, %d blobs, %d writable layers", len(all), len(reachable), len(keys))
	for k := range prepared {
		t.Errorf("writable layer %s is gone", k)
	}
	must(t, f.st.Collect(t.Context()))
	verifyNothingElse(t, f, reachable)
}

func checkMounts(t *testing.T, f *fixture, key string) {
	t.Helper()
	m, err := f.SnapshotMounts(t.Context(), key)
	must(t, err)
	err = mount.WithTempMount(t.Context(), m, func(dir string) error {
		checkTwo(t, dir)
		if st, err := os.Stat(filepath.Join(dir, "big")); err != nil || st.Size() != 600<<10 {
			return fmt.Errorf("big: %v, %v", st, err)
		}
		return nil
	})
	if err != nil {
		t.Errorf("writable layer %s: %v", key, err)
	}
}

// verifyNothingElse compares the disk with what the names reach. Blobs that a
// lease of an interrupted pull keeps are allowed.
func verifyNothingElse(t *testing.T, f *fixture, reachable map[digest.Digest]bool) {
	t.Helper()
	ctx := f.st.Context(t.Context())
	ls, err := f.st.Leases().List(ctx)
	must(t, err)
	for _, l := range ls {
		if !strings.HasPrefix(l.ID, "pull/") {
			t.Errorf("lease %s is left", l.ID)
		}
		must(t, f.st.Leases().Delete(ctx, l))
	}
	must(t, f.st.Collect(t.Context()))
	blobs, err := os.ReadDir(filepath.Join(f.root, "content/blobs/sha256"))
	must(t, err)
	for _, b := range blobs {
		if !reachable[digest.NewDigestFromEncoded(digest.SHA256, b.Name())] {
			t.Errorf("blob %s is left", b.Name())
		}
	}
	ingests, err := os.ReadDir(filepath.Join(f.root, "content/ingest"))
	must(t, err)
	if len(ingests) > 0 {
		t.Errorf("%d ingests are left", len(ingests))
	}
	known := 0
	must(t, f.sn.Walk(ctx, func(_ context.Context, i snapshots.Info) error {
		known++
		if i.Kind == snapshots.KindActive {
			t.Errorf("active snapshot %s is left", i.Name)
		}
		return nil
	}))
	dirs, err := os.ReadDir(filepath.Join(f.root, "snapshots", f.snName, "snapshots"))
	must(t, err)
	if len(dirs) != known {
		t.Errorf("%d snapshot folders for %d snapshots", len(dirs), known)
	}
}
