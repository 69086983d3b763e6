package lab

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/cleatlabs/cleat/oci/ocitest"
)

// Busybox returns an archive for `load` of the image busybox:latest, made from
// Debian's static busybox.
func Busybox(t testing.TB) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "busybox.tar")
	if err := WriteBusybox(out); err != nil {
		t.Fatal(err)
	}
	return out
}

// WriteBusybox writes the archive to path.
func WriteBusybox(path string) error {
	image, err := ocitest.Busybox("busybox:latest")
	if err != nil {
		return err
	}
	// The older archive form is what every peer reads.
	return write(path, image)
}

// WriteImage writes an archive of an image of one layer, whose tar is at layer.
func WriteImage(path, name, layer string) error {
	data, err := os.ReadFile(layer)
	if err != nil {
		return err
	}
	return write(path, ocitest.Image{
		Names: []string{name}, Layers: []ocitest.Layer{{Tar: data, Compression: "none"}},
	})
}

func write(path string, images ...ocitest.Image) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := ocitest.WriteDocker(f, images...); err != nil {
		return errors.Join(err, f.Close())
	}
	return f.Close()
}
