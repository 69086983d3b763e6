package container

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/internal/errdefs"
	"github.com/cleatlabs/cleat/internal/safepath"
	"github.com/cleatlabs/cleat/internal/testx"
)

func tarOf(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		body := h.PAXRecords["body"]
		h.PAXRecords = nil
		h.Size = int64(len(body))
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		must(t, w.WriteHeader(&h))
		_, err := io.WriteString(w, body)
		must(t, err)
	}
	must(t, w.Close())
	return b.Bytes()
}

func file(name, body string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeReg, PAXRecords: map[string]string{"body": body}}
}

func copyFrom(t *testing.T, s *Service, id, p string) (container.PathStat, []string) {
	t.Helper()
	var b bytes.Buffer
	var st container.PathStat
	must(t, s.CopyFrom(t.Context(), id, p, func(got container.PathStat) io.Writer { st = got; return &b }))
	var names []string
	for r := tar.NewReader(&b); ; {
		h, err := r.Next()
		if err == io.EOF {
			return st, names
		}
		must(t, err)
		names = append(names, h.Name)
	}
}

func TestCopy(t *testing.T) {
	for _, running := range []bool{false, true} {
		w := newWorld(t)
		must(t, os.MkdirAll(filepath.Join(w.rootfs, "d/e"), 0o755))
		must(t, os.WriteFile(filepath.Join(w.rootfs, "d/e/f"), []byte("x"), 0o600))
		must(t, os.Symlink("/etc/passwd", filepath.Join(w.rootfs, "d/link")))
		must(t, os.Symlink("../../../../../../etc", filepath.Join(w.rootfs, "out")))
		s := w.service()
		id := create(t, s, "", nil, "sleep")
		if running {
			must(t, s.Start(t.Context(), id))
		}
		for p, want := range map[string][]string{
			"/d":       {"d/", "d/e/", "d/e/f", "d/link"},
			"d/e/f":    {"f"},
			"/d/.":     {"./", "./e/", "./e/f", "./link"},
			"/d/link":  {"link"},
			"/out/.":   {"./", "./passwd"},
			"/d/../d/": {"d/", "d/e/", "d/e/f", "d/link"},
		} {
			if _, got := copyFrom(t, s, id, p); !slices.Equal(got, want) {
				if running && p == "/out/." { // the engine's own files may be there
					continue
				}
				t.Errorf("running %v %s: %v, want %v", running, p, got, want)
			}
		}
		st, err := s.StatPath(t.Context(), id, "/d/link")
		must(t, err)
		if st.Name != "link" || st.LinkTarget != "/etc/passwd" || st.Mode&os.ModeSymlink == 0 {
			t.Errorf("%+v", st)
		}
		_, err = s.StatPath(t.Context(), id, "/nope")
		wantClass(t, err, errdefs.ErrNotFound, "Could not find the file /nope in container "+id)

		must(t, s.CopyTo(t.Context(), id, "/d", CopyOptions{}, bytes.NewReader(tarOf(t, file("new", "n"), file("../../up", "u")))))
		for name, want := range map[string]string{"d/new": "n", "d/up": "u"} {
			if got, err := os.ReadFile(filepath.Join(w.rootfs, name)); err != nil || string(got) != want {
				t.Errorf("%s: %q, %v", name, got, err)
			}
		}
		wantClass(t, s.CopyTo(t.Context(), id, "/d", CopyOptions{NoOverwriteDirNonDir: true}, bytes.NewReader(tarOf(t, file("e", "")))),
			errdefs.ErrInvalidArgument, "cannot overwrite directory")
		wantClass(t, s.CopyTo(t.Context(), id, "/etc/passwd", CopyOptions{}, bytes.NewReader(tarOf(t))),
			errdefs.ErrInvalidArgument, "not a directory")
	}
}

func TestCopyToReadOnly(t *testing.T) {
	w := newWorld(t)
	s := w.service()
	id := create(t, s, "", func(o *CreateOptions) {
		o.HostConfig.ReadonlyRootfs = true
		o.HostConfig.Binds = []string{"rw:/rw", "ro:/ro:ro"}
	}, "sleep")
	for dir, allowed := range map[string]bool{"/etc": false, "/ro": false, "/rw": true, "/rw/../etc": false} {
		must(t, os.MkdirAll(filepath.Join(w.rootfs, dir), 0o755))
		err := s.CopyTo(t.Context(), id, dir, CopyOptions{}, bytes.NewReader(tarOf(t, file("f", ""))))
		if allowed != (err == nil) || err != nil && !errors.Is(err, errdefs.ErrPermissionDenied) {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

func TestExportLeavesMountsOut(t *testing.T) {
	w := newWorld(t)
	s := w.service()
	id := create(t, s, "", nil, "sleep")
	var b bytes.Buffer
	must(t, s.Export(t.Context(), id, &b))
	h, err := tar.NewReader(&b).Next()
	must(t, err)
	if h.Name != "etc/" {
		t.Fatal(h.Name)
	}
}

// Whatever an archive says, nothing outside the target changes.
func FuzzUnpack(f *testing.F) {
	testx.Root(f)
	f.Add(tarOf(f, file("a", "b"), tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "/"}, file("l/x", "y")))
	f.Add(tarOf(f, tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "../.."}, file("l/canary", "gone")))
	f.Add(tarOf(f, tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "../canary"}, file("h", "gone")))
	f.Add(tarOf(f, tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755}, tar.Header{Name: "d", Typeflag: tar.TypeSymlink, Linkname: ".."}, file("d/canary", "gone")))
	f.Fuzz(func(t *testing.T, data []byte) {
		top := t.TempDir()
		must(t, os.WriteFile(filepath.Join(top, "canary"), []byte("alive"), 0o600))
		must(t, os.Mkdir(filepath.Join(top, "in"), 0o755))
		root, err := safepath.OpenRoot(filepath.Join(top, "in"))
		must(t, err)
		defer root.Close()
		x := &unpacker{dir: root, ctx: t.Context()}
		_ = x.all(bytes.NewReader(data)) // it may refuse
		if got, err := os.ReadFile(filepath.Join(top, "canary")); err != nil || string(got) != "alive" {
			t.Fatalf("the canary: %q, %v", got, err)
		}
		entries, err := os.ReadDir(top)
		must(t, err)
		if len(entries) != 2 {
			t.Fatalf("made outside: %v", entries)
		}
	})
}
