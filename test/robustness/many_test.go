package robustness

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/cleatlabs/cleat/test/lab"
)

// TestManyAtOnce runs 200 containers at the same time.
func TestManyAtOnce(t *testing.T) {
	d, before := start(t)
	const n = 200
	var wg sync.WaitGroup
	errs := make(chan error, n)
	slots := make(chan struct{}, 16)
	for i := range n {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			_, err := d.Client("cleat", "run", "-d", "--name", fmt.Sprintf("many%d", i), "busybox", "sleep", "1000")
			errs <- err
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
	if got := len(strings.Fields(d.Cleat("ps", "-q"))); got != n {
		t.Errorf("%d run, want %d", got, n)
	}
	if got := d.Cleat("exec", "many199", "hostname", "-i"); got == "" {
		t.Error("no address")
	}
	d.Cleat(append([]string{"rm", "-f"}, strings.Fields(d.Cleat("ps", "-aq"))...)...)
	mustBeAsBefore(t, d, before)
}

// TestNoGrowth runs containers one after the other and looks for what grows.
func TestNoGrowth(t *testing.T) {
	d, _ := start(t)
	n := 1000
	if testing.Short() {
		n = 100
	}
	for range n / 10 {
		d.Cleat("run", "--rm", "busybox", "true")
	}
	settle(t, d)
	pid := d.Pid()
	before := lab.Observe(t, d.Root, d.Run)
	fds, mem := openFiles(t, pid), privateMemory(t, pid)
	for range n - n/10 {
		d.Cleat("run", "--rm", "busybox", "true")
	}
	settle(t, d)
	mustBeAsBefore(t, d, before)
	lab.Eventually(t, "descriptors are as before", func() bool { return openFiles(t, pid) <= fds+3 })
	// The heap breathes; what grows with every container would add far more.
	if got := privateMemory(t, pid); got > mem+mem/2+8<<20 {
		t.Errorf("private memory grew from %d to %d bytes over %d containers", mem, got, n)
	}
}

func openFiles(t *testing.T, pid int) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// privateMemory is the sum of the private pages of a process, in bytes.
func privateMemory(t *testing.T, pid int) int {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	sum := 0
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); strings.HasPrefix(f[0], "Private_") {
			kb, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			sum += kb << 10
		}
	}
	return sum
}
