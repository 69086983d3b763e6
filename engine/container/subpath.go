package container

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/errdefs"
	"github.com/cleatlabs/cleat/internal/safepath"
)

// subpathDir is below a container's folder: its folders of volumes are mounted there.
const subpathDir = "subpaths"

// bindSubpath mounts a path inside a volume to a place of the container's own
// and returns that. The path is resolved once, inside the volume, and what it
// led to is mounted by handle: others who write to the volume can put a link
// there afterwards and change nothing. unmountOwn undoes it.
func bindSubpath(dir string, n int, volume, sub string) (place string, err error) {
	h, err := openSubpath(volume, sub)
	if err != nil {
		return "", err
	}
	defer h.Close() // a handle: closing it cannot fail
	fi, err := h.Stat()
	if err != nil {
		return "", err
	}
	place = filepath.Join(dir, subpathDir, strconv.Itoa(n))
	if err := makePlace(place, fi.IsDir()); err != nil {
		return "", err
	}
	if err := unix.Mount(safepath.FDPath(h), place, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return "", fmt.Errorf("mount path %s of the volume: %w", sub, err)
	}
	return place, nil
}

// openSubpath opens a handle of a path inside a volume; links cannot lead out of it.
func openSubpath(volume, sub string) (*os.File, error) {
	root, err := safepath.OpenRoot(volume)
	if err != nil {
		return nil, err
	}
	defer root.Close() // a handle: closing it cannot fail
	h, err := root.OpenPath(sub)
	if err != nil {
		return nil, errdefs.Invalidf("cannot access path %s of the volume: %v", sub, err)
	}
	return h, nil
}

// makePlace makes what a folder or a file is mounted over.
func makePlace(place string, folder bool) error {
	if folder {
		return os.MkdirAll(place, 0o700)
	}
	if err := os.MkdirAll(filepath.Dir(place), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(place, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}
