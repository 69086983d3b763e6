//go:build !linux || !cgo || !seccomp

package seccomp

// version is "": there is no libseccomp, and nothing to spare.
func version() string { return "" }

// Adopt has nothing to do.
func Adopt() {}
