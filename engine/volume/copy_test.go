package volume

import (
	"archive/tar"
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/volume"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/errdefs"
	"github.com/cleatlabs/cleat/internal/testx"
)

func filled(t *testing.T, s *Service, name string) string {
	t.Helper()
	v, err := s.Create(ctx, volume.CreateRequest{Name: name, Labels: map[string]string{"k": "v"}})
	must(t, err)
	p := v.Mountpoint
	must(t, os.WriteFile(p+"/file", []byte("content"), 0o640))
	must(t, os.Mkdir(p+"/dir", 0o700))
	must(t, os.Link(p+"/file", p+"/dir/hard"))
	must(t, os.Symlink("/etc/passwd", p+"/link"))
	must(t, os.Chown(p, 999, 998))
	must(t, os.Chmod(p, 0o700))
	return p
}

func check(t *testing.T, p string) {
	t.Helper()
	if b, err := os.ReadFile(p + "/dir/hard"); err != nil || string(b) != "content" {
		t.Errorf("%q, %v", b, err)
	}
	a, err := os.Stat(p + "/file")
	must(t, err)
	b, err := os.Stat(p + "/dir/hard")
	must(t, err)
	if !os.SameFile(a, b) || a.Mode() != 0o640 {
		t.Error("hard link or mode is lost")
	}
	if l, err := os.Readlink(p + "/link"); err != nil || l != "/etc/passwd" {
		t.Errorf("%q, %v", l, err)
	}
	var st unix.Stat_t
	must(t, unix.Stat(p, &st))
	if st.Uid != 999 || st.Gid != 998 || st.Mode&0o777 != 0o700 {
		t.Errorf("the folder is of %d:%d, mode %o", st.Uid, st.Gid, st.Mode&0o777)
	}
}

func TestExportImportClone(t *testing.T) {
	testx.Root(t)
	cfg := config(t)
	s, _ := start(t, cfg)
	check(t, filled(t, s, "source"))
	v, err := s.Clone(ctx, "source", "clone")
	must(t, err)
	check(t, v.Mountpoint)
	if v.Labels["k"] != "v" {
		t.Errorf("labels: %v", v.Labels)
	}
	_, err = s.Clone(ctx, "source", "clone")
	refused(t, err, errdefs.ErrConflict, "clone exists already")
	_, err = s.Clone(ctx, "source", "source")
	refused(t, err, errdefs.ErrConflict, "exists already")
	_, err = s.Clone(ctx, "nope", "other")
	refused(t, err, errdefs.ErrNotFound, "no such volume")

	var b bytes.Buffer
	must(t, s.Export(ctx, "source", &b))
	archive := b.Bytes()
	must(t, s.Import(ctx, "new", bytes.NewReader(archive)))
	check(t, cfg.Root+"/new/_data")
	must(t, os.WriteFile(cfg.Root+"/new/_data/stale", nil, 0o600))
	must(t, s.Import(ctx, "new", bytes.NewReader(archive)))
	check(t, cfg.Root+"/new/_data")
	if _, err := os.Stat(cfg.Root + "/new/_data/stale"); err == nil {
		t.Error("old content is still there")
	}
	// A broken archive changes nothing.
	err = s.Import(ctx, "new", bytes.NewReader(archive[:len(archive)/2]))
	refused(t, err, errdefs.ErrInvalidArgument, "archive")
	check(t, cfg.Root+"/new/_data")
	err = s.Import(ctx, "never", strings.NewReader(strings.Repeat("no tar ", 200)))
	refused(t, err, errdefs.ErrInvalidArgument, "archive")
	_, err = s.Inspect(ctx, "never")
	refused(t, err, errdefs.ErrNotFound, "no such volume")

	s.Hold("new", "c1")
	err = s.Import(ctx, "new", bytes.NewReader(archive))
	refused(t, err, errdefs.ErrConflict, "volume is in use - [c1]")
	same(t, names(t, s, nil), "clone", "new", "source")
	if len(s.users("source")) > 0 {
		t.Error("still mounted by an operation")
	}
	for _, e := range []string{".new-", ".old-"} {
		left, err := os.ReadDir(cfg.Root)
		must(t, err)
		for _, l := range left {
			if strings.HasPrefix(l.Name(), e) {
				t.Errorf("left: %s", l.Name())
			}
		}
	}
}

func TestHostileArchive(t *testing.T) {
	testx.Root(t)
	cfg := config(t)
	s, _ := start(t, cfg)
	outside := t.TempDir()
	must(t, os.WriteFile(outside+"/f", []byte("mine"), 0o600))
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []tar.Header{
		{Name: "esc", Typeflag: tar.TypeSymlink, Linkname: outside},
		{Name: "esc/f", Typeflag: tar.TypeReg, Size: 4},
		{Name: "../../../../../../../.." + outside + "/g", Typeflag: tar.TypeReg, Size: 4},
		{Name: outside + "/h", Typeflag: tar.TypeReg, Size: 4},
		{Name: "up", Typeflag: tar.TypeSymlink, Linkname: "../../../../../../../.."},
		{Name: "up" + outside + "/i", Typeflag: tar.TypeReg, Size: 4},
	} {
		h.Mode = 0o644
		must(t, w.WriteHeader(&h))
		if h.Size > 0 {
			_, err := w.Write([]byte("evil"))
			must(t, err)
		}
	}
	must(t, w.Close())
	if err := s.Import(ctx, "vol", &b); err != nil {
		t.Log("refused, which is as good:", err)
	}
	left, err := os.ReadDir(outside)
	must(t, err)
	if f, err := os.ReadFile(outside + "/f"); err != nil || string(f) != "mine" || len(left) != 1 {
		t.Errorf("outside: %v, %q, %v", left, f, err)
	}

	// A hard link to a file outside.
	b.Reset()
	w = tar.NewWriter(&b)
	must(t, w.WriteHeader(&tar.Header{Name: "hard", Typeflag: tar.TypeLink, Linkname: "../../../../../../../.." + outside + "/f"}))
	must(t, w.Close())
	if err := s.Import(ctx, "vol2", &b); err == nil {
		t.Error("a hard link out of the volume was made")
	}
}
