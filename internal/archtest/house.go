package archtest

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

const maxLines = 600

// limit is the most lines of a file; tables and fakes make those of tests longer.
func limit(f File) int {
	if f.Test() {
		return maxLines + maxLines/3
	}
	return maxLines
}

// longFiles are those that may have more than maxLines, with the reason.
func longFiles() map[string]string { return map[string]string{} }

// inits are the files that may have an init function, with the reason.
func inits() map[string]string { return map[string]string{} }

// house returns what breaks a rule of the house, one line each.
func house(files []File) []string {
	var bad []string
	badf := func(format string, args ...any) { bad = append(bad, fmt.Sprintf(format, args...)) }
	docs := make(map[string][]string) // folder → files with a package comment
	for _, f := range files {
		dir := f.Dir()
		if !f.Test() {
			if _, ok := docs[dir]; !ok {
				docs[dir] = nil
			}
			if f.Doc != "" {
				docs[dir] = append(docs[dir], f.Path)
			}
		}
		if f.Generated {
			continue
		}
		if f.Inits > 0 && inits()[f.Path] == "" {
			badf("%s: has an init function; construct explicitly", f.Path)
		}
		if f.Lines > limit(f) && longFiles()[f.Path] == "" {
			badf("%s: %d lines; split it, or give a reason in internal/archtest/house.go", f.Path, f.Lines)
		}
		for _, name := range []string{f.Package, path.Base(dir)} {
			switch strings.TrimSuffix(name, "_test") {
			case "util", "utils", "common", "helper", "helpers", "misc", "shared":
				badf("%s: a package named %s; name it for what it does", f.Path, name)
			}
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(docs)) {
		switch n := len(docs[dir]); {
		case n == 0:
			badf("%s: no package comment: say what it is for, who uses it, what it guarantees", dir)
		case n > 1 && !onePerPlatform(docs[dir]):
			badf("%s: package comments in several files: %s", dir, strings.Join(docs[dir], ", "))
		}
	}
	for _, exceptions := range []map[string]string{longFiles(), inits()} {
		for p := range exceptions {
			if !slices.ContainsFunc(files, func(f File) bool { return f.Path == p }) {
				badf("%s: is excepted in internal/archtest/house.go and does not exist", p)
			}
		}
	}
	slices.Sort(bad)
	return slices.Compact(bad)
}

// onePerPlatform says whether the files exclude each other by name, as
// main_linux.go and main_other.go do.
func onePerPlatform(files []string) bool {
	for _, f := range files {
		if !strings.Contains(path.Base(f), "_") {
			return false
		}
	}
	return true
}

// imports returns the imports that the table forbids, one line each.
func imports(module string, files []File) []string {
	var bad []string
	for _, f := range files {
		for _, imp := range f.Imports {
			to, ours := strings.CutPrefix(imp, module+"/")
			if !ours {
				continue
			}
			if why := forbidden(f.Dir(), to, f.Test()); why != "" {
				bad = append(bad, fmt.Sprintf("%s imports %s: %s", f.Path, to, why))
			}
		}
	}
	slices.Sort(bad)
	return bad
}
