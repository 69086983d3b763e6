package lab

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Debian returns a tar of a minimal Debian of this machine's release with the
// packages given, for `import`. debootstrap makes it once, outside of the lab,
// whose network reaches nothing; call it before Enter too. It is kept in the
// user's cache folder, because it takes a minute.
func Debian(packages ...string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	release, err := codename()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "cleat-test")
	out := filepath.Join(dir, strings.Join(append([]string{release}, packages...), "-")+".tar")
	if exists(out) {
		return out, nil
	}
	if os.Getenv(insideEnv) != "" {
		return "", fmt.Errorf("%s was not made before the lab was entered", out)
	}
	root, err := os.MkdirTemp("", "debian")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(root)
	fmt.Printf("debootstrap of %s with %s\n", release, strings.Join(packages, ", "))
	if err := quiet("debootstrap", "--variant=minbase", "--include="+strings.Join(packages, ","), release, root); err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	if err := quiet("tar", "--numeric-owner", "--exclude=./var/cache/apt/archives/*.deb", "-C", root, "-cf", out+".part", "."); err != nil {
		return "", err
	}
	return out, os.Rename(out+".part", out)
}

// quiet runs a command; what it said is in the error.
func quiet(name string, args ...string) error {
	if said, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, tail(string(said), 20))
	}
	return nil
}

func codename() (string, error) {
	f, err := os.Open("/etc/os-release")
	if err != nil {
		return "", err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if name, ok := strings.CutPrefix(s.Text(), "VERSION_CODENAME="); ok {
			return strings.Trim(name, `"`), nil
		}
	}
	return "", errors.New("os-release names no release")
}
