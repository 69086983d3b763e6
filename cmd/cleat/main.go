// Command cleat is the command line of Cleat: docker's verbs and flags against
// any Docker-compatible daemon.
package main

import (
	"os"

	"github.com/cleatlabs/cleat/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:])) }
