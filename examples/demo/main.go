// Command demo is the program inside the image cleat/demo: a web page that
// shows which container answers, from which image, and how often the page was
// read. The count lives in a file under /data, so that it survives the
// container when /data is a volume.
package main

import (
	"context"
	"errors"
	"fmt"
	"html/template"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

var page = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Cleat demo</title>
<meta name="viewport" content="width=device-width">
<style>
body{font:16px/1.6 system-ui,sans-serif;max-width:38rem;margin:10vh auto;padding:0 1rem;color:#16324a;background:#f5f9fc}
h1{font-weight:650} table{border-collapse:collapse;width:100%} td{padding:.35rem .6rem;border-top:1px solid #d5e2ec}
td:first-child{color:#5b7a92;width:9rem} b{font-size:2.6rem;color:#0b6bcb}
</style>
<h1>It runs.</h1>
<p>This page was read <b>{{.Count}}</b> {{if eq .Count 1}}time{{else}}times{{end}}. The count is kept in the volume at <code>{{.Data}}</code>.</p>
<table>
<tr><td>host name</td><td>{{.Host}}</td></tr>
<tr><td>image</td><td>{{.Image}}</td></tr>
<tr><td>addresses</td><td>{{.Addresses}}</td></tr>
<tr><td>platform</td><td>{{.Platform}}</td></tr>
<tr><td>up since</td><td>{{.Since}}</td></tr>
</table></html>
`))

// counter counts in a file. Increments are serialised; a crash between two
// loses none that was shown, because the file is replaced before the answer.
type counter struct {
	mu   sync.Mutex
	path string
}

func (c *counter) add() (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	b, err := os.ReadFile(c.path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, err
	}
	if len(b) > 0 {
		if n, err = strconv.Atoi(strings.TrimSpace(string(b))); err != nil {
			return 0, fmt.Errorf("%s holds no number: %w", c.path, err)
		}
	}
	n++
	next := c.path + ".next"
	if err := os.WriteFile(next, fmt.Appendln(nil, n), 0o644); err != nil {
		return 0, err
	}
	return n, os.Rename(next, c.path)
}

func addresses() string {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return err.Error()
	}
	var out []string
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && !n.IP.IsLinkLocalUnicast() {
			out = append(out, n.IP.String())
		}
	}
	return strings.Join(out, ", ")
}

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	data := os.Getenv("DEMO_DATA")
	if data == "" {
		data = "/data"
	}
	if err := os.MkdirAll(data, 0o755); err != nil {
		return err
	}
	count := &counter{path: filepath.Join(data, "count")}
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	since := time.Now()

	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		n, err := count.add()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		if err := page.Execute(w, map[string]any{
			"Count": n, "Data": data, "Host": host, "Image": os.Getenv("DEMO_IMAGE"),
			"Addresses": addresses(), "Platform": runtime.GOOS + "/" + runtime.GOARCH,
			"Since": since.UTC().Format(time.RFC1123),
		}); err != nil {
			log.Printf("write page: %v", err)
		}
	})

	srv := &http.Server{Addr: ":8080", Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	failed := make(chan error, 1)
	go func() { failed <- srv.ListenAndServe() }()
	log.Printf("demo listens on %s, data in %s", srv.Addr, data)
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	log.Print("demo stops")
	last, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := srv.Shutdown(last); err != nil {
		return err
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
