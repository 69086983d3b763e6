package env

import (
	"context"
	"errors"
	"strings"
	"sync"

	"github.com/spf13/cobra"
)

// Spec is what a command consists of, besides its flags.
type Spec struct {
	// Use is the usage line, beginning with the name.
	Use   string
	Short string
	Long  string
	// Example holds command lines, one a line.
	Example string
	Aliases []string
	Args    cobra.PositionalArgs
	Run     func(cmd *cobra.Command, args []string) error
	// Complete offers arguments; nil offers none.
	Complete cobra.CompletionFunc
}

// Command makes a command as all of ours are: errors are printed by the root,
// help has examples, words that are not flags are never files by default.
func Command(s Spec) *cobra.Command {
	c := &cobra.Command{
		Use: s.Use, Short: s.Short, Long: s.Long, Example: indent(s.Example), Aliases: s.Aliases,
		Args: s.Args, RunE: s.Run, ValidArgsFunction: s.Complete,
		DisableFlagsInUseLine: true, SilenceErrors: true, SilenceUsage: true,
	}
	if s.Complete == nil {
		c.ValidArgsFunction = cobra.NoFileCompletions
	}
	return c
}

// Group makes a command that only holds others; without one it prints its help.
func Group(s Spec, commands ...*cobra.Command) *cobra.Command {
	s.Args = NoArgs
	s.Run = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	c := Command(s)
	c.ValidArgsFunction = nil
	c.AddCommand(commands...)
	return c
}

func indent(example string) string {
	lines := strings.Split(strings.TrimSpace(example), "\n")
	for i, l := range lines {
		lines[i] = "  " + strings.TrimSpace(l)
	}
	return strings.Join(lines, "\n")
}

// Each does the same with many things, up to fifty at once, in whatever order,
// and reports in theirs: done gets the name of each that succeeded. The error
// joins those of all that failed.
func Each(ctx context.Context, names []string, do func(ctx context.Context, name string) error, done func(name string)) error {
	errs := make([]error, len(names))
	if len(names) == 1 {
		errs[0] = do(ctx, names[0])
	} else {
		var wg sync.WaitGroup
		slots := make(chan struct{}, 50)
		for i, n := range names {
			slots <- struct{}{}
			wg.Go(func() {
				defer func() { <-slots }()
				errs[i] = do(ctx, n)
			})
		}
		wg.Wait()
	}
	for i, n := range names {
		if errs[i] == nil && done != nil {
			done(n)
		}
	}
	return errors.Join(errs...)
}
