package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// Package is what `go list -deps -json` says of one.
type Package struct {
	ImportPath string
	Imports    []string
	Standard   bool
	Module     *struct{ Path string }
}

// deps lists the packages that a program is linked from, on linux/amd64, with
// comma-separated build tags.
func deps(root, pkg, tags string, cgo bool) ([]Package, error) {
	cmd := exec.Command("go", "list", "-deps", "-tags="+tags, "-json=ImportPath,Imports,Standard,Module", pkg)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0")
	if cgo {
		cmd.Env = append(cmd.Env, "CGO_ENABLED=1")
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list %s: %w\n%s", pkg, err, stderr.String())
	}
	return decode(bytes.NewReader(out))
}

func decode(r io.Reader) ([]Package, error) {
	var list []Package
	for d := json.NewDecoder(r); ; {
		var p Package
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return list, nil
		} else if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
}

// foreign returns the modules, other than our own, of packages.
func foreign(own string, packages []Package) []string {
	set := make(map[string]struct{})
	for _, p := range packages {
		if p.Module != nil && p.Module.Path != own {
			set[p.Module.Path] = struct{}{}
		}
	}
	return slices.Sorted(maps.Keys(set))
}

// chain is a shortest way of imports from the program (the last of packages,
// which go list orders depth first) to a package of module.
func chain(packages []Package, module string) []string {
	byPath := make(map[string]Package, len(packages))
	for _, p := range packages {
		byPath[p.ImportPath] = p
	}
	start := packages[len(packages)-1].ImportPath
	from := map[string]string{start: ""}
	for queue := []string{start}; len(queue) > 0; queue = queue[1:] {
		p := byPath[queue[0]]
		if p.Module != nil && p.Module.Path == module {
			var way []string
			for at := p.ImportPath; at != ""; at = from[at] {
				way = append(way, at)
			}
			slices.Reverse(way)
			return way
		}
		for _, next := range p.Imports {
			if _, seen := from[next]; !seen {
				from[next] = p.ImportPath
				queue = append(queue, next)
			}
		}
	}
	return nil
}

// compare tells the modules that are linked and not in the golden list, with
// the way by which they came, and those that are in it and not linked.
func compare(golden, got []string, packages []Package) []string {
	var diff []string
	for _, m := range got {
		if !slices.Contains(golden, m) {
			diff = append(diff, "+ "+m+"\n    "+strings.Join(chain(packages, m), "\n    → "))
		}
	}
	for _, m := range golden {
		if !slices.Contains(got, m) {
			diff = append(diff, "- "+m)
		}
	}
	return diff
}
