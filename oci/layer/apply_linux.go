package layer

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/moby/sys/userns"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

var (
	errTooLarge = errors.New("the layer unpacks to more bytes than the configured limit")
	errTooMany  = errors.New("the layer has more entries than the configured limit")
)

// Limits bound what one layer may unpack to; 0 is no bound.
type Limits struct {
	Bytes   int64 `yaml:"bytes" json:"bytes"`
	Entries int64 `yaml:"entries" json:"entries"`
}

// Applier unpacks layers. It implements containerd's diff.Applier, is safe for
// concurrent use and keeps no state.
type Applier struct {
	blobs  content.Provider
	limits Limits
}

// NewApplier returns an applier of the layers in blobs.
func NewApplier(blobs content.Provider, limits Limits) *Applier {
	return &Applier{blobs: blobs, limits: limits}
}

var _ diff.Applier = (*Applier)(nil)

// Apply unpacks the layer onto the snapshot that mounts describe and returns
// digest and size of its plain form.
func (a *Applier) Apply(ctx context.Context, desc ocispec.Descriptor, mounts []mount.Mount, opts ...diff.ApplyOpt) (ocispec.Descriptor, error) {
	var cfg diff.ApplyConfig
	for _, o := range opts {
		if err := o(ctx, desc, &cfg); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	if !images.IsLayerType(desc.MediaType) || strings.HasSuffix(desc.MediaType, "+encrypted") ||
		desc.MediaType == images.MediaTypeErofsLayer {
		return ocispec.Descriptor{}, errdefs.Invalidf("layers of type %q cannot be unpacked", desc.MediaType)
	}
	ra, err := a.blobs.ReaderAt(ctx, desc)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("open layer: %w", err)
	}
	defer ra.Close()
	var src io.Reader = content.NewReader(ra)
	if cfg.Progress != nil {
		src = &progressReader{r: src, report: cfg.Progress}
	}
	out, err := a.ApplyStream(ctx, src, mounts)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return out, nil
}

// ApplyStream unpacks a tar that is not in the store.
func (a *Applier) ApplyStream(ctx context.Context, src io.Reader, mounts []mount.Mount) (ocispec.Descriptor, error) {
	plain, _, err := Decompress(src)
	if err != nil {
		return ocispec.Descriptor{}, errdefs.As(errdefs.ErrInvalidArgument, err)
	}
	defer plain.Close()
	h := sha256.New()
	p := newPipeline(plain, h, a.limits.Bytes)
	defer p.Close()
	if err := a.unpack(ctx, p, mounts); err != nil {
		return ocispec.Descriptor{}, classify(err)
	}
	if _, err := io.Copy(io.Discard, p); err != nil { // padding counts in the digest
		return ocispec.Descriptor{}, classify(err)
	}
	p.Close()
	return ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageLayer,
		Size:      p.n,
		Digest:    digest.NewDigest(digest.SHA256, h),
	}, nil
}

func classify(err error) error {
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return errdefs.As(errdefs.ErrExhausted, fmt.Errorf("unpack layer: %w", err))
	case errors.Is(err, tar.ErrHeader), errors.Is(err, io.ErrUnexpectedEOF):
		return errdefs.Invalidf("the layer is not a valid tar archive: %w", err)
	}
	return fmt.Errorf("unpack layer: %w", err)
}

// unpack writes to the folder behind the mounts without mounting, where that
// is the same: overlay's upper folder (whiteouts as overlayfs has them) or a bind's source.
func (a *Applier) unpack(ctx context.Context, r io.Reader, mounts []mount.Mount) error {
	if dir := Target(mounts); dir != "" {
		opts := a.filters(dir)
		if mounts[0].Type == "overlay" {
			opts = append(opts, archive.WithConvertWhiteout(archive.OverlayConvertWhiteout))
			if _, lowers := overlayDirs(mounts[0].Options); len(lowers) > 0 {
				opts = append(opts, archive.WithParents(lowers))
			}
		}
		_, err := archive.Apply(ctx, dir, r, opts...)
		return err
	}
	return mount.WithTempMount(ctx, mounts, func(root string) error {
		_, err := archive.Apply(ctx, root, r, a.filters(root)...)
		return err
	})
}

// largeEntry is the size from which an entry is held against the free space
// before it is written: a sparse entry of a few bytes can claim any size.
const largeEntry = 64 << 20

// filters sees every entry before it is unpacked below dir.
func (a *Applier) filters(dir string) []archive.ApplyOpt {
	var entries, size int64
	return []archive.ApplyOpt{archive.WithFilter(func(h *tar.Header) (bool, error) {
		entries++
		size += h.Size
		switch {
		case a.limits.Entries > 0 && entries > a.limits.Entries:
			return false, errdefs.As(errdefs.ErrExhausted, errTooMany)
		case a.limits.Bytes > 0 && size > a.limits.Bytes:
			return false, errdefs.As(errdefs.ErrExhausted, errTooLarge)
		case h.Size < largeEntry:
			return true, nil
		}
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			return false, &os.PathError{Op: "statfs", Path: dir, Err: err}
		}
		if uint64(h.Size) > st.Bavail*uint64(st.Bsize) {
			return false, fmt.Errorf("%s has %d bytes: %w", h.Name, h.Size, unix.ENOSPC)
		}
		return true, nil
	})}
}

// Target is the folder that Apply writes to, "" when it has to mount first.
func Target(mounts []mount.Mount) string {
	if len(mounts) != 1 {
		return ""
	}
	m := mounts[0]
	switch {
	case m.Type == "overlay" && !userns.RunningInUserNS():
		upper, _ := overlayDirs(m.Options)
		return upper
	case m.Type == "bind" && !slices.Contains(m.Options, "ro"):
		return m.Source
	}
	return ""
}

// overlayDirs reads upperdir and lowerdir from mount options.
func overlayDirs(options []string) (upper string, lowers []string) {
	for _, o := range options {
		if v, ok := strings.CutPrefix(o, "upperdir="); ok {
			upper = v
		} else if v, ok := strings.CutPrefix(o, "lowerdir="); ok {
			lowers = strings.Split(v, ":")
		}
	}
	return upper, lowers
}

type progressReader struct {
	r      io.Reader
	n      int64
	report func(int64)
}

func (p *progressReader) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.n += int64(n)
	p.report(p.n)
	return n, err
}
