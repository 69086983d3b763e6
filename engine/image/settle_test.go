package image

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cleatlabs/cleat/internal/atomicfile"
)

func TestMarkGoesAfterSync(t *testing.T) {
	f := newFixture(t, nil)
	f.load(t, two("demo:1"))
	img, err := f.Get(t.Context(), "demo:1", nil)
	must(t, err)
	must(t, f.settled.wait(t.Context(), img.ChainID))
	f.settled.close()
	if _, err := os.Stat(filepath.Join(f.root, "unsettled.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the mark is there: %v", err)
	}
	f.load(t, two("demo:1")) // nothing is unpacked
	if _, err := os.Stat(filepath.Join(f.root, "unsettled.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the mark is there again: %v", err)
	}
}

// TestPowerLoss plays a machine that went down before the second image's own
// layer was on the disk: its file is damaged, the mark is of another boot.
func TestPowerLoss(t *testing.T) {
	f := newFixture(t, nil)
	f.load(t, two("demo:1"))
	must(t, f.PrepareSnapshot(t.Context(), "old", get(t, f, "demo:1")))
	f.settled.close()
	since := time.Now()
	f.load(t, big("other:1"))
	f.settled.close()
	damage(t, f)
	dir := filepath.Join(f.root, "snapshots")
	f.shut(t)
	must(t, atomicfile.WriteJSON(filepath.Join(f.root, "unsettled.json"), unsettled{Boot: "another", Since: since, Dir: dir}, 0o600))

	f.open(t, nil)
	checkTwo(t, f.mounted(t, "old"))
	root := f.writable(t, "new", "other:1")
	if st, err := os.Stat(filepath.Join(root, "big")); err != nil || st.Size() != 600<<10 {
		t.Errorf("big: %v %v", st, err)
	}
	f.settled.close()
	if _, err := os.Stat(filepath.Join(f.root, "unsettled.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the mark is there: %v", err)
	}
}

func get(t testing.TB, f *fixture, ref string) *Image {
	t.Helper()
	img, err := f.Get(t.Context(), ref, nil)
	must(t, err)
	return img
}

// damage truncates the file "big" in the image's layer.
func damage(t *testing.T, f *fixture) {
	t.Helper()
	found := 0
	err := filepath.WalkDir(filepath.Join(f.root, "snapshots"), func(p string, d os.DirEntry, err error) error {
		if err == nil && d.Name() == "big" {
			found++
			err = os.Truncate(p, 0)
		}
		return err
	})
	if err != nil || found == 0 {
		t.Fatalf("%d files damaged, %v", found, err)
	}
}
