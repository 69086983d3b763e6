package store

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/plugins/snapshots/native"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

func open(t *testing.T, root string) *Store {
	t.Helper()
	sn, err := native.NewSnapshotter(filepath.Join(root, "snapshots"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), Config{Root: root}, map[string]snapshots.Snapshotter{"native": sn}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func shut(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func write(t *testing.T, s *Store, ctx context.Context, text string, labels map[string]string) ocispec.Descriptor {
	t.Helper()
	d, err := s.WriteBlob(ctx, "application/octet-stream", []byte(text), labels)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestLeaseKeepsAndReleases(t *testing.T) {
	s := open(t, t.TempDir())
	defer shut(t, s)
	ctx, release, err := s.WithLease(s.Context(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	d := write(t, s, ctx, "hello", nil)
	if err := s.Collect(ctx); err != nil || !s.Has(ctx, d.Digest) {
		t.Fatalf("a leased blob is gone: %v", err)
	}
	release()
	release()
	if err := s.Collect(ctx); err != nil || s.Has(ctx, d.Digest) {
		t.Fatalf("a blob without lease is there: %v", err)
	}
}

func TestNamesKeepWhatTheyReferTo(t *testing.T) {
	s := open(t, t.TempDir())
	defer shut(t, s)
	ctx, release, err := s.WithLease(s.Context(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	cfg, layer := write(t, s, ctx, "config", nil), write(t, s, ctx, "layer", nil)
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: cfg, Layers: []ocispec.Descriptor{layer}}
	d, err := s.WriteJSON(ctx, ocispec.MediaTypeImageManifest, m, nil)
	if err != nil {
		t.Fatal(err)
	}
	// Written a second time with labels: they are added to the blob that is there.
	if _, err := s.WriteJSON(ctx, ocispec.MediaTypeImageManifest, m, ManifestLabels(m)); err != nil {
		t.Fatal(err)
	}
	before := s.Generation()
	if _, err := s.Images().Create(ctx, images.Image{Name: "x", Target: d}); err != nil || s.Generation() == before {
		t.Fatalf("generation %d, %v", s.Generation(), err)
	}
	release()
	if err := s.Collect(ctx); err != nil {
		t.Fatal(err)
	}
	for _, d := range []ocispec.Descriptor{d, cfg, layer} {
		if !s.Has(ctx, d.Digest) {
			t.Errorf("%s %s is gone", d.MediaType, d.Digest)
		}
	}
	if err := s.Images().Delete(ctx, "x"); err != nil {
		t.Fatal(err)
	}
	if err := s.Collect(ctx); err != nil || s.Has(ctx, layer.Digest) {
		t.Errorf("the layer is there: %v", err)
	}
}

func TestUpdateIsOneTransaction(t *testing.T) {
	s := open(t, t.TempDir())
	defer shut(t, s)
	ctx, release, err := s.WithLease(s.Context(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	d := write(t, s, ctx, "hello", nil)
	stop := errors.New("stop")
	err = s.Update(ctx, func(ctx context.Context) error {
		if _, err := s.Images().Create(ctx, images.Image{Name: "x", Target: d}); err != nil {
			return err
		}
		return stop
	})
	if !errors.Is(err, stop) {
		t.Fatal(err)
	}
	if _, err := s.Images().Get(ctx, "x"); errdefs.HTTPStatus(err) != 404 {
		t.Errorf("half a transaction is there: %v", err)
	}
}

// TestRecover: after a crash nothing of the process that was is left, but what
// can be resumed.
func TestRecover(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	ctx, _, err := s.WithLease(s.Context(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	lost := write(t, s, ctx, "lost", nil)
	sn := s.Snapshotter("native")
	if _, err := sn.Prepare(ctx, "extract-1 sha256:x", ""); err != nil {
		t.Fatal(err)
	}
	named, _, err := s.WithNamedLease(s.Context(t.Context()), "pull/x")
	if err != nil {
		t.Fatal(err)
	}
	kept := write(t, s, named, "kept", nil)
	w, err := content.OpenWriter(named, s.Content(), content.WithRef("half"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("half of it")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"content/ingest/nameless", "content/blobs/sha256"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	orphan := filepath.Join(root, "content/blobs/sha256", strings.Repeat("0", 64))
	if err := os.WriteFile(orphan, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := s.closeAll(); err != nil { // as if killed: the mark of an open store stays
		t.Fatal(err)
	}

	s = open(t, root)
	defer shut(t, s)
	ctx = s.Context(t.Context())
	if s.Has(ctx, lost.Digest) || !s.Has(ctx, kept.Digest) {
		t.Errorf("lost %v, kept %v", s.Has(ctx, lost.Digest), s.Has(ctx, kept.Digest))
	}
	if st, err := s.Content().Status(ctx, "half"); err != nil || st.Offset != int64(len("half of it")) {
		t.Errorf("the ingest: %+v %v", st, err)
	}
	for _, gone := range []string{"content/ingest/nameless", strings.TrimPrefix(orphan, root)} {
		if _, err := os.Stat(filepath.Join(root, gone)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is there: %v", gone, err)
		}
	}
	n := 0
	if err := s.Snapshotter("native").Walk(ctx, func(context.Context, snapshots.Info) error { n++; return nil }); err != nil || n != 0 {
		t.Errorf("%d snapshots, %v", n, err)
	}
}

func TestBackgroundCollection(t *testing.T) {
	s := open(t, t.TempDir())
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, release, err := s.WithLease(s.Context(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	d := write(t, s, ctx, "hello", nil)
	release()
	for limit := time.Now().Add(30 * time.Second); s.Has(ctx, d.Digest); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("the blob was not collected")
		}
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestReadJSONBounds(t *testing.T) {
	s := open(t, t.TempDir())
	defer shut(t, s)
	ctx, release, err := s.WithLease(s.Context(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	d := write(t, s, ctx, strings.Repeat(" ", maxJSON+1), nil)
	d.Size = 10 // what the one who refers to it says
	var v any
	if err := s.ReadJSON(ctx, d, &v); errdefs.HTTPStatus(err) != 400 {
		t.Errorf("error %v", err)
	}
	d = write(t, s, ctx, "{", nil)
	if err := s.ReadJSON(ctx, d, &v); errdefs.HTTPStatus(err) != 400 {
		t.Errorf("error %v", err)
	}
}

func TestOneProcessOnly(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	defer shut(t, s)
	sn, err := native.NewSnapshotter(filepath.Join(t.TempDir(), "other"))
	if err != nil {
		t.Fatal(err)
	}
	defer sn.Close()
	if testing.Short() {
		t.Skip("waits for the lock")
	}
	_, err = Open(t.Context(), Config{Root: root}, map[string]snapshots.Snapshotter{"native": sn}, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "another daemon") {
		t.Errorf("error %v", err)
	}
}
