// Command cleatd is the daemon of one machine. `cleatd --help` says more.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/cleatlabs/cleat/platform"
)

func main() {
	if err := platform.Command(os.Args[1:]).ExecuteContext(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "cleatd:", err)
		os.Exit(1)
	}
}
