//go:build !linux

package machine

import "runtime"

// Gather says which system this is: there are no containers on it.
func Gather(dir string) Facts { return Facts{OS: runtime.GOOS, Arch: runtime.GOARCH, Dir: dir} }
