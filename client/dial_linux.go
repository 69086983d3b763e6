package client

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// A socket's address holds 107 bytes of path.
const maxSocketPath = 107

// dialUnix reaches sockets with paths of any length: the folder is opened and
// the socket named through it.
func dialUnix(ctx context.Context, path string) (net.Conn, error) {
	var d net.Dialer
	if len(path) <= maxSocketPath {
		return d.DialContext(ctx, "unix", path)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }() // opened for reading
	return d.DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)))
}
