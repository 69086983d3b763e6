package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/errdefs"
	"github.com/cleatlabs/cleat/oci/ocitest"
)

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("layers are unpacked with their owners, which needs root")
	}
}

func bind(dir string) []mount.Mount {
	return []mount.Mount{{Type: "bind", Source: dir, Options: []string{"rw", "rbind"}}}
}

func overlay(upper string, lowers ...string) []mount.Mount {
	opts := []string{"workdir=/nonexistent", "upperdir=" + upper}
	if len(lowers) > 0 {
		opts = append(opts, "lowerdir="+strings.Join(lowers, ":"))
	}
	return []mount.Mount{{Type: "overlay", Source: "overlay", Options: opts}}
}

func tarOf(t testing.TB, files ...ocitest.File) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := ocitest.WriteTar(&buf, files...); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// tree describes a folder: path, mode, content or target, one line each.
func tree(t testing.TB, root string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		what := ""
		switch {
		case info.Mode().IsRegular():
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			what = fmt.Sprintf("%x", sha256.Sum256(data))
		case info.Mode()&fs.ModeSymlink != 0:
			what, err = os.Readlink(p)
			if err != nil {
				return err
			}
		}
		rel, err := filepath.Rel(root, p)
		out = append(out, fmt.Sprintf("%s %s %s", rel, info.Mode(), what))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// outside is a folder with things that an attack would like to change, beside
// the target.
type outside struct{ root, target string }

func newOutside(t testing.TB) outside {
	t.Helper()
	o := outside{root: t.TempDir()}
	o.target = filepath.Join(o.root, "target")
	for _, d := range []string{"target", "victim", "target2"} {
		if err := os.Mkdir(filepath.Join(o.root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"victim/secret", "target2/secret", "top"} {
		if err := os.WriteFile(filepath.Join(o.root, f), []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

// state is everything but the target.
func (o outside) state(t testing.TB) []string {
	return slices.DeleteFunc(tree(t, o.root), func(l string) bool {
		return strings.HasPrefix(l, "target/") || strings.HasPrefix(l, "target ") || strings.HasPrefix(l, ". ")
	})
}

func TestNothingOutsideChanges(t *testing.T) {
	needRoot(t)
	hard := func(path, to string) ocitest.File { return ocitest.File{Path: path, Link: to, Type: tar.TypeLink} }
	evil := []byte("evil")
	for name, files := range map[string][]ocitest.File{
		"dot dot":                     {{Path: "../top", Data: evil}, {Path: "../../top", Data: evil}, {Path: "a/../../top", Data: evil}},
		"absolute":                    {{Path: "/top", Data: evil}, {Path: "//victim/secret", Data: evil}},
		"symlink then file":           {{Path: "l", Link: "../victim"}, {Path: "l/secret", Data: evil}},
		"absolute symlink then file":  {{Path: "l", Link: "/"}, {Path: "l/top", Data: evil}, {Path: "l/new", Data: evil}},
		"symlink chain":               {{Path: "a", Link: "b"}, {Path: "b", Link: "../victim"}, {Path: "a/secret", Data: evil}, {Path: "b/secret", Data: evil}},
		"symlink to file, then file":  {{Path: "f", Link: "../top"}, {Path: "f", Data: evil}},
		"hard link out":               {hard("h", "../top"), {Path: "h", Data: evil}},
		"hard link out absolute":      {hard("h", "/../victim/secret"), {Path: "h", Data: evil}},
		"hard link through symlink":   {{Path: "l", Link: "../victim"}, hard("h", "l/secret"), {Path: "h", Data: evil}},
		"hard link to a symlink":      {{Path: "l", Link: "../top"}, hard("h", "l"), {Path: "h", Data: evil}},
		"hard link to sibling prefix": {hard("h", "../target2/secret"), {Path: "h", Data: evil}},
		"whiteout out":                {{Path: "../.wh.top"}, {Path: ".wh..."}, {Path: "../victim/.wh.secret"}},
		"whiteout of dot":             {{Path: ".wh.."}, {Path: ".wh."}},
		"whiteout through symlink":    {{Path: "l", Link: "../victim"}, {Path: "l/.wh.secret"}, {Path: "l/.wh..wh..opq"}},
		"opaque at top":               {{Path: "../.wh..wh..opq"}},
		"directory over symlink":      {{Path: "l", Link: "../victim"}, {Path: "l/", Mode: 0o777}, {Path: "l/x", Data: evil}},
		"mode through symlink":        {{Path: "l", Link: "../victim/secret"}, {Path: "l", Link: "../victim/secret", Mode: 0o777, UID: 1}},
		"replace parent by symlink":   {{Path: "d/"}, {Path: "d/x", Data: evil}, {Path: "d", Link: "../victim"}, {Path: "d/secret", Data: evil}},
		"root replaced":               {{Path: ".", Link: "../victim"}, {Path: "./", Mode: 0o777}, {Path: "secret", Data: evil}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, how := range []string{"bind", "overlay"} {
				o := newOutside(t)
				before := o.state(t)
				m := bind(o.target)
				if how == "overlay" {
					m = overlay(o.target)
				}
				_, err := NewApplier(nil, Limits{}).ApplyStream(t.Context(), bytes.NewReader(tarOf(t, files...)), m)
				t.Logf("%s: %v", how, err)
				if after := o.state(t); !slices.Equal(before, after) {
					t.Errorf("%s changed what is outside:\n%s\n->\n%s", how, strings.Join(before, "\n"), strings.Join(after, "\n"))
				}
			}
		})
	}
}

func TestApplyContent(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	data := tarOf(t,
		ocitest.File{Path: "d/", Mode: 0o750, UID: 3, GID: 4},
		ocitest.File{Path: "d/setuid", Mode: 0o4755, Data: []byte("x"), UID: 1000, GID: 1001},
		ocitest.File{Path: "d/sticky/", Mode: 0o1777},
		ocitest.File{Path: "link", Link: "d/setuid"},
		ocitest.File{Path: "hard", Link: "d/setuid", Type: tar.TypeLink, Mode: 0o4755, UID: 1000, GID: 1001},
		ocitest.File{Path: "fifo", Type: tar.TypeFifo, Mode: 0o600},
		ocitest.File{Path: "null", Type: tar.TypeChar, Major: 1, Minor: 3, Mode: 0o666},
		ocitest.File{Path: "caps", Data: []byte("x"), Xattrs: map[string]string{"security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}},
		ocitest.File{Path: "user", Data: []byte("x"), Xattrs: map[string]string{"user.note": "hello"}},
		ocitest.File{Path: "trusted", Data: []byte("x"), Xattrs: map[string]string{"trusted.overlay.opaque": "y"}},
		ocitest.File{Path: strings.Repeat("long/", 40) + "name", Data: []byte("long")},
		ocitest.File{Path: "no/parent/entry", Data: []byte("p")},
	)
	out, err := NewApplier(nil, Limits{}).ApplyStream(t.Context(), bytes.NewReader(data), overlay(dir))
	if err != nil {
		t.Fatal(err)
	}
	if out.Digest != digest.FromBytes(data) || out.Size != int64(len(data)) {
		t.Errorf("digest %s size %d", out.Digest, out.Size)
	}
	stat := func(p string) unix.Stat_t {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(dir, p), &st); err != nil {
			t.Fatal(p, err)
		}
		return st
	}
	if st := stat("d/setuid"); st.Mode&0o7777 != 0o4755 || st.Uid != 1000 || st.Gid != 1001 || st.Nlink != 2 {
		t.Errorf("setuid: %o %d:%d links %d", st.Mode, st.Uid, st.Gid, st.Nlink)
	}
	if st := stat("d/sticky"); st.Mode&0o7777 != 0o1777 {
		t.Errorf("sticky: %o", st.Mode)
	}
	if st := stat("null"); st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(1, 3) {
		t.Errorf("null: %o %d", st.Mode, st.Rdev)
	}
	if st := stat("d"); st.Mode&0o7777 != 0o750 || st.Uid != 3 || st.Mtim.Sec != 1704164645 {
		t.Errorf("d: %o %d %d", st.Mode, st.Uid, st.Mtim.Sec)
	}
	var buf [64]byte
	if n, err := unix.Lgetxattr(filepath.Join(dir, "user"), "user.note", buf[:]); err != nil || string(buf[:n]) != "hello" {
		t.Errorf("user xattr: %q %v", buf[:max(n, 0)], err)
	}
	if n, err := unix.Lgetxattr(filepath.Join(dir, "caps"), "security.capability", buf[:]); err != nil || n != 20 {
		t.Errorf("capability: %d %v", n, err)
	}
	if _, err := unix.Lgetxattr(filepath.Join(dir, "trusted"), "trusted.overlay.opaque", buf[:]); !errors.Is(err, unix.ENODATA) {
		t.Errorf("a trusted attribute was set: %v", err)
	}
}

func TestLimits(t *testing.T) {
	needRoot(t)
	zeros := make([]byte, 8<<20)
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	if _, err := z.Write(tarOf(t, ocitest.File{Path: "zeros", Data: zeros})); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := NewApplier(nil, Limits{Bytes: 1 << 20}).ApplyStream(t.Context(), &bomb, bind(t.TempDir()))
	if !errors.Is(err, errdefs.ErrExhausted) {
		t.Errorf("size: %v", err)
	}
	var many []ocitest.File
	for i := range 100 {
		many = append(many, ocitest.File{Path: fmt.Sprint("f", i)})
	}
	_, err = NewApplier(nil, Limits{Entries: 50}).ApplyStream(t.Context(), bytes.NewReader(tarOf(t, many...)), bind(t.TempDir()))
	if !errors.Is(err, errdefs.ErrExhausted) {
		t.Errorf("entries: %v", err)
	}
}

// TestSparseBomb: a tar of some hundred bytes that claims to be an exabyte.
func TestSparseBomb(t *testing.T) {
	needRoot(t)
	head := func(name string, typ byte, size int, records string) []byte {
		var b [512]byte
		copy(b[:], name)
		copy(b[100:], "0000644\x000000000\x000000000\x00")
		copy(b[124:], fmt.Sprintf("%011o\x0000000000000\x00", size))
		b[156] = typ
		copy(b[257:], "ustar\x0000")
		copy(b[148:], "        ")
		sum := 0
		for _, c := range b {
			sum += int(c)
		}
		copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
		out := b[:]
		if records != "" {
			body := make([]byte, (len(records)+511)/512*512)
			copy(body, records)
			out = append(out, body...)
		}
		return out
	}
	rec := func(k, v string) string {
		n := len(k) + len(v) + 3
		for len(fmt.Sprint(n))+len(k)+len(v)+3 != n {
			n = len(fmt.Sprint(n)) + len(k) + len(v) + 3
		}
		return fmt.Sprintf("%d %s=%s\n", n, k, v)
	}
	pax := rec("GNU.sparse.major", "0") + rec("GNU.sparse.minor", "1") + rec("GNU.sparse.name", "bomb") +
		rec("GNU.sparse.size", "1000000000000000000") + rec("GNU.sparse.numblocks", "1") + rec("GNU.sparse.map", "0,0")
	data := append(head("x", tar.TypeXHeader, len(pax), pax), head("bomb", tar.TypeReg, 0, "")...)
	data = append(data, make([]byte, 1024)...)
	_, err := NewApplier(nil, Limits{}).ApplyStream(t.Context(), bytes.NewReader(data), bind(t.TempDir()))
	if !errors.Is(err, errdefs.ErrExhausted) {
		t.Errorf("error %v", err)
	}
}

func TestDiskFull(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	data := tarOf(t, ocitest.File{Path: "f", Data: make([]byte, 4<<20)})
	_, err := NewApplier(nil, Limits{}).ApplyStream(t.Context(), bytes.NewReader(data), bind(dir))
	if !errors.Is(err, errdefs.ErrExhausted) || !errors.Is(err, unix.ENOSPC) {
		t.Errorf("error %v", err)
	}
}

func TestTruncated(t *testing.T) {
	needRoot(t)
	data := tarOf(t, ocitest.File{Path: "f", Data: make([]byte, 100_000)})
	var gz bytes.Buffer
	z := gzip.NewWriter(&gz)
	if _, err := z.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for name, in := range map[string][]byte{
		"plain": data[:50_000], "gzip": gz.Bytes()[:gz.Len()-20], "gzip head": gz.Bytes()[:5],
		"noise": bytes.Repeat([]byte("noise"), 1000),
	} {
		if _, err := NewApplier(nil, Limits{}).ApplyStream(t.Context(), bytes.NewReader(in), bind(t.TempDir())); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if _, err := NewApplier(nil, Limits{}).ApplyStream(t.Context(), bytes.NewReader(nil), bind(t.TempDir())); err != nil {
		t.Errorf("an empty layer: %v", err)
	}
}

func TestCancel(t *testing.T) {
	needRoot(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	data := tarOf(t, ocitest.File{Path: "f", Data: make([]byte, 1<<20)})
	if _, err := NewApplier(nil, Limits{}).ApplyStream(ctx, bytes.NewReader(data), bind(t.TempDir())); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// FuzzApply unpacks arbitrary bytes as a tar: whatever is in it, nothing beside
// the target may change, and nothing may hang or panic.
func FuzzApply(f *testing.F) {
	if os.Geteuid() != 0 {
		f.Skip("needs root")
	}
	for _, files := range [][]ocitest.File{
		{{Path: "a/"}, {Path: "a/b", Data: []byte("x")}, {Path: "a/.wh.c"}},
		{{Path: "l", Link: "../victim"}, {Path: "l/secret", Data: []byte("evil")}},
		{{Path: "h", Link: "../top", Type: tar.TypeLink}, {Path: "h", Data: []byte("evil")}},
		{{Path: "../../../top", Data: []byte("evil")}},
	} {
		f.Add(tarOf(f, files...))
	}
	o := newOutside(f)
	before := o.state(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		if bytes.Contains(data, []byte("SCHILY.xattr.security.ima")) {
			t.Skip()
		}
		a := NewApplier(nil, Limits{Bytes: 1 << 20, Entries: 200})
		_, err := a.ApplyStream(t.Context(), bytes.NewReader(data), bind(o.target))
		if after := o.state(t); !slices.Equal(before, after) {
			t.Fatalf("(%v) changed what is outside:\n%s", err, strings.Join(after, "\n"))
		}
		if err := os.RemoveAll(o.target); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(o.target, 0o755); err != nil {
			t.Fatal(err)
		}
	})
}
