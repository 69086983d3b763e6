// Command image assembles an OCI image archive around one static program, for
// `cleat load`: no builder and no registry are needed.
//
//	go run ./examples/demo/image -program bin/demo -name cleat/demo:latest -o bin/demo.tar
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	_ "crypto/sha256" // the digest algorithm of every blob here
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"runtime"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func main() {
	program := flag.String("program", "", "static program to put at /demo")
	name := flag.String("name", "docker.io/cleat/demo:latest", "full name of the image")
	out := flag.String("o", "", "archive to write")
	flag.Parse()
	if err := write(*program, *name, *out); err != nil {
		log.Fatal(err)
	}
}

// archive collects blobs and files in a tar; the first error sticks.
type archive struct {
	w   *tar.Writer
	err error
}

func (a *archive) file(name string, mode int64, data []byte) {
	if a.err != nil {
		return
	}
	a.err = a.w.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(data)), Typeflag: tar.TypeReg})
	if a.err == nil {
		_, a.err = a.w.Write(data)
	}
}

func (a *archive) blob(mediaType string, data []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	a.file("blobs/sha256/"+d.Digest.Encoded(), 0o644, data)
	return d
}

func (a *archive) json(mediaType string, v any) ocispec.Descriptor {
	data, err := json.Marshal(v)
	if err != nil && a.err == nil {
		a.err = err
	}
	return a.blob(mediaType, data)
}

func write(program, name, out string) error {
	code, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	plain, err := layer(code)
	if err != nil {
		return err
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	if _, err := z.Write(plain); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}

	f, err := os.Create(out)
	if err != nil {
		return err
	}
	defer f.Close()
	a := &archive{w: tar.NewWriter(f)}
	a.file("oci-layout", 0o644, []byte(`{"imageLayoutVersion":"1.0.0"}`))
	platform := ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
	var config dockerspec.DockerOCIImage
	config.Platform = platform
	config.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(plain)}}
	config.Config.Entrypoint = []string{"/demo"}
	config.Config.Env = []string{"PATH=/", "DEMO_IMAGE=" + name}
	config.Config.ExposedPorts = map[string]struct{}{"8080/tcp": {}}
	config.Config.Volumes = map[string]struct{}{"/data": {}}
	config.Config.Labels = map[string]string{ocispec.AnnotationTitle: "Cleat demo"}
	config.History = []ocispec.History{{CreatedBy: "cleat demo image", Comment: "one static program"}}
	manifest := a.json(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    a.json(ocispec.MediaTypeImageConfig, config),
		Layers:    []ocispec.Descriptor{a.blob(ocispec.MediaTypeImageLayerGzip, zipped.Bytes())},
	})
	manifest.Platform = &platform
	manifest.Annotations = map[string]string{"io.containerd.image.name": name}
	index, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{manifest},
	})
	if err != nil {
		return err
	}
	a.file("index.json", 0o644, index)
	if a.err != nil {
		return fmt.Errorf("write %s: %w", out, a.err)
	}
	if err := a.w.Close(); err != nil {
		return err
	}
	return f.Close()
}

func layer(code []byte) ([]byte, error) {
	var buf bytes.Buffer
	a := &archive{w: tar.NewWriter(&buf)}
	for _, dir := range []string{"data/", "tmp/"} {
		if err := a.w.WriteHeader(&tar.Header{Name: dir, Mode: 0o1777, Typeflag: tar.TypeDir}); err != nil {
			return nil, err
		}
	}
	a.file("demo", 0o755, code)
	if a.err != nil {
		return nil, a.err
	}
	return buf.Bytes(), a.w.Close()
}
