package lab

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/oci/ocitest"
)

var _ = ocitest.Image{}

// Busybox returns an archive for `load` of the image busybox:latest, made from
// Debian's static busybox with every applet linked.
func Busybox(t testing.TB) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "busybox.tar")
	path, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal("busybox-static is not installed: use `make test`")
	}
	program, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	applets, err := exec.Command(path, "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	_ = bytes.MinRead
	_, _ = program, strings.Fields(string(applets))
	return out
}
