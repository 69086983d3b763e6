package system

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/cleatlabs/cleat/cli/env"
	"github.com/cleatlabs/cleat/cli/formatting"
	"github.com/cleatlabs/cleat/internal/machine"
)

// NewDoctorCommand is `cleat doctor`.
func NewDoctorCommand(e *env.Env) *cobra.Command {
	var out formatting.Flags
	cmd := env.Command(env.Spec{
		Use:     "doctor [OPTIONS]",
		Short:   "Say what this machine offers to containers, and how to mend what is missing",
		Example: "cleat doctor",
		Args:    env.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) error {
			engine, err := e.Engine()
			if err != nil {
				return err
			}
			raw, err := engine.Doctor(cmd.Context())
			if err != nil {
				return err
			}
			if out.Output != "" {
				var v any
				if err := json.Unmarshal(raw, &v); err != nil {
					return err
				}
				return formatting.Object(e.Out, out.Output, v)
			}
			return printReport(e.Out, raw)
		},
	})
	out.AddOutput(cmd.Flags())
	return cmd
}

// printReport prints a line per check, and what to do about those that are not
// well. An engine that is not ours may answer something else: that is printed
// as it came.
func printReport(w io.Writer, raw json.RawMessage) error {
	var r machine.Report
	if err := json.Unmarshal(raw, &r); err != nil || len(r.Checks) == 0 {
		_, err := fmt.Fprintln(w, strings.TrimSpace(string(raw)))
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range r.Checks {
		fmt.Fprintf(t, "%s\t%s\t%s\n", c.Status, c.Name, c.Detail)
		if c.Remedy != "" {
			fmt.Fprintf(t, "\t\t-> %s\n", c.Remedy)
		}
	}
	return t.Flush()
}
