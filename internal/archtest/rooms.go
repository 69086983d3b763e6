package archtest

import (
	"fmt"
	"slices"
	"strings"
)

// room names the part of the module that a folder belongs to: the first
// element of its path, the first two inside cluster and engine, and cmd/NAME.
func room(dir string) string {
	elems := strings.Split(dir, "/")
	switch elems[0] {
	case "engine", "cluster", "cmd":
		if len(elems) > 1 {
			return elems[0] + "/" + elems[1]
		}
	}
	return elems[0]
}

// mayImport is DESIGN.md's table, besides the room itself. A "/..." stands for
// every room that begins so.
func mayImport() map[string][]string {
	table := map[string][]string{
		"api":               {},
		"internal":          {},
		"client":            {"api", "internal"},
		"oci":               {"api", "internal"},
		"security":          {"api", "oci", "internal"},
		"engine":            {"api", "oci", "security", "internal"},
		"cluster/store":     {"api", "internal"},
		"cluster/apiserver": {"cluster/store", "api", "security", "internal"},
		"apps":              {"api", "client", "oci", "security", "internal"},
		"registry":          {"api", "oci", "security", "internal"},
		"dashboard":         {"api", "client", "security", "internal"},
		"cli":               {"api", "client", "apps", "oci", "internal"},
		"platform":          {"*"},
		"test":              {"*"},
		"cmd/cleat":         {"platform", "cli", "internal"},
		"cmd/cleatd":        {"platform", "cli", "internal"},
		"cmd/cleat-shim":    {"engine/runtime", "internal"},
		// Programs for those who build the product, and examples for those who
		// use it.
		"tools":    {"api", "internal"},
		"examples": {"api", "client"},
	}
	for _, r := range []string{"scheduler", "controller", "agent", "proxy", "dns", "ingress"} {
		table["cluster/"+r] = []string{"api", "client", "internal", "security"}
	}
	return table
}

// floors of the engine, lowest first. Imports go to a lower floor only. What
// floor 0 has is vocabulary, which the seams between the others are written in.
func floors() [][]string {
	return [][]string{
		{"events", "filter"},
		{"runtime", "snapshot", "network", "volume", "logs"},
		{"image", "container", "build"},
		{"dockerapi", "cri"},
	}
}

// sameFloor are the imports within a floor that exist on purpose.
func sameFloor() map[[2]string]string {
	return map[[2]string]string{
		{"runtime", "logs"}:    "the shim writes the log",
		{"container", "image"}: "a container is made from an image.Image",
		{"build", "image"}:     "a build ends in an image",
	}
}

// anyTest are packages made for tests; any _test.go may import them.
func anyTest() []string { return []string{"internal/testx", "oci/ocitest"} }

// forbidden says why a file in folder from may not import the package in folder
// to, or "". test tells a _test.go file.
func forbidden(from, to string, test bool) string {
	if test && slices.Contains(anyTest(), to) {
		return ""
	}
	if slices.Contains(anyTest(), to) && !slices.Contains(anyTest(), from) && room(from) != "test" {
		return to + " is for tests only"
	}
	a, b := room(from), room(to)
	if a == b {
		return ""
	}
	if strings.HasPrefix(a, "engine/") && strings.HasPrefix(b, "engine/") {
		return wrongFloor(strings.TrimPrefix(a, "engine/"), strings.TrimPrefix(b, "engine/"))
	}
	key := a
	if strings.HasPrefix(a, "engine/") {
		key = "engine"
	}
	allowed, known := mayImport()[key]
	if !known {
		return "the room " + a + " is not in the table of internal/archtest/rooms.go"
	}
	if slices.Contains(allowed, "*") || slices.Contains(allowed, b) {
		return ""
	}
	return fmt.Sprintf("%s may import only %s", a, strings.Join(append(slices.Clone(allowed), "itself"), ", "))
}

func wrongFloor(a, b string) string {
	fa, fb := floorOf(a), floorOf(b)
	switch {
	case fa < 0:
		return "engine/" + a + " is on no floor of internal/archtest/rooms.go"
	case fb < 0:
		return "engine/" + b + " is on no floor of internal/archtest/rooms.go"
	case fb < fa || sameFloor()[[2]string{a, b}] != "":
		return ""
	case fb == fa:
		return fmt.Sprintf("engine/%s and engine/%s are on the same floor: declare an interface, platform joins them", a, b)
	default:
		return fmt.Sprintf("engine/%s is above engine/%s", b, a)
	}
}

func floorOf(pkg string) int {
	return slices.IndexFunc(floors(), func(f []string) bool { return slices.Contains(f, pkg) })
}
