// Package robustness kills the daemon and its shims at bad moments, and runs
// many containers, and then compares the machine with how it was.
package robustness
