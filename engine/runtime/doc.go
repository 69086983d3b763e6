// Package runtime runs containers on this machine: one cleat-shim process per
// container, which is the parent of the container's init, owns its standard
// streams and log, and writes its exit code durably. engine/container and
// engine/cri are its users.
//
// A container outlives the daemon: the daemon holds only a connection, and
// Driver.Load makes a new one. What the daemon and a shim share is the run
// folder of the container and the shim's socket in it.
package runtime
