package seccomp

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestKey(t *testing.T) {
	a := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno}
	b := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow}
	keys := map[string]bool{}
	for _, c := range []struct {
		version string
		profile *specs.LinuxSeccomp
	}{{"1", a}, {"2", a}, {"1", b}} {
		k, err := key(c.version, c.profile)
		if err != nil {
			t.Fatal(err)
		}
		keys[k] = true
	}
	if len(keys) != 3 {
		t.Errorf("%v", keys)
	}
}

func TestExtraFile(t *testing.T) {
	for name, c := range map[string]struct {
		env  map[string]string
		want bool
	}{
		"file first":          {map[string]string{"_LIBCONTAINER_INITPIPE": "4"}, true},
		"no file":             {map[string]string{"_LIBCONTAINER_INITPIPE": "3"}, false},
		"file, console":       {map[string]string{"_LIBCONTAINER_CONSOLE": "4", "_LIBCONTAINER_INITPIPE": "5"}, true},
		"console, no file":    {map[string]string{"_LIBCONTAINER_CONSOLE": "3", "_LIBCONTAINER_INITPIPE": "4"}, false},
		"not of libcontainer": {nil, false},
	} {
		fd, ok := extraFile(func(k string) string { return c.env[k] })
		if ok != c.want || fd != 3 {
			t.Errorf("%s: %d, %v", name, fd, ok)
		}
	}
}

// TestKeep: what a process leaves is kept whole or not at all.
func TestKeep(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	for name, c := range map[string]struct {
		left []byte
		kept bool
	}{
		"program":    {bytes.Repeat([]byte("12345678"), 100), true},
		"nothing":    {nil, false},
		"no program": {[]byte("123"), false},
		"too long":   {make([]byte, (maxInstructions+1)*instruction), false},
	} {
		f, err := os.CreateTemp(t.TempDir(), "left")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(c.left); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		// An error is no matter to the container; that nothing is kept counts.
		_ = (&File{File: f, path: path}).Keep()
		f.Close()
		data, err := os.ReadFile(path)
		if (err == nil) != c.kept || c.kept && !bytes.Equal(data, c.left) {
			t.Errorf("%s: %d bytes, %v", name, len(data), err)
		}
	}
	var none *File
	if none.Keep() != nil || none.Close() != nil {
		t.Error("no file is no error")
	}
}
