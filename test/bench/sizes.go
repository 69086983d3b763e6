package main

import (
	"archive/tar"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cleatlabs/cleat/test/lab"
)

// load measures loading an image of 500 MB in 25,000 files.
func (b *bench) load(dir string) error {
	layer := filepath.Join(dir, "layer.tar")
	const files, size = 25_000, 20_000
	const megabytes = files * size / 1_000_000
	if err := writeLayer(layer, files, size); err != nil {
		return err
	}
	defer os.Remove(layer)
	archive := filepath.Join(dir, "big.tar")
	if err := lab.WriteImage(archive, "docker.io/library/big:latest", layer); err != nil {
		return err
	}
	defer os.Remove(archive)
	fmt.Printf("\nload and unpack of an image, %d MB in %d files\n", megabytes, files)
	for _, e := range b.engines {
		began := time.Now()
		if err := e.do("load", "-i", archive); err != nil {
			fmt.Printf("  %-18s failed: %v\n", e.name, err)
			continue
		}
		if err := e.do("run", "--rm", "--entrypoint", "/none", "big"); err == nil {
			return fmt.Errorf("%s ran a program that is not there", e.name)
		}
		took := time.Since(began)
		fmt.Printf("  %-18s %6.0f MB/s  (%.1f s)\n", e.name, megabytes/took.Seconds(), took.Seconds())
		if err := e.do("rmi", "-f", "big"); err != nil {
			return err
		}
	}
	return nil
}

// writeLayer writes a tar of files with random content, which does not compress.
func writeLayer(path string, files, size int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w := tar.NewWriter(f)
	r := rand.NewChaCha8([32]byte{})
	buf := make([]byte, size)
	for i := range files {
		if i%100 == 0 {
			if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: fmt.Sprintf("d%d/", i/100), Mode: 0o755}); err != nil {
				return err
			}
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("d%d/f%d", i/100, i), Mode: 0o644, Size: int64(size)}); err != nil {
			return err
		}
		// ChaCha8's Read never fails.
		_, _ = r.Read(buf)
		if _, err := w.Write(buf); err != nil {
			return err
		}
	}
	return w.Close()
}

// memory prints what each daemon holds when idle, and what a container adds.
func (b *bench) memory() error {
	fmt.Printf("\nmemory, MB: resident / private\n")
	for _, e := range b.engines {
		if len(e.daemons) == 0 {
			continue
		}
		before := tree(e)
		fmt.Printf("  %-18s idle          %6.1f / %.1f\n", e.name, before.resident, before.private)
		const n = 10
		for i := range n {
			if err := e.do("run", "-d", "--name", "mem"+strconv.Itoa(i), "busybox", "sleep", "100000"); err != nil {
				return err
			}
		}
		after := tree(e)
		fmt.Printf("  %-18s per container %6.1f / %.1f\n", e.name, (after.resident-before.resident)/n, (after.private-before.private)/n)
		for i := range n {
			if err := e.do("rm", "-f", "mem"+strconv.Itoa(i)); err != nil {
				return err
			}
		}
	}
	return nil
}

type memory struct{ resident, private float64 }

// tree sums the memory of an engine's daemons, their children, and the shims
// that left them, which are known by the folder in their command line.
func tree(e *engine) memory {
	mine := map[int]bool{}
	for _, d := range e.daemons {
		mine[d.Process.Pid] = true
	}
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return memory{}
	}
	for range 4 { // deep enough for daemon, containerd, shim, container
		for _, p := range procs {
			stat, err := os.ReadFile(p + "/stat")
			if err != nil {
				continue
			}
			pid, _ := strconv.Atoi(filepath.Base(p))
			rest := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
			if parent, err := strconv.Atoi(rest[1]); err == nil && mine[parent] {
				mine[pid] = true
			}
			cmd, err := os.ReadFile(p + "/cmdline")
			if err == nil && e.name == "docker" && strings.Contains(string(cmd), "containerd-shim") {
				mine[pid] = true
			}
			if err == nil && e.name == "cleat" && strings.Contains(string(cmd), "cleat-shim") {
				mine[pid] = true
			}
		}
	}
	var sum memory
	for pid := range mine {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(data)) {
			f := strings.Fields(line)
			kb, err := strconv.ParseFloat(f[1], 64)
			if err != nil {
				continue
			}
			switch {
			case f[0] == "Rss:":
				sum.resident += kb / 1024
			case strings.HasPrefix(f[0], "Private_"):
				sum.private += kb / 1024
			}
		}
	}
	return sum
}
