package seccomp

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// File is what a process is given: a compiled profile to use, or an empty
// file to leave one in.
type File struct {
	*os.File
	// path is where a compiled profile goes; "" when File holds one already.
	path string
}

// Open finds the compiled form of a profile in dir, or prepares for making it.
// It returns nil when there is nothing to spare.
func Open(dir string, profile *specs.LinuxSeccomp) (*File, error) {
	v := version()
	if profile == nil || dir == "" || v == "" || profile.ListenerPath != "" {
		return nil, nil
	}
	name, err := key(v, profile)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, name)
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err == nil {
		return &File{File: f}, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	fd, err := unix.MemfdCreate("seccomp", unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate("seccomp", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	return &File{File: os.NewFile(uintptr(fd), "seccomp"), path: path}, nil
}

// key names the compiled form of a profile.
func key(version string, profile *specs.LinuxSeccomp) (string, error) {
	data, err := json.Marshal(profile)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(append([]byte(version+"\x00"), data...))
	return hex.EncodeToString(sum[:16]) + ".bpf", nil
}

// Keep stores what the process has left, once it is ready to run the
// container's program and before it does. A file with something else in it
// than a program is not kept.
func (f *File) Keep() error {
	if f == nil || f.path == "" {
		return nil
	}
	program, err := read(f.File)
	if err != nil || len(program) == 0 {
		return err
	}
	dir, name := filepath.Split(f.path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, strings.TrimSuffix(name, ".bpf"))
	if err != nil {
		return err
	}
	_, err = tmp.Write(program)
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), f.path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}

// Close closes the file, if there is one.
func (f *File) Close() error {
	if f == nil {
		return nil
	}
	return f.File.Close()
}

// instruction is the size of a BPF instruction, maxInstructions what the
// kernel takes.
const (
	instruction     = 8
	maxInstructions = 4096
)

// read reads a whole program, whatever the file's offset.
func read(f *os.File) ([]byte, error) {
	data, err := io.ReadAll(io.NewSectionReader(f, 0, instruction*maxInstructions+1))
	if err != nil {
		return nil, err
	}
	if len(data)%instruction != 0 || len(data) > instruction*maxInstructions {
		return nil, fmt.Errorf("compiled seccomp profile of %d bytes", len(data))
	}
	return data, nil
}

// extraFile finds the descriptor of the file in a process that libcontainer
// started: extra files come first, and libcontainer names its own.
func extraFile(getenv func(string) string) (fd int, ok bool) {
	first := 0
	for _, name := range []string{"_LIBCONTAINER_CONSOLE", "_LIBCONTAINER_INITPIPE"} {
		var n int
		if _, err := fmt.Sscanf(getenv(name), "%d", &n); err == nil && (first == 0 || n < first) {
			first = n
		}
	}
	return 3, first == 4
}
