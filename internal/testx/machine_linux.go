package testx

import (
	"bufio"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
)

// Snapshot is what a moment of the machine looks like, as far as a test can
// leave things behind: a sorted list of "kind name" lines.
type Snapshot []string

// Machine records mounts, network links, named network namespaces and nftables
// tables of the whole machine, and those cgroups and processes whose path,
// command line or environment contains prefix. Tests of other packages may run
// at the same time: Machine therefore leaves out what does not contain prefix
// wherever prefix is not "".
func Machine(t testing.TB, prefix string) Snapshot {
	t.Helper()
	var s Snapshot
	for _, collect := range []func(string) ([]string, error){mounts, links, namespaces, tables, cgroups, processes} {
		lines, err := collect(prefix)
		if err != nil {
			t.Fatalf("look at the machine: %v", err)
		}
		s = append(s, lines...)
	}
	slices.Sort(s)
	return s
}

// Diff returns what is in after but not in s, each line with its count of
// occurrences taken into account.
func (s Snapshot) Diff(after Snapshot) []string {
	have := make(map[string]int)
	for _, l := range s {
		have[l]++
	}
	var more []string
	for _, l := range after {
		if have[l] == 0 {
			more = append(more, l)
		} else {
			have[l]--
		}
	}
	return more
}

// NoLeaks takes a snapshot now and fails the test if its clean-up, which must
// be registered later and so runs earlier, leaves anything more. It grants some
// time, because the kernel removes namespaces and cgroups lazily.
func NoLeaks(t testing.TB, prefix string) {
	t.Helper()
	before := Machine(t, prefix)
	t.Cleanup(func() {
		Eventually(t, 10*time.Second, func() string {
			if more := before.Diff(Machine(t, prefix)); len(more) > 0 {
				return "left on the machine:\n  " + strings.Join(more, "\n  ")
			}
			return ""
		})
	})
}

func mounts(prefix string) ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close() // opened for reading
	var out []string
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		if !strings.Contains(sc.Text(), prefix) {
			continue
		}
		if fields := strings.Fields(sc.Text()); len(fields) > 4 {
			out = append(out, "mount "+fields[4])
		}
	}
	return out, sc.Err()
}

func links(prefix string) ([]string, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, l := range all {
		if strings.Contains(l.Name, prefix) {
			out = append(out, "link "+l.Name)
		}
	}
	return out, nil
}

func namespaces(prefix string) ([]string, error) {
	entries, err := os.ReadDir("/run/netns")
	if os.IsNotExist(err) {
		return nil, nil
	}
	var out []string
	for _, e := range entries {
		if strings.Contains(e.Name(), prefix) {
			out = append(out, "netns "+e.Name())
		}
	}
	return out, err
}

func tables(prefix string) ([]string, error) {
	if os.Geteuid() != 0 {
		return nil, nil // only root sees them, and only root makes them
	}
	c, err := nftables.New()
	if err != nil {
		return nil, err
	}
	all, err := c.ListTables()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, t := range all {
		if strings.Contains(t.Name, prefix) {
			out = append(out, fmt.Sprintf("nftables table %d %s", t.Family, t.Name))
		}
	}
	return out, nil
}

func cgroups(prefix string) ([]string, error) {
	if prefix == "" {
		return nil, nil // a whole machine's come and go
	}
	var out []string
	err := filepath.WalkDir("/sys/fs/cgroup", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // removed while walking
		}
		if d.IsDir() && strings.Contains(p, prefix) {
			out = append(out, "cgroup "+p)
		}
		return nil
	})
	return out, err
}

func processes(prefix string) ([]string, error) {
	if prefix == "" {
		return nil, nil // a whole machine's come and go
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		cmd, err := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if err != nil {
			continue // ended meanwhile
		}
		env, err := os.ReadFile("/proc/" + e.Name() + "/environ")
		if err != nil {
			env = nil // ended, or a zombie: its command line decides
		}
		if strings.Contains(string(cmd), prefix) || strings.Contains(string(env), prefix) {
			out = append(out, "process "+e.Name()+" "+strings.TrimRight(strings.ReplaceAll(string(cmd), "\x00", " "), " "))
		}
	}
	return out, nil
}
