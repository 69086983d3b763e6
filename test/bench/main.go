package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cleatlabs/cleat/test/lab"
)

func main() {
	only := flag.String("only", "", "comma-separated names of what to measure (default all)")
	rounds := flag.Int("rounds", 30, "turns of each subject")
	flag.Parse()
	os.Exit(lab.Enter(func() int {
		if err := run(*only, *rounds); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			return 1
		}
		return 0
	}))
}

// bench is one run: our daemon and every peer's that is installed.
type bench struct {
	rounds  int
	cleat   *engine
	engines []*engine // ours first
}

func run(only string, rounds int) error {
	dir, err := os.MkdirTemp("", "clb")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{rounds: rounds}
	defer func() {
		for _, e := range slices.Backward(b.engines) {
			e.stop()
		}
	}()
	archive := filepath.Join(dir, "busybox.tar")
	if err := lab.WriteBusybox(archive); err != nil {
		return err
	}
	for _, begin := range []func(string) (*engine, error){startCleat, startDocker, startPodman} {
		e, err := begin(dir)
		if errors.Is(err, exec.ErrNotFound) {
			fmt.Println("not installed:", err)
			continue
		}
		if err != nil {
			fmt.Println("left out:", err)
			continue
		}
		b.engines = append(b.engines, e)
		if err := e.do("load", "-i", archive); err != nil {
			return err
		}
		if err := e.do("run", "--rm", "busybox", "true"); err != nil {
			fmt.Println("left out:", err)
			e.stop()
			b.engines = b.engines[:len(b.engines)-1]
		}
	}
	if len(b.engines) == 0 || b.engines[0].name != "cleat" {
		return errors.New("cleatd did not start; is bin/ built?")
	}
	b.cleat = b.engines[0]

	all := []struct {
		name string
		run  func() error
	}{
		{"run", b.runBridge}, {"none", func() error { return b.runNone(dir) }}, {"parallel", b.parallel},
		{"exec", b.exec}, {"ps", b.ps}, {"start", b.version},
		{"load", func() error { return b.load(dir) }}, {"memory", b.memory},
	}
	for _, m := range all {
		if only != "" && !slices.Contains(strings.Split(only, ","), m.name) {
			continue
		}
		if err := m.run(); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
	}
	return nil
}

// clients are the ways to give the same command: cleat, docker to cleatd, and
// each peer with its own program.
func (b *bench) clients(args ...string) []subject {
	var s []subject
	for _, e := range b.engines {
		s = append(s, subject{e.name, func() error { return e.do(args...) }})
		if e == b.cleat {
			if docker, err := exec.LookPath("docker"); err == nil {
				s = append(s, subject{"docker on cleatd", func() error { return e.by(docker, args...) }})
			}
		}
	}
	return s
}

func (b *bench) runBridge() error {
	return report(os.Stdout, "run --rm busybox true, bridge network",
		measure(b.rounds, b.clients("run", "--rm", "busybox", "true")))
}

func (b *bench) runNone(dir string) error {
	subjects := b.clients("run", "--rm", "--network", "none", "busybox", "true")
	for _, runtime := range []string{"crun", "runc"} {
		if s, err := bareRuntime(runtime, dir); err == nil {
			subjects = append(subjects, s)
		} else {
			fmt.Println("left out:", err)
		}
	}
	return report(os.Stdout, "run --rm --network none busybox true", measure(b.rounds, subjects))
}

func (b *bench) parallel() error {
	var subjects []subject
	for _, e := range b.engines {
		subjects = append(subjects, subject{e.name, func() error {
			var wg sync.WaitGroup
			errs := make([]error, 50)
			for i := range errs {
				wg.Go(func() { errs[i] = e.do("run", "--rm", "busybox", "true") })
			}
			wg.Wait()
			return errors.Join(errs...)
		}})
	}
	return report(os.Stdout, "50 containers at once, run --rm, all ended", measure(3, subjects))
}

func (b *bench) exec() error {
	for _, e := range b.engines {
		if err := e.do("run", "-d", "--name", "target", "busybox", "sleep", "100000"); err != nil {
			return err
		}
		defer e.do("rm", "-f", "target")
	}
	return report(os.Stdout, "exec true", measure(b.rounds, b.clients("exec", "target", "true")))
}

func (b *bench) ps() error {
	for _, e := range b.engines {
		for i := range 200 {
			if err := e.do("create", "--name", fmt.Sprintf("many%d", i), "busybox", "true"); err != nil {
				return err
			}
		}
	}
	err := report(os.Stdout, "ps -a with 200 containers", measure(b.rounds, b.clients("ps", "-a")))
	for _, e := range b.engines {
		if perr := e.do("container", "prune", "-f"); perr != nil {
			err = errors.Join(err, perr)
		}
	}
	return err
}

func (b *bench) version() error {
	docker, err := exec.LookPath("docker")
	subjects := []subject{{"cleat --version", func() error { return b.cleat.do("--version") }}}
	if err == nil {
		subjects = append(subjects, subject{"docker --version", func() error { return b.cleat.by(docker, "--version") }})
	}
	return report(os.Stdout, "start of the command", measure(b.rounds, subjects))
}

// command runs a program to its end, quietly; its error output is in the error.
func command(env []string, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	var errs strings.Builder
	cmd.Stderr = &errs
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return nil
}
