package archtest

import (
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

const top = "../.."

// goFile is a parsed file of the module.
type goFile struct {
	dir, name string
	lines     int
	ast       *ast.File
}

func (f goFile) test() bool      { return strings.HasSuffix(f.name, "_test.go") }
func (f goFile) generated() bool { return strings.HasPrefix(f.name, "zz_") || ast.IsGenerated(f.ast) }

// files parses every file, whatever its build tags.
func files(t *testing.T) []goFile {
	t.Helper()
	var all []goFile
	set := token.NewFileSet()
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && path != top && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin" || name == "conformance") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(set, path, src, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(top, filepath.Dir(path))
		all = append(all, goFile{dir: dir, name: name, lines: strings.Count(string(src), "\n"), ast: f})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 100 {
		t.Fatalf("only %d files were found", len(all))
	}
	return all
}

func TestImports(t *testing.T) {
	table := rooms()
	for _, f := range files(t) {
		for _, spec := range f.ast.Imports {
			imp, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if to := folder(imp); to != "" && !allowed(table, f.dir, to, f.test()) {
				t.Errorf("%s/%s imports %s: its room may not", f.dir, f.name, to)
			}
		}
	}
}

func TestTable(t *testing.T) {
	table := rooms()
	for _, c := range []struct {
		from, to string
		test, ok bool
	}{
		{"engine/container", "engine/runtime", false, true},
		{"engine/runtime", "engine/container", false, false},
		{"engine/runtime/shim", "engine/logs", false, true},
		{"engine/network", "engine/volume", false, false},
		{"engine/image", "engine/container", false, false},
		{"engine/dockerapi", "engine/container", false, true},
		{"cluster/agent", "engine/cri", false, false},
		{"cluster/agent", "cluster/store", false, false},
		{"cluster/apiserver", "cluster/store", false, true},
		{"cli/container", "engine/container", false, false},
		{"cli/container", "client", false, true},
		{"cmd/cleat-shim", "platform", false, false},
		{"cmd/cleat-shim", "engine/runtime/shim", false, true},
		{"oci/layer", "engine/image", true, false},
		{"engine/image", "oci/ocitest", true, true},
		{"platform", "engine/network", false, true},
	} {
		if got := allowed(table, c.from, c.to, c.test); got != c.ok {
			t.Errorf("%s -> %s: allowed %v, want %v", c.from, c.to, got, c.ok)
		}
	}
}

// TestPackageDocs: one package comment per package, in one of its files.
func TestPackageDocs(t *testing.T) {
	docs, packages := map[string][]string{}, map[string]bool{}
	for _, f := range files(t) {
		if f.test() {
			continue
		}
		packages[f.dir] = true
		if f.ast.Doc != nil && len(f.ast.Doc.Text()) > 0 {
			docs[f.dir] = append(docs[f.dir], f.name)
		}
	}
	for dir := range packages {
		if len(docs[dir]) != 1 {
			t.Errorf("%s has %d package comments, in %v; one is wanted", dir, len(docs[dir]), docs[dir])
		}
	}
}

// TestHouse checks the smaller rules.
func TestHouse(t *testing.T) {
	const longest = 600
	for _, f := range files(t) {
		for _, banned := range []string{"util", "utils", "common", "helper", "helpers", "misc"} {
			if f.ast.Name.Name == banned {
				t.Errorf("%s: %q says nothing about what is in it", f.dir, banned)
			}
		}
		if f.lines > longest && !f.generated() {
			t.Errorf("%s/%s has %d lines; does it still hold one thing that its name says?", f.dir, f.name, f.lines)
		}
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s/%s has an init function: wire things in platform", f.dir, f.name)
			}
		}
	}
	mod, err := os.ReadFile(filepath.Join(top, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mod)) {
		if strings.HasPrefix(strings.TrimSpace(line), "replace") {
			t.Errorf("go.mod: %s", strings.TrimSpace(line))
		}
	}
}

// TestLinkedModules compares the modules that the small programs link with
// reviewed lists. A new line there is a decision: say why in the commit.
func TestLinkedModules(t *testing.T) {
	for _, p := range []struct {
		name, tags, cgo string
	}{{"cleat", "", "0"}, {"cleat-shim", "seccomp netgo osusergo", "1"}} {
		cmd := exec.Command("go", "list", "-deps", "-tags", p.tags, "-f", "{{with .Module}}{{.Path}}{{end}}", "./cmd/"+p.name)
		cmd.Dir = top
		cmd.Env = append(os.Environ(), "CGO_ENABLED="+p.cgo, "GOOS=linux")
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		mods := strings.Fields(string(out))
		slices.Sort(mods)
		mods = slices.DeleteFunc(slices.Compact(mods), func(m string) bool { return m == Module })
		got := strings.Join(mods, "\n") + "\n"
		golden := filepath.Join("testdata", p.name+".modules")
		if *rewrite {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), got); d != "" {
			t.Errorf("%s links other modules than %s says (go test ./internal/archtest -rewrite):\n%s", p.name, golden, d)
		}
	}
}
