// Package client reaches a Docker-compatible daemon: it finds the address
// (flags, environment, contexts), dials it (unix, tcp, TLS, ssh), and looks up
// registry credentials.
//
// The command line and compose use it. It adds to github.com/moby/moby/client
// what that package leaves out: hints that our daemon sends with its errors,
// errors of upgraded streams with the daemon's own words, sockets with long
// paths, ssh, and our endpoints beyond the Docker API. It works against any
// daemon that speaks the Docker API; what only ours has fails with a message
// that says so.
//
// Nothing here runs at start of the program, and opening an Engine does no I/O
// but reading TLS files: the first request dials.
package client
