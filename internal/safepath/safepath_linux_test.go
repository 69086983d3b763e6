package safepath

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// place is a folder with a root in it and a secret beside the root.
func place(t *testing.T) (r *Root, dir, secret string) {
	t.Helper()
	top := t.TempDir()
	dir, secret = filepath.Join(top, "root"), filepath.Join(top, "secret")
	must(t, os.Mkdir(dir, 0o755))
	must(t, os.WriteFile(secret, []byte("secret"), 0o644))
	r, err := OpenRoot(dir)
	must(t, err)
	t.Cleanup(func() { must(t, r.Close()) })
	return r, dir, secret
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestLinksStayInside(t *testing.T) {
	r, dir, secret := place(t)
	must(t, os.WriteFile(dir+"/secret", []byte("inside"), 0o644))
	must(t, os.MkdirAll(dir+"/a/b", 0o755))
	must(t, os.MkdirAll(dir+filepath.Dir(secret), 0o755))
	must(t, os.WriteFile(dir+secret, []byte("inside"), 0o644))
	for name, target := range map[string]string{
		"absolute": secret,
		"dots":     "../../../../../../../../../../secret",
		"deep":     "a/b/../../../../secret",
		"twice":    "dots",
	} {
		must(t, os.Symlink(target, filepath.Join(dir, name)))
	}
	must(t, os.Symlink("/", dir+"/top"))
	for _, name := range []string{"absolute", "dots", "deep", "twice", "top/secret", "top/top/../../secret", "/secret",
		"../secret", "/../../secret", "a/../../secret", "a/b/../../../top/secret"} {
		got, err := r.ReadFile(name)
		if err != nil || string(got) != "inside" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	// Writing, too.
	for _, name := range []string{"absolute", "dots", "top/secret"} {
		f, err := r.Create(name, 0o644)
		must(t, err)
		_, err = f.WriteString("changed")
		must(t, errors.Join(err, f.Close()))
	}
	if b, err := os.ReadFile(secret); err != nil || string(b) != "secret" {
		t.Fatalf("the file outside is %q, %v", b, err)
	}
	if p, err := r.RealPath("twice"); err != nil || p != "/secret" {
		t.Errorf("%q, %v", p, err)
	}
	if p, err := r.RealPath("top"); err != nil || p != "/" {
		t.Errorf("%q, %v", p, err)
	}
}

func TestMagicLinks(t *testing.T) {
	r, dir, _ := place(t)
	if err := unix.Mount("proc", dir, "proc", 0, ""); err != nil {
		t.Skip("cannot mount proc:", err)
	}
	defer func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) }()
	r2, err := OpenRoot(dir)
	must(t, err)
	defer r2.Close()
	for _, name := range []string{"self/root/etc/passwd", "self/cwd", "self/exe"} {
		if f, err := r2.Open(name); !errors.Is(err, unix.ELOOP) {
			t.Errorf("%s: %v, %v", name, f, err)
		}
	}
	_ = r
}

func TestMkdirAll(t *testing.T) {
	r, dir, _ := place(t)
	must(t, os.Symlink("/real", dir+"/link"))
	must(t, os.Mkdir(dir+"/real", 0o755))
	must(t, os.Symlink("/../../outside", dir+"/dangling"))
	must(t, r.MkdirAll("link/x/./y", 0o755))
	must(t, r.MkdirAll("/link/x/y", 0o755)) // again
	must(t, r.MkdirAll("../up/here", 0o755))
	for _, p := range []string{"/real/x/y", "/up/here"} {
		if fi, err := os.Stat(dir + p); err != nil || !fi.IsDir() {
			t.Error(p, err)
		}
	}
	for _, name := range []string{"dangling/x", "new/../../y"} {
		if err := r.MkdirAll(name, 0o755); err == nil {
			t.Errorf("%s was made", name)
		}
	}
	if _, err := os.Lstat(filepath.Dir(dir) + "/outside"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("made outside:", err)
	}
}

func TestChanges(t *testing.T) {
	r, dir, _ := place(t)
	must(t, r.Mkdir("d", 0o700))
	f, err := r.OpenFile("d/f", os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	must(t, errors.Join(err, f.Close()))
	must(t, r.Symlink("f", "d/l"))
	must(t, r.Link("d/l", "d/l2")) // the link itself
	if s, err := r.Readlink("d/l2"); err != nil || s != "f" {
		t.Error(s, err)
	}
	if _, err := r.Readlink("d/f"); !errors.Is(err, unix.EINVAL) {
		t.Error("readlink of a file:", err)
	}
	must(t, r.Chmod("d/l", os.ModeSetuid|0o750))
	if fi, err := os.Stat(dir + "/d/f"); err != nil || fi.Mode() != os.ModeSetuid|0o750 {
		t.Error(fi, err)
	}
	must(t, r.Rename("d/f", "g"))
	if fi, err := r.Lstat("d/l"); err != nil || fi.Mode()&fs.ModeSymlink == 0 || fi.Name() != "l" {
		t.Error(fi, err)
	}
	if _, err := r.Stat("d/l"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("stat of a dangling link:", err)
	}
	if err := r.Remove("d"); err == nil {
		t.Error("a full folder was removed")
	}
	for _, name := range []string{"", ".", "/", "..", "d/.."} {
		if err := r.RemoveAll(name); err == nil {
			t.Errorf("RemoveAll(%q) worked", name)
		}
		if err := r.Remove(name); err == nil {
			t.Errorf("Remove(%q) worked", name)
		}
	}
	must(t, os.Symlink("/", dir+"/d/root"))
	must(t, r.RemoveAll("d")) // with a link to everything in it
	must(t, r.RemoveAll("d"))
	if _, err := r.Stat("g"); err != nil {
		t.Error("RemoveAll followed a link:", err)
	}
}

// TestRace: while a hostile process exchanges a folder with a link out of the
// root and moves folders about, nothing outside is ever reached.
func TestRace(t *testing.T) {
	r, dir, secret := place(t)
	must(t, os.MkdirAll(dir+"/a/b/c", 0o755))
	must(t, os.WriteFile(dir+"/a/b/c/f", []byte("inside"), 0o644))
	must(t, os.WriteFile(dir+"/secret", []byte("inside"), 0o644))
	must(t, os.Symlink("../..", dir+"/evil"))
	must(t, os.Mkdir(dir+"/other", 0o755))
	stop := make(chan struct{})
	var attacker sync.WaitGroup
	attacker.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			// Errors are part of the game.
			_ = unix.Renameat2(unix.AT_FDCWD, dir+"/a/b", unix.AT_FDCWD, dir+"/evil", unix.RENAME_EXCHANGE)
			_ = os.Rename(dir+"/a", dir+"/other/a")
			_ = os.Rename(dir+"/other/a", dir+"/a")
		}
	})
	for range 400 {
		for _, name := range []string{"a/b/secret", "a/b/../../../../secret", "a/b/c/../../../../secret"} {
			if b, err := r.ReadFile(name); err == nil && string(b) != "inside" {
				t.Errorf("%s gave %q", name, b)
			}
		}
		if f, err := r.OpenFile("a/b/written", os.O_CREATE|os.O_WRONLY, 0o600); err == nil {
			must(t, f.Close())
		}
		_ = r.MkdirAll("a/b/made/deep", 0o755) // may meet the link
		_ = r.RemoveAll("a/b/made")            // as above
	}
	close(stop)
	attacker.Wait()
	entries, err := os.ReadDir(filepath.Dir(dir))
	must(t, err)
	if len(entries) != 2 {
		t.Errorf("outside is now %v", entries)
	}
	if b, err := os.ReadFile(secret); err != nil || string(b) != "secret" {
		t.Errorf("the file outside is %q, %v", b, err)
	}
}

func TestCopyTree(t *testing.T) {
	from, src, secret := place(t)
	to, dst, _ := place(t)
	must(t, os.MkdirAll(src+"/v/sub", 0o750))
	must(t, os.WriteFile(src+"/v/f", []byte("content"), 0o600))
	must(t, os.Chmod(src+"/v/f", os.ModeSetuid|0o711))
	must(t, os.Link(src+"/v/f", src+"/v/sub/hard"))
	must(t, os.Symlink(secret, src+"/v/link"))
	must(t, unix.Mkfifo(src+"/v/fifo", 0o640))
	must(t, os.WriteFile(src+"/v/sparse", nil, 0o600))
	s, err := os.OpenFile(src+"/v/sparse", os.O_WRONLY, 0)
	must(t, err)
	_, err = s.WriteAt([]byte("end"), 8<<20)
	must(t, errors.Join(err, s.Truncate(16<<20), s.Close()))
	attrs := unix.Setxattr(src+"/v/f", "user.colour", []byte("blue"), 0) == nil
	root := os.Geteuid() == 0
	if root {
		must(t, os.Chown(src+"/v/sub", 1234, 5678))
		must(t, os.Lchown(src+"/v/link", 1234, 5678))
	}
	must(t, CopyTree(context.Background(), from, "v", to, "/copy/v"))

	c := dst + "/copy/v"
	if b, err := os.ReadFile(c + "/f"); err != nil || string(b) != "content" {
		t.Errorf("%q, %v", b, err)
	}
	f, err := os.Stat(c + "/f")
	must(t, err)
	h, err := os.Stat(c + "/sub/hard")
	must(t, err)
	if !os.SameFile(f, h) || f.Mode() != os.ModeSetuid|0o711 {
		t.Error("hard link or mode lost:", f.Mode())
	}
	was, err := os.Stat(src + "/v/f")
	must(t, err)
	if !f.ModTime().Equal(was.ModTime()) {
		t.Error("time lost")
	}
	if l, err := os.Readlink(c + "/link"); err != nil || l != secret {
		t.Errorf("%q, %v", l, err)
	}
	if fi, err := os.Lstat(c + "/fifo"); err != nil || fi.Mode() != fs.ModeNamedPipe|0o640 {
		t.Error(fi, err)
	}
	var st unix.Stat_t
	must(t, unix.Stat(c+"/sparse", &st))
	if st.Size != 16<<20 || st.Blocks*512 > 1<<20 {
		t.Errorf("sparse file has size %d in %d blocks", st.Size, st.Blocks)
	}
	if attrs {
		b := make([]byte, 10)
		if n, err := unix.Getxattr(c+"/f", "user.colour", b); err != nil || string(b[:n]) != "blue" {
			t.Error("extended attribute lost:", err)
		}
	}
	if root {
		must(t, unix.Lstat(c+"/link", &st))
		if st.Uid != 1234 || st.Gid != 5678 {
			t.Error("owner of link lost")
		}
		must(t, unix.Stat(c+"/sub", &st))
		if st.Uid != 1234 || st.Mode&0o777 != 0o750 {
			t.Errorf("folder is %o of %d", st.Mode, st.Uid)
		}
	}
	if err := CopyTree(context.Background(), from, "v", to, "/copy/v"); !errors.Is(err, fs.ErrExist) {
		t.Error("a second copy over the first:", err)
	}
}
