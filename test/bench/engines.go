package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// engine is a daemon, or a program that needs none, and how to talk to it.
type engine struct {
	name    string
	program string
	flags   []string // before the verb
	env     []string
	daemons []*exec.Cmd
	undo    func()
}

func (e *engine) do(args ...string) error { return e.by(e.program, args...) }

// by gives the command with another client of the same daemon.
func (e *engine) by(program string, args ...string) error {
	flags := e.flags
	if program != e.program {
		flags = nil
	}
	return command(e.env, program, append(flags[:len(flags):len(flags)], args...)...)
}

func (e *engine) stop() {
	for _, d := range e.daemons {
		// Already gone is as good.
		_ = d.Process.Signal(syscall.SIGTERM)
		_ = d.Wait()
	}
	if e.undo != nil {
		e.undo()
	}
}

// serve starts a daemon and waits until ready answers.
func (e *engine) serve(log string, ready []string, name string, args ...string) error {
	path, err := exec.LookPath(name)
	if err != nil {
		return err
	}
	out, err := os.Create(log)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return err
	}
	e.daemons = append(e.daemons, cmd)
	for range 300 {
		if err = e.do(ready...); err == nil {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	said, rerr := os.ReadFile(log)
	if rerr == nil {
		lines := strings.Split(strings.TrimSpace(string(said)), "\n")
		err = fmt.Errorf("%w: %s", err, lines[len(lines)-1])
	}
	e.stop()
	return fmt.Errorf("%s does not answer: %w", name, err)
}

func startCleat(dir string) (*engine, error) {
	bin, err := filepath.Abs("bin")
	if err != nil {
		return nil, err
	}
	root, run := filepath.Join(dir, "cleat"), filepath.Join(dir, "run")
	socket := "unix://" + filepath.Join(run, "engine.sock")
	e := &engine{name: "cleat", program: filepath.Join(bin, "cleat"), env: []string{"CLEAT_HOST=" + socket, "DOCKER_HOST=" + socket}}
	e.undo = func() {
		if err := command(nil, filepath.Join(bin, "cleatd"), "reset", "--yes", "--root", root, "--run", run); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	return e, e.serve(filepath.Join(dir, "cleatd.log"), []string{"ps"}, filepath.Join(bin, "cleatd"), "--root", root, "--run", run)
}

func startDocker(dir string) (*engine, error) {
	client, err := exec.LookPath("docker")
	if err != nil {
		return nil, err
	}
	socket := "unix://" + filepath.Join(dir, "docker.sock")
	e := &engine{name: "docker", program: client, env: []string{"DOCKER_HOST=" + socket}}
	return e, e.serve(filepath.Join(dir, "dockerd.log"), []string{"ps"}, "dockerd", "--host", socket,
		"--data-root", filepath.Join(dir, "docker"), "--exec-root", filepath.Join(dir, "dexec"), "--pidfile", filepath.Join(dir, "dockerd.pid"))
}

func startPodman(dir string) (*engine, error) {
	program, err := exec.LookPath("podman")
	if err != nil {
		return nil, err
	}
	// Its own defaults ask for more than a machine without CAP_SYS_RESOURCE
	// gives, and for crun, which refuses some cgroup layouts.
	conf := filepath.Join(dir, "containers.conf")
	text := "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n[engine]\nruntime = \"runc\"\n"
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		return nil, err
	}
	e := &engine{name: "podman", program: program, env: []string{"CONTAINERS_CONF=" + conf}, flags: []string{
		"--root", filepath.Join(dir, "podman"), "--runroot", filepath.Join(dir, "prun"), "--cgroup-manager", "cgroupfs", "--events-backend", "file",
	}}
	return e, e.do("info")
}

// bareRuntime runs an OCI runtime on a bundle of its own: the floor that any
// engine stands on.
func bareRuntime(name, dir string) (subject, error) {
	program, err := exec.LookPath(name)
	if err != nil {
		return subject{}, err
	}
	bundle := filepath.Join(dir, "bundle-"+name)
	rootfs := filepath.Join(bundle, "rootfs", "bin")
	if err := os.MkdirAll(rootfs, 0o755); err != nil {
		return subject{}, err
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return subject{}, err
	}
	data, err := os.ReadFile(busybox)
	if err != nil {
		return subject{}, err
	}
	if err := os.WriteFile(filepath.Join(rootfs, "true"), data, 0o755); err != nil {
		return subject{}, err
	}
	if err := specFor(program, bundle); err != nil {
		return subject{}, err
	}
	n := 0
	return subject{"bare " + name, func() error {
		n++
		return command(nil, program, "run", "--bundle", bundle, fmt.Sprintf("bench-%s-%d", name, n))
	}}, nil
}

func specFor(program, bundle string) error {
	cmd := exec.Command(program, "spec")
	cmd.Dir = bundle
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s spec: %w: %s", program, err, out)
	}
	path := filepath.Join(bundle, "config.json")
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var spec map[string]any
	if err := json.Unmarshal(data, &spec); err != nil {
		return err
	}
	process, ok := spec["process"].(map[string]any)
	if !ok {
		return errors.New("the runtime's spec has no process")
	}
	process["terminal"] = false
	process["args"] = []string{"/bin/true"}
	delete(process, "rlimits")
	if data, err = json.Marshal(spec); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}
