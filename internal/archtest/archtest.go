// Package archtest holds the tests that keep the module's architecture as
// DESIGN.md draws it: who may import whom, which third-party modules each
// program links, and a few rules of the house. Nobody imports it.
//
// The rules are pure functions over what Load parsed, so that they are tested
// themselves. After a wanted change of dependencies:
//
//	go test ./internal/archtest -rewrite
package archtest

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// File is what the rules look at in one Go file.
type File struct {
	Path    string // relative to the module, slashes
	Package string
	Doc     string // the package comment, "" if none
	Imports []string
	Inits   int
	Lines   int
	// Generated files are exempt from the rules of style.
	Generated bool
}

// Dir is the file's package folder, "." for the module's own.
func (f File) Dir() string { return path.Dir(f.Path) }

// Test says whether the go command compiles the file only for tests.
func (f File) Test() bool { return strings.HasSuffix(f.Path, "_test.go") }

// Load parses every Go file of the module in root, whatever its build tags,
// without nested modules and testdata.
func Load(root string) ([]File, error) {
	var files []File
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // removed while walking
			}
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if p == root {
				return nil
			}
			if strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") || name == "testdata" || name == "vendor" || name == "bin" {
				return fs.SkipDir
			}
			if _, err := os.Stat(filepath.Join(p, "go.mod")); err == nil {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasPrefix(name, ".") {
			return nil
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		src, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		f, err := parse(filepath.ToSlash(rel), src)
		if err != nil {
			return err
		}
		files = append(files, f)
		return nil
	})
	return files, err
}

func parse(rel string, src []byte) (File, error) {
	set := token.NewFileSet()
	tree, err := parser.ParseFile(set, rel, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return File{}, err
	}
	f := File{
		Path: rel, Package: tree.Name.Name, Generated: ast.IsGenerated(tree),
		Lines: set.File(tree.Pos()).LineCount(),
	}
	if tree.Doc != nil {
		f.Doc = tree.Doc.Text()
	}
	for _, imp := range tree.Imports {
		p, err := strconv.Unquote(imp.Path.Value)
		if err != nil {
			return File{}, fmt.Errorf("%s: %w", rel, err)
		}
		f.Imports = append(f.Imports, p)
	}
	for _, d := range tree.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
			f.Inits++
		}
	}
	return f, nil
}
