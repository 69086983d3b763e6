// Package volume keeps the engine's named and anonymous volumes: the local
// driver (a folder, or a mount by type/o/device) and drivers that speak
// Docker's volume plugin protocol on a socket. engine/container mounts through
// it; the Docker API manages through it.
package volume
