package ocitest

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// annotationName is where containerd and Docker look for a full name.
const annotationName = "io.containerd.image.name"

// WriteOCI builds the images and writes them as one OCI layout.
func WriteOCI(w io.Writer, images ...Image) error {
	var all []*Built
	for _, i := range images {
		b, err := i.Build()
		if err != nil {
			return err
		}
		all = append(all, b)
	}
	return WriteBuilt(w, all...)
}

// WriteBuilt writes images or indexes as one OCI layout.
func WriteBuilt(w io.Writer, images ...*Built) error {
	idx := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	blobs := map[digest.Digest][]byte{}
	for _, b := range images {
		for d, data := range b.Blobs {
			blobs[d] = data
		}
		if len(b.Names) == 0 {
			idx.Manifests = append(idx.Manifests, b.Manifest)
		}
		for _, name := range b.Names {
			n, err := reference.ParseNormalizedNamed(name)
			if err != nil {
				return err
			}
			n = reference.TagNameOnly(n)
			d := b.Manifest
			d.Annotations = map[string]string{annotationName: n.String()}
			if t, ok := n.(reference.Tagged); ok {
				d.Annotations[ocispec.AnnotationRefName] = t.Tag()
			}
			idx.Manifests = append(idx.Manifests, d)
		}
	}
	index, err := json.Marshal(idx)
	if err != nil {
		return err
	}
	files := []File{
		{Path: ocispec.ImageLayoutFile, Data: []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{Path: ocispec.ImageIndexFile, Data: index},
		{Path: "blobs/"}, {Path: "blobs/sha256/"},
	}
	for _, d := range sorted(blobs) {
		files = append(files, File{Path: "blobs/sha256/" + d.Encoded(), Data: blobs[d]})
	}
	return WriteTar(w, files...)
}

func sorted(blobs map[digest.Digest][]byte) []digest.Digest {
	var ds []digest.Digest
	for d := range blobs {
		ds = append(ds, d)
	}
	slices.Sort(ds)
	return ds
}

// WriteDocker builds the images and writes them as a docker-archive, as
// `docker save` did before it wrote OCI layouts: uncompressed layers in folders.
func WriteDocker(w io.Writer, images ...Image) error {
	type entry struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	var list []entry
	var files []File
	seen := map[string]bool{}
	for _, i := range images {
		b, err := i.Build()
		if err != nil {
			return err
		}
		e := entry{Config: b.Config.Digest.Encoded() + ".json", RepoTags: b.Names}
		files = append(files, File{Path: e.Config, Data: b.Blobs[b.Config.Digest]})
		for n, l := range i.Layers {
			plain, err := l.tar()
			if err != nil {
				return err
			}
			dir := b.DiffIDs[n].Encoded()
			if !seen[dir] {
				seen[dir] = true
				files = append(files, File{Path: dir + "/"}, File{Path: dir + "/VERSION", Data: []byte("1.0")},
					File{Path: dir + "/layer.tar", Data: plain})
			}
			e.Layers = append(e.Layers, dir+"/layer.tar")
		}
		list = append(list, e)
	}
	manifest, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return WriteTar(w, append(files, File{Path: "manifest.json", Data: manifest})...)
}

// ReadTar returns the regular files of a tar, for looking into what was saved.
func ReadTar(r io.Reader) (map[string][]byte, error) {
	out := map[string][]byte{}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if out[h.Name], err = io.ReadAll(tr); err != nil {
			return nil, err
		}
	}
}

// Push uploads an image or index to a registry that asks for no credentials.
// base is its URL.
func Push(client *http.Client, base, repository, tag string, b *Built) error {
	isManifest := func(d digest.Digest) bool {
		var probe struct {
			SchemaVersion int `json:"schemaVersion"`
		}
		return json.Unmarshal(b.Blobs[d], &probe) == nil && probe.SchemaVersion == 2
	}
	for _, d := range sorted(b.Blobs) {
		if isManifest(d) {
			continue
		}
		u := fmt.Sprintf("%s/v2/%s/blobs/uploads/?digest=%s", base, repository, d)
		if err := send(client, http.MethodPost, u, "application/octet-stream", b.Blobs[d]); err != nil {
			return err
		}
	}
	put := func(ref string, d digest.Digest) error {
		var probe struct {
			MediaType string `json:"mediaType"`
		}
		if err := json.Unmarshal(b.Blobs[d], &probe); err != nil {
			return err
		}
		return send(client, http.MethodPut, fmt.Sprintf("%s/v2/%s/manifests/%s", base, repository, ref), probe.MediaType, b.Blobs[d])
	}
	for _, d := range sorted(b.Blobs) {
		if isManifest(d) && d != b.Manifest.Digest {
			if err := put(d.String(), d); err != nil {
				return err
			}
		}
	}
	return put(tag, b.Manifest.Digest)
}

func send(client *http.Client, method, u, contentType string, data []byte) error {
	req, err := http.NewRequest(method, u, bytes.NewReader(data))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", contentType)
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	msg, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s %s", method, u, resp.Status, strings.TrimSpace(string(msg)))
	}
	return nil
}
