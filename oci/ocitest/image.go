// Package ocitest assembles images in memory for tests: from a list of files to
// an OCI layout or a docker-archive on a tar stream, or into a registry. Tests
// of every room use it; nothing else does.
//
//	img := ocitest.Image{Names: []string{"hello:latest"}, Layers: []ocitest.Layer{{
//		Files: []ocitest.File{{Path: "bin/hello", Mode: 0o755, Data: program}},
//	}}}
//	err := ocitest.WriteOCI(w, img) // what `docker load` reads
package ocitest

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// File is an entry of a layer. Without Type it is a symbolic link when Link is
// set, a directory when Path ends with "/", a file otherwise.
type File struct {
	Path     string
	Mode     int64 // 0 means 0644, for directories 0755
	Data     []byte
	Link     string // of symbolic and hard links
	Type     byte   // as in archive/tar
	UID, GID int
	Major    int64
	Minor    int64
	Xattrs   map[string]string
	ModTime  time.Time
}

// Layer is a list of files, or a ready tar. Compression is "gzip" (also ""),
// "zstd" or "none".
type Layer struct {
	Files       []File
	Tar         []byte
	Compression string
}

// Image is a description of one platform's image.
type Image struct {
	// Names are in full or familiar form.
	Names    []string
	Layers   []Layer
	Config   dockerspec.DockerOCIImageConfig
	Platform ocispec.Platform // the host's by default
	Created  time.Time        // a fixed time by default
	// Docker gives manifest, configuration and layers Docker's media types.
	Docker bool
}

// Built is an image as blobs.
type Built struct {
	Manifest ocispec.Descriptor
	Config   ocispec.Descriptor
	Layers   []ocispec.Descriptor
	DiffIDs  []digest.Digest
	Blobs    map[digest.Digest][]byte
	Names    []string
}

// Build makes the blobs.
func (i Image) Build() (*Built, error) {
	b := &Built{Blobs: map[digest.Digest][]byte{}, Names: i.Names}
	created := i.Created
	if created.IsZero() {
		created = time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)
	}
	p := i.Platform
	if p.OS == "" {
		p.OS = "linux"
	}
	if p.Architecture == "" {
		p.Architecture = runtime.GOARCH
	}
	var history []ocispec.History
	for n, l := range i.Layers {
		plain, err := l.tar()
		if err != nil {
			return nil, err
		}
		blob, mediaType, err := compress(plain, l.Compression, i.Docker)
		if err != nil {
			return nil, err
		}
		b.DiffIDs = append(b.DiffIDs, digest.FromBytes(plain))
		b.Layers = append(b.Layers, b.add(mediaType, blob))
		history = append(history, ocispec.History{Created: &created, CreatedBy: fmt.Sprintf("layer %d", n)})
	}
	cfg := dockerspec.DockerOCIImage{
		Image: ocispec.Image{
			Created: &created, Platform: p, History: history,
			RootFS: ocispec.RootFS{Type: "layers", DiffIDs: b.DiffIDs},
		},
		Config: i.Config,
	}
	cfgType, manType := ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageManifest
	if i.Docker {
		cfgType = "application/vnd.docker.container.image.v1+json"
		manType = "application/vnd.docker.distribution.manifest.v2+json"
	}
	data, err := json.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	b.Config = b.add(cfgType, data)
	data, err = json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: manType, Config: b.Config, Layers: b.Layers,
	})
	if err != nil {
		return nil, err
	}
	b.Manifest = b.add(manType, data)
	b.Manifest.Platform = &p
	return b, nil
}

// Index combines images of several platforms. The first one's names are its names.
func Index(images ...*Built) (*Built, error) {
	all := &Built{Blobs: map[digest.Digest][]byte{}}
	idx := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, b := range images {
		idx.Manifests = append(idx.Manifests, b.Manifest)
		for d, data := range b.Blobs {
			all.Blobs[d] = data
		}
		if all.Names == nil {
			all.Names = b.Names
		}
	}
	data, err := json.Marshal(idx)
	if err != nil {
		return nil, err
	}
	all.Manifest = all.add(ocispec.MediaTypeImageIndex, data)
	return all, nil
}

func (b *Built) add(mediaType string, data []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	b.Blobs[d.Digest] = data
	return d
}

func (l Layer) tar() ([]byte, error) {
	if l.Tar != nil {
		return l.Tar, nil
	}
	var buf bytes.Buffer
	err := WriteTar(&buf, l.Files...)
	return buf.Bytes(), err
}

// WriteTar writes files as they are given; no parent directories are added.
func WriteTar(w io.Writer, files ...File) error {
	tw := tar.NewWriter(w)
	for _, f := range files {
		h := &tar.Header{
			Name: f.Path, Mode: f.Mode, Uid: f.UID, Gid: f.GID, Linkname: f.Link, Typeflag: f.Type,
			Devmajor: f.Major, Devminor: f.Minor, Size: int64(len(f.Data)), ModTime: f.ModTime,
		}
		for k, v := range f.Xattrs {
			if h.PAXRecords == nil {
				h.PAXRecords = map[string]string{}
			}
			h.PAXRecords["SCHILY.xattr."+k] = v
		}
		if h.ModTime.IsZero() {
			h.ModTime = time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)
		}
		if h.Typeflag == 0 {
			switch {
			case f.Link != "":
				h.Typeflag = tar.TypeSymlink
			case strings.HasSuffix(f.Path, "/"):
				h.Typeflag = tar.TypeDir
			default:
				h.Typeflag = tar.TypeReg
			}
		}
		if h.Mode == 0 {
			h.Mode = 0o644
			if h.Typeflag == tar.TypeDir {
				h.Mode = 0o755
			}
		}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if _, err := tw.Write(f.Data); err != nil {
			return err
		}
	}
	return tw.Close()
}

func compress(plain []byte, how string, docker bool) ([]byte, string, error) {
	var buf bytes.Buffer
	var w io.WriteCloser
	mediaType := ocispec.MediaTypeImageLayerGzip
	switch how {
	case "", "gzip":
		w = gzip.NewWriter(&buf)
		if docker {
			mediaType = "application/vnd.docker.image.rootfs.diff.tar.gzip"
		}
	case "zstd":
		z, err := zstd.NewWriter(&buf)
		if err != nil {
			return nil, "", err
		}
		w, mediaType = z, ocispec.MediaTypeImageLayerZstd
	case "none":
		if docker {
			return plain, "application/vnd.docker.image.rootfs.diff.tar", nil
		}
		return plain, ocispec.MediaTypeImageLayer, nil
	default:
		return nil, "", fmt.Errorf("ocitest: unknown compression %q", how)
	}
	if _, err := w.Write(plain); err != nil {
		return nil, "", err
	}
	return closed(w, &buf, mediaType)
}

func closed(w io.Closer, buf *bytes.Buffer, mediaType string) ([]byte, string, error) {
	err := w.Close()
	return buf.Bytes(), mediaType, err
}

// Busybox is an image of busybox-static with its commands as links in /bin, and
// with the folders and accounts that programs expect.
func Busybox(names ...string) (Image, error) {
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return Image{}, fmt.Errorf("busybox-static is not installed: %w", err)
	}
	files := []File{
		{Path: "bin/"}, {Path: "bin/busybox", Mode: 0o755, Data: program},
		{Path: "etc/"}, {Path: "etc/passwd", Data: []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")},
		{Path: "etc/group", Data: []byte("root:x:0:\nnogroup:x:65534:\n")},
		{Path: "root/", Mode: 0o700}, {Path: "tmp/", Mode: 0o1777}, {Path: "var/"}, {Path: "home/"},
		{Path: "proc/"}, {Path: "sys/"}, {Path: "dev/"}, {Path: "usr/"}, {Path: "usr/bin/"},
	}
	for _, c := range strings.Fields(busyboxCommands) {
		files = append(files, File{Path: path.Join("bin", c), Link: "busybox"})
	}
	files = append(files, File{Path: "usr/bin/env", Link: "/bin/busybox"})
	i := Image{Names: names, Layers: []Layer{{Files: files}}}
	i.Config.Cmd = []string{"sh"}
	i.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	return i, nil
}

const busyboxCommands = `sh ash cat ls echo true false sleep touch rm mkdir rmdir mv cp ln chmod chown ps kill
 id whoami env printenv test [ expr seq head tail grep sed awk cut sort uniq wc tr tee dd df du mount umount stat
 readlink basename dirname date hostname uname nc ping wget httpd nslookup ip ifconfig netstat traceroute vi find
 xargs tar gzip gunzip md5sum sha256sum od hexdump yes trap stty tty su sysctl mknod mkfifo nproc free top uptime
 timeout usleep printf pwd which wait ulimit cmp diff more less dmesg chroot addgroup adduser setsid nohup watch`
