// Package e2e drives a real daemon from end to end: every verb, once through
// the real docker command and once through cleat, in scripts under testdata.
//
// The tests run in a network and mount namespace of their own, with a daemon
// that has its own root, so that nothing on the machine is touched and other
// tests can run beside them.
package e2e
