package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

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
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, os.Args[1], nil)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(os.Stdout, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		fmt.Fprintln(os.Stderr, resp.Status, err)
		os.Exit(1)
	}
}
