// Package errdefs holds the error classes that cross room borders.
//
// Every room returns errors of these classes and wraps with %w inside; the two
// front doors map them once: HTTPStatus for the Docker API, and the API
// server's own mapping for Kubernetes. The classes are those of
// github.com/containerd/errdefs, so that errors of the containerd packages and
// of the Docker client need no translation.
//
// A message says what is wrong in words of the user; WithHint adds what to do
// next, which command lines print on a line of its own.
package errdefs

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/containerd/errdefs"
)

// The classes, as sentinels for errors.Is.
var (
	ErrNotFound         = errdefs.ErrNotFound
	ErrInvalidArgument  = errdefs.ErrInvalidArgument
	ErrConflict         = errdefs.ErrConflict
	ErrAlreadyExists    = errdefs.ErrAlreadyExists
	ErrPermissionDenied = errdefs.ErrPermissionDenied
	ErrUnauthenticated  = errdefs.ErrUnauthenticated
	ErrUnavailable      = errdefs.ErrUnavailable
	ErrNotImplemented   = errdefs.ErrNotImplemented
	ErrNotModified      = errdefs.ErrNotModified
	ErrInternal         = errdefs.ErrInternal
	ErrExhausted        = errdefs.ErrResourceExhausted
)

// classified carries a message of its own and a class that errors.Is sees,
// without the class's words appearing in the message.
type classified struct {
	class error
	err   error
}

func (e *classified) Error() string   { return e.err.Error() }
func (e *classified) Unwrap() []error { return []error{e.class, e.err} }

func newf(class error, format string, args []any) error {
	return &classified{class: class, err: fmt.Errorf(format, args...)}
}

// NotFoundf says that a named thing does not exist (Docker: 404).
func NotFoundf(format string, args ...any) error { return newf(ErrNotFound, format, args) }

// Invalidf says that the request is malformed or contradicts itself (400).
func Invalidf(format string, args ...any) error { return newf(ErrInvalidArgument, format, args) }

// Conflictf says that the state of a thing forbids the request (409).
func Conflictf(format string, args ...any) error { return newf(ErrConflict, format, args) }

// Forbiddenf says that the caller may not do this (403).
func Forbiddenf(format string, args ...any) error { return newf(ErrPermissionDenied, format, args) }

// Unauthenticatedf says that credentials are missing or wrong (401).
func Unauthenticatedf(format string, args ...any) error {
	return newf(ErrUnauthenticated, format, args)
}

// Unavailablef says that something needed is not reachable now (503).
func Unavailablef(format string, args ...any) error { return newf(ErrUnavailable, format, args) }

// NotImplementedf says that a feature is absent (501).
func NotImplementedf(format string, args ...any) error { return newf(ErrNotImplemented, format, args) }

// NotModifiedf says that nothing needed doing (304).
func NotModifiedf(format string, args ...any) error { return newf(ErrNotModified, format, args) }

// Internalf says that the platform itself failed (500).
func Internalf(format string, args ...any) error { return newf(ErrInternal, format, args) }

// As gives err the class, keeping its message and chain; nil stays nil.
func As(class, err error) error {
	if err == nil {
		return nil
	}
	return &classified{class: class, err: err}
}

type hinted struct {
	error
	hint string
}

func (e *hinted) Unwrap() error { return e.error }

// WithHint attaches what the user can do next. Messages are unchanged.
func WithHint(err error, hint string) error {
	if err == nil {
		return nil
	}
	return &hinted{error: err, hint: hint}
}

// Hint returns the outermost hint of err, or "".
func Hint(err error) string {
	var h *hinted
	if errors.As(err, &h) {
		return h.hint
	}
	return ""
}

// HTTPStatus is the one mapping from class to the Docker API's status code.
func HTTPStatus(err error) int {
	switch {
	case err == nil:
		return http.StatusOK
	case errdefs.IsNotModified(err):
		return http.StatusNotModified
	case errdefs.IsNotFound(err):
		return http.StatusNotFound
	case errdefs.IsInvalidArgument(err), errdefs.IsOutOfRange(err):
		return http.StatusBadRequest
	case errdefs.IsConflict(err), errdefs.IsAlreadyExists(err), errdefs.IsFailedPrecondition(err):
		return http.StatusConflict
	case errdefs.IsUnauthorized(err):
		return http.StatusUnauthorized
	case errdefs.IsPermissionDenied(err):
		return http.StatusForbidden
	case errdefs.IsNotImplemented(err):
		return http.StatusNotImplemented
	case errdefs.IsUnavailable(err):
		return http.StatusServiceUnavailable
	case errdefs.IsResourceExhausted(err):
		return http.StatusInsufficientStorage
	default:
		return http.StatusInternalServerError
	}
}
