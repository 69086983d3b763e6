package testx

import (
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// builds remembers what this process has built. Tests of one process share it
// on purpose: linking is the slow part of a test run.
var builds struct {
	sync.Mutex
	done map[string]func() (string, error)
}

// BuildBinary builds the main package pkg (an import path, or relative to the
// module's root as "./cmd/cleat-shim") once per test process and returns the
// program's path. tags are Go build tags, comma separated; cgo says whether cgo
// is on. The programs stay in a cache folder of the user, where the next
// process finds them: the go command then only checks that they are current.
func BuildBinary(t testing.TB, pkg, tags string, cgo bool) string {
	t.Helper()
	root := ModuleRoot(t)
	key := pkg + "\x00" + tags
	if cgo {
		key += "\x00cgo"
	}
	builds.Lock()
	if builds.done == nil {
		builds.done = make(map[string]func() (string, error))
	}
	build, ok := builds.done[key]
	if !ok {
		build = sync.OnceValues(func() (string, error) { return goBuild(root, key, pkg, tags, cgo) })
		builds.done[key] = build
	}
	builds.Unlock()
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func goBuild(root, key, pkg, tags string, cgo bool) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = filepath.Join(os.TempDir(), "cleat-test-cache")
	}
	sum := sha256.Sum256([]byte(root + "\x00" + key))
	dir := filepath.Join(cache, "cleat-test", hex.EncodeToString(sum[:8]))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	path := filepath.Join(dir, filepath.Base(pkg))
	// Other test processes may be running the program that is there, or be
	// building it too: build beside it and rename.
	f, err := os.CreateTemp(dir, "build-")
	if err != nil {
		return "", err
	}
	tmp := f.Name()
	if err := f.Close(); err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-tags", tags, "-o", tmp, pkg)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if cgo {
		cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", errors.Join(errors.New("go build "+pkg+": "+string(out)), err, os.Remove(tmp))
	}
	return path, os.Rename(tmp, path)
}

// static says whether an ELF program needs no interpreter.
func static(t testing.TB, path string) bool {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		return false
	}
	defer f.Close() // opened for reading
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return false
		}
	}
	return true
}
