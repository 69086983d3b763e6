// Package archtest holds the house rules that a test can check: who may import
// whom, one package doc per package, no init functions, no replace, and which
// modules each program links. Its tests run with every `go test ./...`.
//
// rooms.go is the table; it changes only together with the design.
package archtest

import (
	"path"
	"slices"
	"strings"
)

// Module is the path of this module.
const Module = "github.com/cleatlabs/cleat"

// room is a part of the tree and what it may import of the others.
type room struct {
	// prefix is the folder; the longest that matches decides.
	prefix string
	// may are prefixes that it may import, besides itself.
	may []string
	// anything lifts the rule.
	anything bool
}

// Floors of the engine: each may import those below it.
func floor1() []string {
	return []string{"engine/runtime", "engine/snapshot", "engine/network", "engine/volume", "engine/logs", "engine/events", "engine/filter"}
}

func floor2() []string { return []string{"engine/image", "engine/container", "engine/build"} }

func floor3() []string { return []string{"engine/dockerapi", "engine/cri"} }

// rooms is the import table of the design.
func rooms() []room {
	base := []string{"api", "internal"}
	engine := append([]string{"oci", "security"}, base...)
	node := []string{"api", "client", "internal", "security"}
	table := []room{
		{prefix: "api"},
		{prefix: "internal"},
		{prefix: "client", may: base},
		{prefix: "oci", may: base},
		{prefix: "security", may: append([]string{"oci"}, base...)},
		{prefix: "cluster/store", may: base},
		{prefix: "cluster/apiserver", may: append([]string{"cluster/store", "security"}, base...)},
		{prefix: "apps", may: append([]string{"client", "oci", "security"}, base...)},
		{prefix: "registry", may: append([]string{"oci", "security"}, base...)},
		{prefix: "dashboard", may: append([]string{"client", "security"}, base...)},
		{prefix: "cli", may: append([]string{"client", "apps", "oci"}, base...)},
		{prefix: "platform", anything: true},
		{prefix: "test", anything: true},
		{prefix: "tools", anything: true},
		{prefix: "examples"},
		{prefix: "cmd", may: []string{"platform", "cli", "internal"}},
		{prefix: "cmd/cleat-shim", may: []string{"engine/runtime", "internal"}},
	}
	for _, part := range []string{"scheduler", "controller", "agent", "proxy", "dns", "ingress"} {
		table = append(table, room{prefix: "cluster/" + part, may: node})
	}
	for _, f := range floor1() {
		may := append([]string{"engine/filter", "engine/events"}, engine...)
		if f == "engine/runtime" {
			may = append(may, "engine/logs") // the shim writes the log
		}
		table = append(table, room{prefix: f, may: may})
	}
	for _, f := range floor2() {
		may := append(floor1(), engine...)
		if f == "engine/container" {
			may = append(may, "engine/image") // a container is made of an image
		}
		table = append(table, room{prefix: f, may: may})
	}
	for _, f := range floor3() {
		table = append(table, room{prefix: f, may: append(append(floor1(), floor2()...), engine...)})
	}
	return table
}

// within says whether dir is prefix or below it.
func within(dir, prefix string) bool { return dir == prefix || strings.HasPrefix(dir, prefix+"/") }

// roomOf is the room of a folder, by the longest prefix.
func roomOf(table []room, dir string) (room, bool) {
	var best room
	found := false
	for _, r := range table {
		if within(dir, r.prefix) && len(r.prefix) >= len(best.prefix) {
			best, found = r, true
		}
	}
	return best, found
}

// allowed says whether a file of folder from may import folder to; test is a
// file of tests, which may also use what tests share.
func allowed(table []room, from, to string, test bool) bool {
	r, ok := roomOf(table, from)
	if !ok {
		return false
	}
	if r.anything || within(to, r.prefix) {
		return true
	}
	if test && (to == "internal/testx" || to == "oci/ocitest") {
		return true
	}
	return slices.ContainsFunc(r.may, func(p string) bool { return within(to, p) })
}

// folder is the module-relative folder of an import path, or "" for others'.
func folder(imp string) string {
	if rest, ok := strings.CutPrefix(imp, Module+"/"); ok {
		return path.Clean(rest)
	}
	return ""
}
