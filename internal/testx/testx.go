// Package testx is what tests share: skipping clearly when a machine cannot run
// them, short folders for sockets, programs built once, waiting without timed
// assertions, and proof that a test left nothing on the machine.
//
// Only _test.go files and test programs import it.
package testx

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// RequireRoot is the environment variable that turns the skips of Root into
// failures, so that a run meant to cover everything cannot skip by accident.
const RequireRoot = "CLEAT_TEST_REQUIRE_ROOT"

// Root skips the test unless it runs as root.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv(RequireRoot) != "" {
		t.Fatal("this test needs root and " + RequireRoot + " is set")
	}
	t.Skip("this test needs root (namespaces, mounts): run it as root or with sudo -E")
}

// Busybox returns the path of a static busybox, or skips.
func Busybox(t testing.TB) string {
	t.Helper()
	for _, p := range []string{"/bin/busybox", "/usr/bin/busybox", "/usr/local/bin/busybox"} {
		if fi, err := os.Stat(p); err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0 {
			if static(t, p) {
				return p
			}
		}
	}
	if os.Getenv(RequireRoot) != "" {
		t.Fatal("no static busybox: install the package busybox-static")
	}
	t.Skip("no static busybox: install the package busybox-static")
	return ""
}

// TempRun returns a folder whose path is short enough for Unix sockets with
// names below it, and removes it at the end.
func TempRun(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "cl-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("a test left something in its run folder: %v", err)
		}
	})
	return dir
}

// SafeName returns a name made of the test's: lower-case letters, digits and
// dashes, at most 40 characters, different for every test and process. It fits
// containers, networks and cgroups.
func SafeName(t testing.TB) string {
	t.Helper()
	var b strings.Builder
	for _, r := range strings.ToLower(t.Name()) {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			b.WriteRune(r)
		} else if s := b.String(); s != "" && !strings.HasSuffix(s, "-") {
			b.WriteByte('-')
		}
	}
	name := b.String()
	if len(name) > 29 {
		name = name[:29]
	}
	sum := sha256.Sum256([]byte(t.Name() + t.TempDir()))
	return strings.Trim(name, "-") + "-" + hex.EncodeToString(sum[:5])
}

// Eventually calls f until it returns "", and fails with its last words when
// limit has passed. The limit is a guard against hanging, not an assertion
// about speed: choose it long. f is called at least once.
func Eventually(t testing.TB, limit time.Duration, f func() string) {
	t.Helper()
	end := time.Now().Add(limit)
	wait := time.Millisecond
	for {
		why := f()
		if why == "" {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", limit, why)
		}
		time.Sleep(wait)
		wait = min(2*wait, 50*time.Millisecond)
	}
}

// ModuleRoot returns the folder of go.mod above the test's package.
func ModuleRoot(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatal("no go.mod above the working folder")
		}
		dir = up
	}
}
