package wire

import (
	"errors"
	"fmt"
)

// Class is an error class as it crosses the socket.
type Class string

// The classes; "" is an internal error. They correspond to internal/errdefs,
// which a shim does not link.
const (
	NotFound         Class = "not-found"
	PermissionDenied Class = "permission-denied"
	Conflict         Class = "conflict"
	Invalid          Class = "invalid"
	NotImplemented   Class = "not-implemented"
)

// Error is an error that crosses the socket.
type Error struct {
	Class   Class  `json:"class,omitempty"`
	Message string `json:"message"`
}

func (e *Error) Error() string { return e.Message }

// Errorf makes an error of a class.
func Errorf(c Class, format string, args ...any) *Error {
	return &Error{Class: c, Message: fmt.Sprintf(format, args...)}
}

// FromError gives err's class and text.
func FromError(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return &Error{Class: e.Class, Message: err.Error()}
	}
	return &Error{Message: err.Error()}
}
