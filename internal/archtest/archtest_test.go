package archtest

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/internal/testx"
)

const module = "github.com/cleatlabs/cleat"

var rewrite = flag.Bool("rewrite", false, "write the lists of linked modules instead of comparing them")

func load(t *testing.T) []File {
	t.Helper()
	files, err := Load(testx.ModuleRoot(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 50 {
		t.Fatalf("found only %d files", len(files))
	}
	return files
}

func TestImportTable(t *testing.T) {
	for _, b := range imports(module, load(t)) {
		t.Error(b)
	}
}

func TestHouse(t *testing.T) {
	for _, b := range house(load(t)) {
		t.Error(b)
	}
}

func TestNoReplace(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(testx.ModuleRoot(t), "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 0 && f[0] == "replace" {
			t.Errorf("go.mod: %s: forks and local paths do not belong into a release", strings.TrimSpace(line))
		}
	}
}

// TestModules compares the third-party modules in each program with the list
// in testdata, so that a heavy or unwanted one is noticed in review.
func TestModules(t *testing.T) {
	root := testx.ModuleRoot(t)
	for _, prog := range []struct {
		name, tags string
		cgo        bool
	}{{"cleat", "", false}, {"cleatd", "", false}, {"cleat-shim", "seccomp,netgo,osusergo", true}} {
		t.Run(prog.name, func(t *testing.T) {
			packages, err := deps(root, "./cmd/"+prog.name, prog.tags, prog.cgo)
			if err != nil {
				t.Fatal(err)
			}
			got := foreign(module, packages)
			path := filepath.Join("testdata", prog.name+".modules")
			if *rewrite {
				if err := os.WriteFile(path, []byte(strings.Join(got, "\n")+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			data, err := os.ReadFile(path)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			for _, d := range compare(strings.Fields(string(data)), got, packages) {
				t.Errorf("%s (if this is wanted: go test ./internal/archtest -rewrite)", d)
			}
		})
	}
}

// TestThinClient: the command line is what people download for a laptop.
func TestThinClient(t *testing.T) {
	packages, err := deps(testx.ModuleRoot(t), "./cmd/cleat", "", false)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range foreign(module, packages) {
		for _, heavy := range []string{"k8s.io/", "go.etcd.io/etcd", "github.com/containerd/containerd/", "github.com/moby/buildkit",
			"github.com/opencontainers/runc", "github.com/vishvananda/", "github.com/google/nftables"} {
			if strings.HasPrefix(m, heavy) {
				t.Errorf("cmd/cleat links %s:\n    %s", m, strings.Join(chain(packages, m), "\n    → "))
			}
		}
	}
}

func TestForbidden(t *testing.T) {
	for _, c := range []struct {
		from, to string
		test, ok bool
	}{
		{"internal/clock", "internal/errdefs", false, true},
		{"internal/clock", "oci", false, false},
		{"engine/runtime", "engine/logs", false, true},
		{"engine/logs", "engine/runtime", false, false},
		{"engine/runtime/shim", "engine/runtime/wire", false, true},
		{"engine/volume", "engine/filter", false, true},
		{"engine/volume", "engine/network", false, false},
		{"engine/network/ipam", "engine/container", false, false},
		{"engine/container", "engine/image", false, true},
		{"engine/image", "engine/container", false, false},
		{"engine/dockerapi", "engine/container", false, true},
		{"engine/cri", "engine/dockerapi", false, false},
		{"engine/new", "internal/clock", false, true},
		{"engine/new", "engine/logs", false, false},
		{"engine/image", "client", false, false},
		{"cli/container", "engine/filter", false, false},
		{"cli/container", "client", false, true},
		{"cmd/cleat-shim", "engine/runtime/shim", false, true},
		{"cmd/cleat-shim", "engine/logs", false, false},
		{"cmd/cleat", "platform", false, true},
		{"cmd/cleat", "engine/logs", false, false},
		{"cluster/agent", "engine/cri", false, false},
		{"cluster/apiserver", "cluster/store", false, true},
		{"cluster/controller/job", "cluster/store", false, false},
		{"platform", "cluster/store", false, true},
		{"nowhere", "internal/clock", false, false},
		{"client", "internal/testx", true, true},
		{"client", "internal/testx", false, false},
		{"test/lab", "internal/testx", false, true},
		{"api", "oci/ocitest", true, true},
	} {
		if why := forbidden(c.from, c.to, c.test); (why == "") != c.ok {
			t.Errorf("%s -> %s (test %v): %q", c.from, c.to, c.test, why)
		}
	}
}

func TestHouseRules(t *testing.T) {
	long := File{Path: "a/x.go", Package: "a", Doc: "d", Lines: maxLines + 1}
	for name, c := range map[string]struct {
		files []File
		want  int
	}{
		"good":         {[]File{{Path: "a/x.go", Package: "a", Doc: "d"}, {Path: "a/y.go", Package: "a"}}, 0},
		"no doc":       {[]File{{Path: "a/x.go", Package: "a"}}, 1},
		"two docs":     {[]File{{Path: "a/x.go", Package: "a", Doc: "d"}, {Path: "a/y.go", Package: "a", Doc: "d"}}, 1},
		"by platform":  {[]File{{Path: "a/x_linux.go", Package: "a", Doc: "d"}, {Path: "a/x_other.go", Package: "a", Doc: "d"}}, 0},
		"only tests":   {[]File{{Path: "a/x_test.go", Package: "a"}}, 0},
		"init":         {[]File{{Path: "a/x.go", Package: "a", Doc: "d", Inits: 1}}, 1},
		"long":         {[]File{long}, 1},
		"name":         {[]File{{Path: "util/x.go", Package: "util", Doc: "d"}}, 1},
		"name of test": {[]File{{Path: "a/x.go", Package: "a", Doc: "d"}, {Path: "a/x_test.go", Package: "common_test"}}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			if got := house(c.files); len(got) != c.want {
				t.Errorf("%q", got)
			}
		})
	}
}

func TestParse(t *testing.T) {
	f, err := parse("a/x.go", []byte("// Package a is.\npackage a\n\nimport (\n\t_ \"b\"\n\tc \"d/e\"\n)\n\nfunc init() {}\n\ntype t int\n\nfunc (t) init() {}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if f.Package != "a" || f.Doc == "" || !slices.Equal(f.Imports, []string{"b", "d/e"}) || f.Inits != 1 || f.Lines != 13 {
		t.Errorf("%+v", f)
	}
}

func TestCompareShowsTheWay(t *testing.T) {
	m := func(p string) *struct{ Path string } { return &struct{ Path string }{p} }
	packages := []Package{
		{ImportPath: "x/heavy", Module: m("x")},
		{ImportPath: "y", Module: m("y"), Imports: []string{"x/heavy"}},
		{ImportPath: "own/cmd", Module: m("own"), Imports: []string{"y", "fmt"}},
	}
	got := compare([]string{"y", "z"}, foreign("own", packages), packages)
	want := []string{"+ x\n    own/cmd\n    → y\n    → x/heavy", "- z"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}
