// Package platform is the composition root of cleatd: it reads the
// configuration, builds the components in order, starts them, and stops them in
// reverse. It is the only package that knows every room; it holds no behaviour
// of its own beyond the process's: configuration, single instance, logging,
// readiness, reset.
package platform
