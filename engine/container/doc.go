// Package container is the engine's containers: their records, their states and
// everything that is done with them. The Docker API is its user.
//
// Decisions (defaults, validation, the OCI spec, restart back-off, state
// transitions) are pure functions; Service applies them through the seams of
// types.go. A record is on disk before what it promises is done, and Restore
// brings records and the machine together after any kind of stop.
package container
