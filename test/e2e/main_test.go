package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cleatlabs/cleat/test/lab"
)

// TestMain enters the lab. Scripts call the programs of this binary by name;
// those run where the script runs.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "fetch" {
		fetch()
		return
	}
	if _, err := lab.Debian(debianPackages()...); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(lab.Enter(func() int {
		testscript.Main(m, map[string]func(){"fetch": fetch})
		return 0
	}))
}

// fetch prints what a URL answers; scripts use it for published ports.
func fetch() {
	body, err := lab.Fetch(os.Args[1])
	fmt.Print(body)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
