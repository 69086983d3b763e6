// Package completion offers the names of containers, images, networks, volumes
// and contexts to the shell. It asks the daemon; when that fails it offers
// nothing, for a shell has no place for errors.
package completion

import (
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/cleatlabs/cleat/cli/env"
)

const none = cobra.ShellCompDirectiveNoFileComp

// Func is cobra's completion function.
type Func = cobra.CompletionFunc

// Containers offers names of containers that are in one of the states; without
// states, of all. limit is how many arguments are containers; 0 is all of them.
func Containers(e *env.Env, limit int, states ...container.ContainerState) Func {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if limit > 0 && len(args) >= limit {
			return nil, none
		}
		engine, err := e.Engine()
		if err != nil {
			return nil, none
		}
		list, err := engine.ContainerList(cmd.Context(), moby.ContainerListOptions{All: true})
		if err != nil {
			return nil, none
		}
		var out []string
		for _, c := range list.Items {
			if len(c.Names) == 0 || len(states) > 0 && !slices.Contains(states, c.State) {
				continue
			}
			name := strings.TrimPrefix(c.Names[0], "/")
			if !slices.Contains(args, name) {
				out = append(out, name)
			}
		}
		return out, none
	}
}

// Running are the states of containers with processes.
func Running() []container.ContainerState {
	return []container.ContainerState{container.StateRunning, container.StatePaused, container.StateRestarting}
}

// Images offers names of images for the first limit arguments (0: all). After
// them files are offered: they may be a command's.
func Images(e *env.Env, limit int) Func {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if limit > 0 && len(args) >= limit {
			return nil, cobra.ShellCompDirectiveDefault
		}
		engine, err := e.Engine()
		if err != nil {
			return nil, none
		}
		list, err := engine.ImageList(cmd.Context(), moby.ImageListOptions{})
		if err != nil {
			return nil, none
		}
		var out []string
		for _, i := range list.Items {
			for _, t := range i.RepoTags {
				out = append(out, t)
				if short, ok := strings.CutSuffix(t, ":latest"); ok {
					out = append(out, short)
				}
			}
		}
		return out, none
	}
}

// Networks offers names of networks.
func Networks(e *env.Env, limit int) Func {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if limit > 0 && len(args) >= limit {
			return nil, none
		}
		engine, err := e.Engine()
		if err != nil {
			return nil, none
		}
		list, err := engine.NetworkList(cmd.Context(), moby.NetworkListOptions{})
		if err != nil {
			return nil, none
		}
		var out []string
		for _, n := range list.Items {
			out = append(out, n.Name)
		}
		return out, none
	}
}

// Volumes offers names of volumes.
func Volumes(e *env.Env, limit int) Func {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if limit > 0 && len(args) >= limit {
			return nil, none
		}
		engine, err := e.Engine()
		if err != nil {
			return nil, none
		}
		list, err := engine.VolumeList(cmd.Context(), moby.VolumeListOptions{})
		if err != nil {
			return nil, none
		}
		var out []string
		for _, v := range list.Items {
			out = append(out, v.Name)
		}
		return out, none
	}
}

// Contexts offers names of contexts.
func Contexts(e *env.Env, limit int) Func {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if limit > 0 && len(args) >= limit {
			return nil, none
		}
		list, err := e.Contexts().List()
		if err != nil {
			return nil, none
		}
		var out []string
		for _, c := range list {
			out = append(out, c.Name)
		}
		return out, none
	}
}

// Then joins two functions by position: first for the first argument, rest after it.
func Then(first, rest Func) Func {
	return func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return first(cmd, args, word)
		}
		return rest(cmd, args[1:], word)
	}
}

// Flag offers the values of fn for a flag.
func Flag(cmd *cobra.Command, name string, fn Func) {
	_ = cmd.RegisterFlagCompletionFunc(name, func(c *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
		return fn(c, nil, word)
	}) // fails only for flags that do not exist, which the tests of completion find
}

// Words offers fixed words.
func Words(words ...string) Func {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) { return words, none }
}
