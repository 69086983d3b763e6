package system

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cleatlabs/cleat/cli/env"
	"github.com/cleatlabs/cleat/cli/formatting"
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
			return printJSON(e.Out, raw)
		},
	})
	out.AddOutput(cmd.Flags())
	return cmd
}

func printJSON(w io.Writer, raw json.RawMessage) error {
	var b bytes.Buffer
	if err := json.Indent(&b, raw, "", "  "); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w, strings.TrimSpace(b.String()))
	return err
}
