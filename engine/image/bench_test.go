package image

import (
	"bytes"
	"fmt"
	"math/rand"
	"testing"

	"github.com/cleatlabs/cleat/oci/ocitest"
)

func BenchmarkGet(b *testing.B) {
	f := newFixture(b, nil)
	f.load(b, two("demo:1"))
	for b.Loop() {
		if _, err := f.Get(b.Context(), "demo:1", nil); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPrepare is the part of starting a container that the store has.
func BenchmarkPrepare(b *testing.B) {
	f := newFixture(b, nil)
	f.load(b, two("demo:1"))
	img, err := f.Get(b.Context(), "demo:1", nil)
	if err != nil {
		b.Fatal(err)
	}
	n := 0
	for b.Loop() {
		n++
		if err := f.PrepareSnapshot(b.Context(), fmt.Sprint("c", n), img); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPrepareMountsRemove(b *testing.B) {
	f := newFixture(b, nil)
	f.load(b, two("demo:1"))
	img, err := f.Get(b.Context(), "demo:1", nil)
	if err != nil {
		b.Fatal(err)
	}
	n := 0
	for b.Loop() {
		n++
		key := fmt.Sprint("c", n)
		if err := f.PrepareSnapshot(b.Context(), key, img); err != nil {
			b.Fatal(err)
		}
		if _, err := f.SnapshotMounts(b.Context(), key); err != nil {
			b.Fatal(err)
		}
		if err := f.RemoveSnapshot(b.Context(), key); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLoad reads an image of many small files.
func BenchmarkLoad(b *testing.B) {
	rnd := rand.New(rand.NewSource(1))
	var layers []ocitest.Layer
	total := 0
	for l := range 4 {
		var files []ocitest.File
		for i := range 5000 {
			data := make([]byte, rnd.Intn(10<<10))
			for j := range data {
				data[j] = byte(rnd.Intn(40)) // compresses about as programs do
			}
			total += len(data)
			files = append(files, ocitest.File{Path: fmt.Sprintf("l%d/d%d/f%d", l, i/100, i), Data: data})
		}
		layers = append(layers, ocitest.Layer{Files: files})
	}
	var buf bytes.Buffer
	if err := ocitest.WriteOCI(&buf, ocitest.Image{Names: []string{"big:1"}, Layers: layers}); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(total))
	for b.Loop() {
		f := newFixture(b, nil)
		if err := f.Load(b.Context(), bytes.NewReader(buf.Bytes()), nil, nil); err != nil {
			b.Fatal(err)
		}
	}
}
