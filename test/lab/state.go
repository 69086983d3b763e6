package lab

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
)

// State is what of a machine a daemon may change: compared before and after,
// it shows what was left behind. Each line names one thing.
type State map[string]bool

// Observe reads the state of the lab. Roots of daemons are where their files
// are looked for; processes are found by those paths too.
func Observe(t testing.TB, dirs ...string) State {
	t.Helper()
	s := State{}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		s["mount "+f[4]] = true
	}
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		s["link "+l.Attrs().Name] = true
	}
	s.nft(t)
	for _, dir := range dirs {
		s.cgroups(dir)
		s.files(dir)
		s.processes(dir)
	}
	return s
}

func (s State) files(dir string) {
	// What cannot be read is not there any more.
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			s["file "+path] = true
		}
		return nil
	})
}

// cgroups looks at those of the daemon with this root; tests beside this one
// have their own, and cgroups are not the lab's alone.
func (s State) cgroups(root string) {
	sum := sha256.Sum256([]byte(root))
	name := "cleat-" + hex.EncodeToString(sum[:4])
	for _, pattern := range []string{"/sys/fs/cgroup/*/" + name, "/sys/fs/cgroup/" + name} {
		tops, err := filepath.Glob(pattern)
		if err != nil {
			continue
		}
		for _, top := range tops {
			_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					s["cgroup "+path] = true
				}
				return nil
			})
		}
	}
}

func (s State) nft(t testing.TB) {
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	chains, err := c.ListChains()
	if err != nil {
		t.Fatal(err)
	}
	for _, ch := range chains {
		rules, err := c.GetRules(ch.Table, ch)
		if err != nil {
			t.Fatal(err)
		}
		s[fmt.Sprintf("nft %s/%s: %d rules", ch.Table.Name, ch.Name, len(rules))] = true
	}
	tables, err := c.ListTables()
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		sets, err := c.GetSets(table)
		if err != nil {
			t.Fatal(err)
		}
		for _, set := range sets {
			elements, err := c.GetSetElements(set)
			if err != nil {
				t.Fatal(err)
			}
			s[fmt.Sprintf("nft %s/%s: %d elements", table.Name, set.Name, len(elements))] = true
		}
	}
}

func (s State) processes(dir string) {
	procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return
	}
	for _, p := range procs {
		cmd, err := os.ReadFile(p)
		if err == nil && strings.Contains(string(cmd), dir) {
			s["process "+strings.ReplaceAll(string(cmd), "\x00", " ")] = true
		}
	}
}

// Left lists what s has and before had not, but for what ignore says.
func (s State) Left(before State, ignore func(string) bool) []string {
	var left []string
	for k := range s {
		if !before[k] && (ignore == nil || !ignore(k)) {
			left = append(left, k)
		}
	}
	slices.Sort(left)
	return left
}
