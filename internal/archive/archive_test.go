package archive_test

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/cleatlabs/cleat/internal/archive"
	"github.com/cleatlabs/cleat/internal/safepath"
)

func open(t testing.TB, dir string) *safepath.Root {
	t.Helper()
	r, err := safepath.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// TestRoundTrip: what is packed comes out the same.
func TestRoundTrip(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	if err := os.MkdirAll(filepath.Join(src, "d/e"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(src, "d/f"), []byte("content"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(src, "d/f"), filepath.Join(src, "d/same")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(src, "l")); err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	if err := archive.Pack(t.Context(), &buf, open(t, src), "/", ""); err != nil {
		t.Fatal(err)
	}
	if err := archive.Unpack(t.Context(), open(t, dst), &buf, archive.Options{}); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dst, "d/same")); err != nil || string(got) != "content" {
		t.Errorf("%q %v", got, err)
	}
	a, err := os.Stat(filepath.Join(dst, "d/f"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.Stat(filepath.Join(dst, "d/same"))
	if err != nil || !os.SameFile(a, b) || a.Mode().Perm() != 0o640 {
		t.Errorf("hard link or mode lost: %v %v", a.Mode(), err)
	}
	if target, err := os.Readlink(filepath.Join(dst, "l")); err != nil || target != "/etc/passwd" {
		t.Errorf("%q %v", target, err)
	}
}

// hostile are entries that try to get out of the root.
func hostile(outside string) []tar.Header {
	return []tar.Header{
		{Name: "../../" + outside + "/a", Typeflag: tar.TypeReg, Size: 1, Mode: 0o644},
		{Name: outside + "/b", Typeflag: tar.TypeReg, Size: 1, Mode: 0o644},
		{Name: "link", Typeflag: tar.TypeSymlink, Linkname: outside},
		{Name: "link/c", Typeflag: tar.TypeReg, Size: 1, Mode: 0o644},
		{Name: "up", Typeflag: tar.TypeSymlink, Linkname: "../../../../../../" + outside},
		{Name: "up/d", Typeflag: tar.TypeReg, Size: 1, Mode: 0o644},
		{Name: "hard", Typeflag: tar.TypeLink, Linkname: outside + "/secret"},
		{Name: "hard2", Typeflag: tar.TypeLink, Linkname: "link/secret"},
	}
}

func TestNothingOutsideChanges(t *testing.T) {
	outside, dst := t.TempDir(), t.TempDir()
	secret := filepath.Join(outside, "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, h := range hostile(outside) {
		var buf bytes.Buffer
		w := tar.NewWriter(&buf)
		// Each entry after the links, which are there already then.
		for _, l := range hostile(outside)[2:5:5] {
			if l.Typeflag == tar.TypeSymlink {
				if err := w.WriteHeader(&l); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(make([]byte, h.Size)); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		// It may fail or stay inside; both are right.
		err := archive.Unpack(t.Context(), open(t, dst), &buf, archive.Options{})
		t.Logf("%s: %v", h.Name, err)
		entries, rerr := os.ReadDir(outside)
		if rerr != nil || len(entries) != 1 {
			t.Fatalf("%s: outside has %v, %v", h.Name, entries, rerr)
		}
		if got, rerr := os.ReadFile(secret); rerr != nil || string(got) != "secret" {
			t.Fatalf("%s: the secret is %q, %v", h.Name, got, rerr)
		}
		fi, rerr := os.Stat(secret)
		if rerr != nil || fi.Mode().Perm() != 0o600 {
			t.Fatalf("%s: the secret's mode is %v", h.Name, fi.Mode())
		}
	}
}

func FuzzUnpack(f *testing.F) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range hostile("/nowhere") {
		if err := w.WriteHeader(&h); err != nil {
			f.Fatal(err)
		}
		if _, err := w.Write(make([]byte, h.Size)); err != nil {
			f.Fatal(err)
		}
	}
	f.Add(buf.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		parent := t.TempDir()
		dst := filepath.Join(parent, "root")
		if err := os.Mkdir(dst, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := archive.Unpack(t.Context(), open(t, dst), bytes.NewReader(data), archive.Options{}); err != nil {
			t.Log(err)
		}
		if entries, err := os.ReadDir(parent); err != nil || len(entries) != 1 {
			t.Fatalf("beside the root: %v, %v", entries, err)
		}
	})
}
