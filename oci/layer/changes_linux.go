package layer

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"syscall"

	"github.com/containerd/containerd/v2/core/mount"
	cfs "github.com/containerd/continuity/fs"
	"golang.org/x/sys/unix"
)

// Kind is what happened to a path.
type Kind uint8

// The kinds, numbered as Docker's.
const (
	Modified Kind = iota
	Added
	Deleted
)

// Change is a path of a writable layer that differs from the layers below.
type Change struct {
	Kind Kind
	// Path begins with "/".
	Path string
	// Info describes the new state; nil for Deleted.
	Info fs.FileInfo
}

// Diff is the difference between a writable layer and what is below it.
type Diff struct {
	// Changes are in the order of paths, parents before their children.
	Changes []Change
	// Source is the folder in which the content of changed paths is found.
	Source string
}

// Compare finds what a writable snapshot has changed. upper are its mounts, lower
// those of a read-only view of its parent; lower is called only where it is needed. For overlay only the upper folder is
// read; other snapshots are compared file by file.
func Compare(ctx context.Context, upper []mount.Mount, lower func() ([]mount.Mount, error)) (Diff, error) {
	if len(upper) == 1 && upper[0].Type == "overlay" {
		if dir, lowers := overlayDirs(upper[0].Options); dir != "" {
			w := overlayWalk{ctx: ctx, upper: dir}
			if err := w.dir("/", lowers); err != nil {
				return Diff{}, err
			}
			return Diff{Changes: w.out, Source: dir}, nil
		}
	}
	source, err := bindSource(upper)
	if err != nil {
		return Diff{}, err
	}
	below, err := lower()
	if err != nil {
		return Diff{}, err
	}
	base := ""
	if len(below) > 0 {
		if base, err = bindSource(below); err != nil {
			return Diff{}, err
		}
	}
	d := Diff{Source: source}
	err = cfs.Changes(ctx, base, source, func(k cfs.ChangeKind, path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		switch k {
		case cfs.ChangeKindAdd:
			d.Changes = append(d.Changes, Change{Kind: Added, Path: path, Info: info})
		case cfs.ChangeKindModify:
			d.Changes = append(d.Changes, Change{Kind: Modified, Path: path, Info: info})
		case cfs.ChangeKindDelete:
			d.Changes = append(d.Changes, Change{Kind: Deleted, Path: path})
		}
		return nil
	})
	if err != nil {
		return Diff{}, err
	}
	d.Changes = withParents(d)
	return d, nil
}

// withParents adds the folders above each change, as overlay has them.
func withParents(d Diff) []Change {
	have := make(map[string]bool, len(d.Changes))
	for _, c := range d.Changes {
		have[c.Path] = true
	}
	out := d.Changes
	for _, c := range d.Changes {
		for p := filepath.Dir(c.Path); p != "/" && p != "." && !have[p]; p = filepath.Dir(p) {
			have[p] = true
			if info, err := os.Lstat(filepath.Join(d.Source, p)); err == nil {
				out = append(out, Change{Kind: Modified, Path: p, Info: info})
			}
		}
	}
	sort.SliceStable(out, func(i, j int) bool { return out[i].Path < out[j].Path })
	return out
}

func bindSource(m []mount.Mount) (string, error) {
	if len(m) == 1 && m[0].Type == "bind" {
		return m[0].Source, nil
	}
	return "", errors.New("snapshot is neither an overlay nor one folder")
}

// overlayWalk reads an overlay's upper folder beside those layers below that
// contribute to the same folder.
type overlayWalk struct {
	ctx   context.Context
	upper string
	out   []Change
}

// dir lists rel. lowers are the layers, uppermost first, whose folder rel is
// merged with the upper one's.
func (w *overlayWalk) dir(rel string, lowers []string) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	entries, err := os.ReadDir(filepath.Join(w.upper, rel))
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, os.ErrNotExist) {
			continue // removed by a running container
		}
		if err != nil {
			return err
		}
		if err := w.entry(filepath.Join(rel, e.Name()), info, lowers); err != nil {
			return err
		}
	}
	return nil
}

func (w *overlayWalk) entry(path string, info fs.FileInfo, lowers []string) error {
	exists, merged, err := below(path, lowers)
	if err != nil {
		return err
	}
	if isWhiteout(info) {
		if exists {
			w.out = append(w.out, Change{Kind: Deleted, Path: path})
		}
		return nil
	}
	c := Change{Kind: Added, Path: path, Info: info}
	if exists {
		c.Kind = Modified
	}
	w.out = append(w.out, c)
	if !info.IsDir() {
		return nil
	}
	opaque, err := isOpaque(filepath.Join(w.upper, path))
	if err != nil {
		return err
	}
	if opaque {
		if err := w.hidden(path, merged); err != nil {
			return err
		}
		merged = nil
	}
	err = w.dir(path, merged)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// hidden reports what an opaque folder has in the layers below and not itself.
func (w *overlayWalk) hidden(dir string, lowers []string) error {
	seen := map[string]bool{}
	for _, l := range lowers {
		entries, err := os.ReadDir(filepath.Join(l, dir))
		if err != nil {
			return err
		}
		for _, e := range entries {
			if seen[e.Name()] {
				continue
			}
			seen[e.Name()] = true
			info, err := e.Info()
			if err != nil {
				return err
			}
			if isWhiteout(info) {
				continue
			}
			path := filepath.Join(dir, e.Name())
			if _, err := os.Lstat(filepath.Join(w.upper, path)); errors.Is(err, os.ErrNotExist) {
				w.out = append(w.out, Change{Kind: Deleted, Path: path})
			}
		}
	}
	return nil
}

// below says whether path exists in the merge of the lower layers, and which of
// them make up the folder if it is one.
func below(path string, lowers []string) (exists bool, merged []string, err error) {
	for _, l := range lowers {
		full := filepath.Join(l, path)
		info, err := os.Lstat(full)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			continue
		}
		if err != nil {
			return false, nil, err
		}
		if isWhiteout(info) {
			break
		}
		exists = true
		if !info.IsDir() {
			break
		}
		merged = append(merged, l)
		opaque, err := isOpaque(full)
		if err != nil {
			return false, nil, err
		}
		if opaque {
			break
		}
	}
	return exists, merged, nil
}

func isWhiteout(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && info.Mode()&fs.ModeCharDevice != 0 && st.Rdev == 0
}

func isOpaque(dir string) (bool, error) {
	var b [2]byte
	for _, name := range []string{"trusted.overlay.opaque", "user.overlay.opaque"} {
		n, err := unix.Lgetxattr(dir, name, b[:])
		switch {
		case err == nil && n == 1 && b[0] == 'y':
			return true, nil
		case err == nil, errors.Is(err, unix.ENODATA), errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.ERANGE), errors.Is(err, unix.EPERM):
		default:
			return false, &os.PathError{Op: "getxattr", Path: dir, Err: err}
		}
	}
	return false, nil
}
