package atomicfile

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Temporary files are ".NAME" + suffix + random, in the folder of NAME. The
// dot hides them from the loops that list state folders.
const suffix = ".cleat-tmp-"

// WriteFile durably replaces path by data. The file gets exactly perm,
// whatever the umask and whatever the replaced file had.
func WriteFile(path string, data []byte, perm os.FileMode) error {
	return write(path, data, perm, true)
}

// WriteVolatile is WriteFile without fsync.
func WriteVolatile(path string, data []byte, perm os.FileMode) error {
	return write(path, data, perm, false)
}

// WriteJSON durably replaces path by v as indented JSON.
func WriteJSON(path string, v any, perm os.FileMode) error {
	return writeJSON(path, v, perm, true)
}

// WriteVolatileJSON is WriteJSON without fsync.
func WriteVolatileJSON(path string, v any, perm os.FileMode) error {
	return writeJSON(path, v, perm, false)
}

// ReadJSON reads path into v. An absent file gives an error that matches
// fs.ErrNotExist.
func ReadJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

// Remove deletes path and makes that durable. An absent path is no error.
func Remove(path string) error {
	if err := os.Remove(path); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// IsTemp says whether a file name (without folder) is one of a temporary file
// of this package.
func IsTemp(name string) bool {
	return strings.HasPrefix(name, ".") && strings.Contains(name, suffix)
}

// Clean removes the temporary files that crashed writers left in dir. No
// writer may be active there. An absent dir is no error.
func Clean(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if IsTemp(e.Name()) && e.Type().IsRegular() {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

func writeJSON(path string, v any, perm os.FileMode, sync bool) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return write(path, append(data, '\n'), perm, sync)
}

func write(path string, data []byte, perm os.FileMode, sync bool) (err error) {
	dir, name := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	tmp := filepath.Join(dir, "."+name+suffix+rand.Text()[:12])
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreAbsent(os.Remove(tmp)))
		}
	}()
	if err := fill(f, data, perm, sync); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	if !sync {
		return nil
	}
	// The rename has happened: an error here means only that it may not
	// survive power loss, which the caller was promised.
	return SyncDir(dir)
}

func fill(f *os.File, data []byte, perm os.FileMode, sync bool) error {
	if n, err := f.Write(data); err != nil {
		return err
	} else if n < len(data) {
		return io.ErrShortWrite
	}
	if err := f.Chmod(perm); err != nil {
		return err
	}
	if !sync {
		return nil
	}
	return f.Sync()
}

func ignoreAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
