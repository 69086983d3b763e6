// Package shim is the program that stands between the daemon and one
// container: parent of the container's init and execs, owner of their
// standard streams, keeper of their exit codes. cmd/cleat-shim is its main.
//
// It guarantees that output is in the log before an exit is told, that the
// exit code of init is durable before anybody hears of it, and that no reader
// of the output, however slow, loses a line of the log.
//
// The launcher does the container work: libct drives libcontainer in this
// process, command drives another OCI runtime by its command line.
package shim
