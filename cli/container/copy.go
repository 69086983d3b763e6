package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/moby/moby/api/types/container"
	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/cleatlabs/cleat/cli/completion"
	"github.com/cleatlabs/cleat/cli/env"
	"github.com/cleatlabs/cleat/cli/formatting"
	"github.com/cleatlabs/cleat/client"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

type copyOptions struct {
	archive, followLink, quiet bool
}

// NewCopyCommand is `cleat cp`.
func NewCopyCommand(e *env.Env) *cobra.Command {
	var o copyOptions
	cmd := env.Command(env.Spec{
		Use:   "cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n  cleat cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
		Short: "Copy files/folders between a container and the local filesystem",
		Long: `Copy files/folders between a container and the local filesystem.

Use '-' as the source to read a tar archive from stdin and extract it to a
directory of the container. Use '-' as the destination to stream a tar archive
of a container's file or directory to stdout. 'DIR/.' stands for the contents of DIR.`,
		Example: `cleat cp web:/etc/nginx/nginx.conf .
			cleat cp ./site/. web:/usr/share/nginx/html
			cleat cp web:/var/log - | tar tf -`,
		Args:     env.ExactArgs(2),
		Complete: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) { return nil, 0 },
		Run: func(cmd *cobra.Command, args []string) error {
			return copyFiles(cmd.Context(), e, args[0], args[1], o)
		},
	})
	fs := cmd.Flags()
	fs.BoolVarP(&o.archive, "archive", "a", false, "Archive mode (copy all uid/gid information)")
	fs.BoolVarP(&o.followLink, "follow-link", "L", false, "Always follow symbol link in SRC_PATH")
	fs.BoolVarP(&o.quiet, "quiet", "q", false, "Suppress the summary of what was copied")
	cmd.ValidArgsFunction = func(c *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if strings.ContainsAny(word, "/.:") {
			return nil, cobra.ShellCompDirectiveDefault
		}
		names, _ := completion.Containers(e, 0)(c, nil, word)
		for i := range names {
			names[i] += ":"
		}
		return names, cobra.ShellCompDirectiveNoSpace
	}
	return cmd
}

func copyFiles(ctx context.Context, e *env.Env, from, to string, o copyOptions) error {
	src, srcPath := splitCopyArg(from)
	dst, dstPath := splitCopyArg(to)
	if src != "" && dst != "" {
		return errdefs.Invalidf("copying between containers is not supported")
	}
	if src == "" && dst == "" {
		return errdefs.Invalidf("must specify at least one container source")
	}
	engine, err := e.Engine()
	if err != nil {
		return err
	}
	if src != "" {
		return copyOut(ctx, e, engine, src, srcPath, dstPath, o)
	}
	return copyIn(ctx, e, engine, srcPath, dst, dstPath, o)
}

// splitCopyArg parts CONTAINER:PATH; local paths have no container. A path that
// is absolute or begins with a dot is local, whatever colons it has.
func splitCopyArg(arg string) (containerName, p string) {
	if arg == "-" || filepath.IsAbs(arg) || strings.HasPrefix(arg, ".") {
		return "", arg
	}
	name, rest, ok := strings.Cut(arg, ":")
	if !ok || name == "" || strings.ContainsAny(name, `/\`) || runtime.GOOS == "windows" && len(name) == 1 {
		return "", arg
	}
	return name, rest
}

// summary tells how much was copied, on terminals.
func summary(e *env.Env, o copyOptions, n int64, where string) {
	if _, ok := e.ErrTerminal(); ok && !o.quiet {
		fmt.Fprintf(e.Err, "Successfully copied %s to %s\n", formatting.Size(n), where)
	}
}

func copyOut(ctx context.Context, e *env.Env, engine *client.Engine, name, from, to string, o copyOptions) error {
	if from == "" {
		return errdefs.Invalidf("the path in the container is missing: use %s:PATH", name)
	}
	if o.followLink {
		st, err := engine.ContainerStatPath(ctx, name, moby.ContainerStatPathOptions{Path: from})
		if err != nil {
			return err
		}
		if st.Stat.Mode&os.ModeSymlink != 0 {
			from = linkTarget(from, st.Stat.LinkTarget)
		}
	}
	res, err := engine.CopyFromContainer(ctx, name, moby.CopyFromContainerOptions{SourcePath: from})
	if err != nil {
		return err
	}
	defer func() { _ = res.Content.Close() }() // read only
	if to == "-" {
		if _, ok := e.OutTerminal(); ok {
			return errdefs.WithHint(errdefs.Invalidf("cowardly refusing to write an archive to a terminal"), "redirect the output")
		}
		_, err := io.Copy(e.Out, res.Content)
		return err
	}
	target, err := localTarget(to, from, res.Stat.Mode.IsDir())
	if err != nil {
		return err
	}
	n, err := extract(res.Content, target, res.Stat.Mode.IsDir(), o.archive, e.Err)
	if err != nil {
		return err
	}
	summary(e, o, n, to)
	return nil
}

func linkTarget(link, target string) string {
	if path.IsAbs(target) {
		return target
	}
	return path.Join(path.Dir(link), target)
}

// contentsOnly says that the source is DIR/. : what is in it, not itself.
func contentsOnly(p string) bool { return p == "." || strings.HasSuffix(p, "/.") }

// copyTarget is where something is put: in a folder that exists, under a name;
// "." is the folder itself.
type copyTarget struct{ dir, base string }

var errCopyDirToFile = errdefs.Invalidf("cannot copy directory to a file")

// localTarget applies cp's rules to a destination on this machine.
func localTarget(to, from string, sourceIsDir bool) (copyTarget, error) {
	slash := strings.HasSuffix(to, "/") || strings.HasSuffix(to, string(filepath.Separator))
	st, err := os.Stat(to)
	switch {
	case err == nil && st.IsDir():
		if sourceIsDir && contentsOnly(from) {
			return copyTarget{to, "."}, nil
		}
		base := path.Base(path.Clean("/" + from))
		if base == "/" {
			base = "."
		}
		return copyTarget{to, base}, nil
	case err == nil && (sourceIsDir || slash):
		return copyTarget{}, errCopyDirToFile
	case err == nil:
		real, err := filepath.EvalSymlinks(to)
		if err != nil {
			return copyTarget{}, err
		}
		return copyTarget{filepath.Dir(real), filepath.Base(real)}, nil
	case !errors.Is(err, os.ErrNotExist):
		return copyTarget{}, err
	case slash && !sourceIsDir:
		return copyTarget{}, errdefs.NotFoundf("destination directory must exist: %s", to)
	}
	dir := filepath.Dir(filepath.Clean(to))
	if _, err := os.Stat(dir); err != nil {
		return copyTarget{}, errdefs.NotFoundf("invalid output path: directory %q does not exist", dir)
	}
	return copyTarget{dir, filepath.Base(filepath.Clean(to))}, nil
}

func copyIn(ctx context.Context, e *env.Env, engine *client.Engine, from, name, to string, o copyOptions) error {
	if to == "" {
		return errdefs.Invalidf("the path in the container is missing: use %s:PATH", name)
	}
	if !path.IsAbs(to) {
		to = "/" + to // relative to the root, as docker has it
	}
	st, exists, to, err := statInside(ctx, engine, name, to)
	if err != nil {
		return err
	}
	if from == "-" {
		if !exists || !st.Mode.IsDir() {
			return errdefs.Invalidf("destination \"%s:%s\" must be a directory", name, to)
		}
		return upload(ctx, engine, name, to, o.archive, e.In)
	}
	stat := os.Lstat
	if o.followLink || strings.HasSuffix(from, "/") || contentsOnly(from) {
		stat = os.Stat
	}
	src, err := stat(from)
	if err != nil {
		return err
	}
	target, err := insideTarget(to, exists, exists && st.Mode.IsDir(), from, src.IsDir())
	if err != nil {
		return err
	}
	real := from
	if src.IsDir() || o.followLink {
		if real, err = filepath.EvalSymlinks(from); err != nil {
			return err
		}
	}
	pr, pw := io.Pipe()
	count := &countReader{r: pr}
	done := make(chan error, 1)
	go func() {
		err := archive(pw, real, target.base)
		pw.CloseWithError(err)
		done <- err
	}()
	uperr := upload(ctx, engine, name, target.dir, o.archive, count)
	_ = pr.Close() // ends the archiver if the daemon gave up
	if aerr := <-done; aerr != nil && !errors.Is(aerr, io.ErrClosedPipe) {
		return aerr
	}
	if uperr != nil {
		return uperr
	}
	summary(e, o, count.n, name+":"+to)
	return nil
}

func upload(ctx context.Context, engine *client.Engine, name, dir string, uidgid bool, tar io.Reader) error {
	_, err := engine.CopyToContainer(ctx, name, moby.CopyToContainerOptions{DestinationPath: dir, Content: tar, CopyUIDGID: uidgid})
	return err
}

// statInside looks at the destination, following a link that it is.
func statInside(ctx context.Context, engine *client.Engine, name, to string) (st container.PathStat, exists bool, resolved string, err error) {
	res, err := engine.ContainerStatPath(ctx, name, moby.ContainerStatPathOptions{Path: to})
	if err == nil && res.Stat.Mode&os.ModeSymlink != 0 {
		to = linkTarget(to, res.Stat.LinkTarget)
		res, err = engine.ContainerStatPath(ctx, name, moby.ContainerStatPathOptions{Path: to})
	}
	if err != nil {
		if errors.Is(err, errdefs.ErrNotFound) && !containsAny(err.Error(), "No such container", "no such container") {
			return st, false, to, nil
		}
		return st, false, to, err
	}
	return res.Stat, true, to, nil
}

// insideTarget applies cp's rules to a destination in the container.
func insideTarget(to string, exists, isDir bool, from string, sourceIsDir bool) (copyTarget, error) {
	switch {
	case exists && isDir:
		if sourceIsDir && contentsOnly(filepath.ToSlash(from)) {
			return copyTarget{to, "."}, nil
		}
		abs, err := filepath.Abs(from)
		if err != nil {
			return copyTarget{}, err
		}
		return copyTarget{to, filepath.Base(abs)}, nil
	case exists && (sourceIsDir || strings.HasSuffix(to, "/")):
		return copyTarget{}, errCopyDirToFile
	case !exists && !sourceIsDir && strings.HasSuffix(to, "/"):
		return copyTarget{}, errdefs.NotFoundf("destination directory must exist: %s", to)
	}
	clean := path.Clean(to)
	return copyTarget{path.Dir(clean), path.Base(clean)}, nil
}

type countReader struct {
	r io.Reader
	n int64
}

func (c *countReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
