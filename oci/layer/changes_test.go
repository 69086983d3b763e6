package layer

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/oci/ocitest"
)

func lines(d Diff) []string {
	var out []string
	for _, c := range d.Changes {
		out = append(out, fmt.Sprintf("%c %s", "CAD"[c.Kind], c.Path))
	}
	return out
}

// TestCompare makes the same changes on an overlay of two layers and on a plain
// copy, and expects the same list and the same layer from both.
func TestCompare(t *testing.T) {
	needRoot(t)
	lower := []ocitest.File{
		{Path: "keep/"}, {Path: "keep/file", Data: []byte("k")}, {Path: "mod", Data: []byte("m")}, {Path: "del", Data: []byte("d")},
		{Path: "deldir/"}, {Path: "deldir/x", Data: []byte("x")}, {Path: "redo/"}, {Path: "redo/old", Data: []byte("o")},
		{Path: "todir", Data: []byte("file")}, {Path: "tofile/"}, {Path: "tofile/x", Data: []byte("x")},
	}
	middle := []ocitest.File{{Path: "mid/"}, {Path: "mid/file", Data: []byte("1")}, {Path: ".wh.gone"}, {Path: "keep/"}, {Path: "keep/mid", Data: []byte("2")}}
	change := func(root string) error {
		p := func(s string) string { return filepath.Join(root, s) }
		return errors.Join(
			os.WriteFile(p("mod"), []byte("changed"), 0o644),
			os.Remove(p("del")),
			os.RemoveAll(p("deldir")),
			os.RemoveAll(p("redo")), os.Mkdir(p("redo"), 0o755), os.WriteFile(p("redo/new"), []byte("n"), 0o644),
			os.Remove(p("todir")), os.Mkdir(p("todir"), 0o755), os.WriteFile(p("todir/f"), []byte("f"), 0o644),
			os.RemoveAll(p("tofile")), os.WriteFile(p("tofile"), []byte("now a file"), 0o644),
			os.WriteFile(p("keep/added"), []byte("a"), 0o600),
			os.Remove(p("keep/mid")),
			os.Mkdir(p("newdir"), 0o755), os.WriteFile(p("newdir/deep"), nil, 0o644),
			os.WriteFile(p("temp"), nil, 0o644), os.Remove(p("temp")),
			unix.Lsetxattr(p("keep/added"), "user.note", []byte("v"), 0),
		)
	}
	want := []string{"C /keep", "A /keep/added", "D /keep/mid", "C /mod", "A /newdir", "A /newdir/deep", "D /del", "D /deldir",
		"C /redo", "A /redo/new", "D /redo/old", "C /todir", "A /todir/f", "C /tofile"}
	slices.Sort(want)

	dir := t.TempDir()
	apply := func(to string, m []mount.Mount, files []ocitest.File) {
		if err := os.MkdirAll(to, 0o755); err != nil {
			t.Fatal(err)
		}
		if _, err := NewApplier(nil, Limits{}).ApplyStream(t.Context(), bytes.NewReader(tarOf(t, files...)), m); err != nil {
			t.Fatal(err)
		}
	}
	l1, l2, up, work, merged := filepath.Join(dir, "l1"), filepath.Join(dir, "l2"), filepath.Join(dir, "up"), filepath.Join(dir, "work"), filepath.Join(dir, "merged")
	apply(l1, overlay(l1), lower)
	apply(l2, overlay(l2, l1), middle)
	for _, d := range []string{up, work, merged} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m := []mount.Mount{{Type: "overlay", Source: "overlay", Options: []string{"workdir=" + work, "upperdir=" + up, "lowerdir=" + l2 + ":" + l1}}}
	err := mount.WithTempMount(t.Context(), m, change)
	if err != nil {
		t.Skipf("overlay cannot be mounted here: %v", err)
	}
	fast, err := Compare(t.Context(), m, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := lines(fast)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("overlay:\n%q, want\n%q", got, want)
	}

	base, copied := filepath.Join(dir, "base"), filepath.Join(dir, "copy")
	for _, to := range []string{base, copied} {
		apply(to, bind(to), lower)
		apply(to, bind(to), middle)
	}
	if err := change(copied); err != nil {
		t.Fatal(err)
	}
	slow, err := Compare(t.Context(), bind(copied), func() ([]mount.Mount, error) { return bind(base), nil })
	if err != nil {
		t.Fatal(err)
	}
	got = lines(slow)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("copy:\n%q, want\n%q", got, want)
	}
	roundTrip(t, fast, base, copied)
	roundTrip(t, slow, base, copied)
}

// roundTrip writes the changes as a layer, unpacks it on base, and compares.
func roundTrip(t *testing.T, d Diff, base, want string) {
	t.Helper()
	var buf bytes.Buffer
	if err := WriteTar(t.Context(), &buf, d); err != nil {
		t.Fatal(err)
	}
	again := filepath.Join(t.TempDir(), "again")
	if err := os.CopyFS(again, os.DirFS(base)); err != nil {
		t.Fatal(err)
	}
	if _, err := NewApplier(nil, Limits{}).ApplyStream(t.Context(), &buf, bind(again)); err != nil {
		t.Fatal(err)
	}
	if a, b := tree(t, again), tree(t, want); !slices.Equal(a[1:], b[1:]) {
		t.Errorf("after the round trip:\n%q, want\n%q", a, b)
	}
	var v [8]byte
	if n, err := unix.Lgetxattr(filepath.Join(again, "keep/added"), "user.note", v[:]); err != nil || string(v[:n]) != "v" {
		t.Errorf("attribute %q %v", v[:max(n, 0)], err)
	}
}
