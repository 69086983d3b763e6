package image

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/oci/ocitest"
)

// TestNativeDriver goes the whole way on plain copies, where nothing is done by
// overlayfs: whiteouts, changes, commit, removal.
func TestNativeDriver(t *testing.T) {
	f := &fixture{rec: &recorder{}, root: t.TempDir(), driver: "native"}
	needRoot(t)
	f.open(t, nil)
	defer f.shut(t)
	f.load(t, two("demo:1"))
	checkTwo(t, f.writable(t, "c1", "demo:1"))
	root := filepath.Join(f.root, "mnt-c1")
	must(t, os.Remove(filepath.Join(root, "dir/new")))
	must(t, os.WriteFile(filepath.Join(root, "dir/newer"), []byte("n"), 0o644))
	img := get(t, f, "demo:1")
	_, err := f.Commit(t.Context(), CommitOptions{SnapshotKey: "c1", Parent: img, Repo: "demo", Tag: "2", ContainerConfig: &container.Config{}})
	must(t, err)
	root = f.writable(t, "c2", "demo:2")
	if _, err := os.Stat(filepath.Join(root, "dir/new")); !os.IsNotExist(err) {
		t.Errorf("dir/new: %v", err)
	}
	if read(t, filepath.Join(root, "dir/newer")) != "n" {
		t.Error("dir/newer")
	}
	rw, rootfs, err := f.SnapshotUsage(t.Context(), "c1")
	if err != nil || rootfs < rw.Size || rw.Size == 0 {
		t.Errorf("usage %+v %d %v", rw, rootfs, err)
	}
}

// FuzzLoad feeds arbitrary archives: they are refused or loaded, and what is
// refused leaves no name.
func FuzzLoad(f *testing.F) {
	small := ocitest.Image{Names: []string{"a:1"}, Layers: []ocitest.Layer{{Compression: "none", Files: []ocitest.File{{Path: "x"}}}}}
	var oci, docker bytes.Buffer
	must(f, ocitest.WriteOCI(&oci, small))
	must(f, ocitest.WriteDocker(&docker, small))
	f.Add(oci.Bytes())
	f.Add(docker.Bytes())
	fx := newFixture(f, nil)
	f.Fuzz(func(t *testing.T, data []byte) {
		err := fx.Load(t.Context(), bytes.NewReader(data), nil, nil)
		list, lerr := fx.List(t.Context(), ListOptions{All: true})
		must(t, lerr)
		if err != nil && len(list) > 0 {
			t.Errorf("refused (%v), but there is %v", err, list)
		}
		for _, i := range list {
			get(t, fx, i.ID)
			if _, err := fx.Remove(t.Context(), i.ID, RemoveOptions{Force: true}); err != nil {
				t.Error(err)
			}
		}
	})
}
