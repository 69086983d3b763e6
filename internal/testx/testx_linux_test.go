package testx

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestNames(t *testing.T) {
	t.Run("A Long/Name with §§ signs that does not fit into forty characters at all", func(t *testing.T) {
		if a := SafeName(t); !regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,38}[a-z0-9]$`).MatchString(a) {
			t.Errorf("%q", a)
		}
	})
	l, err := net.Listen("unix", filepath.Join(TempRun(t), strings.Repeat("d", 60)+".sock"))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func TestBuildBinary(t *testing.T) {
	a := BuildBinary(t, "./engine/volume/plugintest", "", false)
	if b := BuildBinary(t, "./engine/volume/plugintest", "", false); a != b || !static(t, a) {
		t.Error(a, b)
	}
}

func TestEventually(t *testing.T) {
	n := 0
	Eventually(t, time.Minute, func() string {
		if n++; n < 3 {
			return "not yet"
		}
		return ""
	})
	if n != 3 {
		t.Error(n)
	}
}

func TestDiff(t *testing.T) {
	before, after := Snapshot{"mount /a", "mount /b"}, Snapshot{"mount /a", "mount /a", "mount /c"}
	if got := before.Diff(after); strings.Join(got, ",") != "mount /a,mount /c" {
		t.Error(got)
	}
	if d := after.Diff(after); len(d) > 0 {
		t.Error(d)
	}
}

// TestMachine: the snapshot sees a process by a word in its environment.
func TestMachine(t *testing.T) {
	word := SafeName(t)
	before := Machine(t, word)
	cmd := exec.Command("sleep", "1000")
	cmd.Env = append(os.Environ(), "MARK="+word)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	got := before.Diff(Machine(t, word))
	if len(got) != 1 || !strings.HasPrefix(got[0], "process ") {
		t.Errorf("%q is not one process", got)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // says that it was killed
	if got := before.Diff(Machine(t, word)); len(got) > 0 {
		t.Error(got)
	}
}
