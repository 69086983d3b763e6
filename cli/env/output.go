package env

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/cleatlabs/cleat/cli/formatting"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

// Confirm asks before something is destroyed. force answers yes; without a
// terminal to ask, docker's rule applies: no answer is no.
func (e *Env) Confirm(force bool, warning string) (bool, error) {
	if force {
		return true, nil
	}
	fmt.Fprintf(e.Out, "WARNING! %s\nAre you sure you want to continue? [y/N] ", warning)
	line, err := bufio.NewReader(e.In).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	if strings.EqualFold(strings.TrimSpace(line), "y") || strings.EqualFold(strings.TrimSpace(line), "yes") {
		return true, nil
	}
	return false, Exit(1, errdefs.WithHint(errors.New("cancelled"), "answer y, or use --force"))
}

// Failed joins errors. With force, things that were not there are no failure.
func Failed(errs []error, force bool) error {
	if !force {
		return errors.Join(errs...)
	}
	var rest []error
	for _, err := range errs {
		if !errors.Is(err, errdefs.ErrNotFound) {
			rest = append(rest, err)
		}
	}
	return errors.Join(rest...)
}

// WriteStream copies what open gives to a file, or to standard output. A file
// appears only when it is complete. Binary data is not sent to terminals.
func (e *Env) WriteStream(path string, open func() (io.ReadCloser, error)) (err error) {
	if path == "" || path == "-" {
		if _, ok := e.OutTerminal(); ok {
			return errdefs.WithHint(errdefs.Invalidf("cowardly refusing to save to a terminal"), "use -o FILE, or redirect the output")
		}
		r, err := open()
		if err != nil {
			return err
		}
		_, err = io.Copy(e.Out, r)
		return errors.Join(err, r.Close())
	}
	if fi, err := os.Stat(path); err == nil && !fi.Mode().IsRegular() {
		return e.writeInto(path, open)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreMissing(os.Remove(f.Name())))
		}
	}()
	r, err := open()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	_, err = io.Copy(f, r)
	if err = errors.Join(err, r.Close(), f.Chmod(0o600), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// writeInto writes to a device or pipe, which must not be replaced.
func (e *Env) writeInto(path string, open func() (io.ReadCloser, error)) error {
	if fi, err := os.Stat(path); err == nil && fi.IsDir() {
		return errdefs.Invalidf("%s is a directory", path)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	r, err := open()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, r.Close(), f.Close())
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// Inspect fetches each object and prints those that exist; the error joins
// those of the others.
func Inspect(e *Env, out formatting.Flags, refs []string, fetch func(ref string) (formatting.Inspected, error)) error {
	var (
		found []formatting.Inspected
		errs  []error
	)
	for _, ref := range refs {
		o, err := fetch(ref)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		found = append(found, o)
	}
	if err := formatting.Inspect(e.Out, out.Format, out.Output, found); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
