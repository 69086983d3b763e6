package platform

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/cleatlabs/cleat/internal/atomicfile"
)

// initName is what the shim's program is called when it is a container's
// process 1 (engine/runtime/reaper).
const initName = "docker-init"

// installInit keeps a copy of the shim's program for `--init`. It is a copy
// because containers see the file: what they might do to it must not reach the
// program that the daemon runs.
func installInit(path, program string) error {
	want, err := os.Stat(program)
	if err != nil {
		return fmt.Errorf("the shim is not where it should be: %w", err)
	}
	if have, err := os.Stat(path); err == nil && have.Size() == want.Size() && !have.ModTime().Before(want.ModTime()) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	from, err := os.Open(program)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.CreateTemp(filepath.Dir(path), initName)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	err = errors.Join(err, to.Chmod(0o755), to.Close())
	if err == nil {
		err = os.Rename(to.Name(), path)
	}
	if err != nil {
		return errors.Join(err, removeIfThere(to.Name()))
	}
	return nil
}

// machineID reads the daemon's identity, or makes it on the first start.
func machineID(path string) (string, error) {
	if data, err := os.ReadFile(path); err == nil {
		return strings.TrimSpace(string(data)), nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	raw := make([]byte, 16)
	// crypto/rand.Read never fails.
	_, _ = rand.Read(raw)
	id := hex.EncodeToString(raw)
	return id, atomicfile.WriteFile(path, []byte(id+"\n"), 0o644)
}
