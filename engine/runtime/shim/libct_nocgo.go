//go:build !cgo

package shim

import (
	"errors"

	"github.com/cleatlabs/cleat/engine/runtime/wire"
)

// newLibct is absent without cgo, which libcontainer needs: the package then
// builds for the tests of its pure parts only, and cmd/cleat-shim not at all.
func newLibct(*wire.Create) (launcher, error) {
	return nil, errors.New("this cleat-shim was built without cgo and has no built-in runtime")
}

func rehearseLibct() {}
