package runtime_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// shim builds cleat-shim as the Makefile does: static, for a dynamic one
// starts more slowly.
var shim struct {
	once sync.Once
	dir  string
	err  error
}

func TestMain(m *testing.M) {
	if daemonHelper() {
		return
	}
	code := m.Run()
	if shim.dir != "" {
		if err := os.RemoveAll(shim.dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

func shimProgram(t testing.TB) string {
	t.Helper()
	// For measuring a program that was built otherwise.
	if p := os.Getenv("CLEAT_TEST_SHIM"); p != "" {
		return p
	}
	shim.once.Do(func() {
		if shim.dir, shim.err = os.MkdirTemp("", "cleat-shim-"); shim.err != nil {
			return
		}
		cmd := exec.Command("go", "build", "-trimpath", "-tags", "seccomp netgo osusergo",
			"-ldflags", "-s -w -linkmode external -extldflags -static",
			"-o", filepath.Join(shim.dir, "cleat-shim"), "github.com/cleatlabs/cleat/cmd/cleat-shim")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			shim.err = fmt.Errorf("build cleat-shim: %w\n%s", err, out)
		}
	})
	if shim.err != nil {
		t.Fatal(shim.err)
	}
	return filepath.Join(shim.dir, "cleat-shim")
}
