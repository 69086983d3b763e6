package remote

import (
	"context"
	"errors"
	"net"
	"net/http"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteserrors "github.com/containerd/containerd/v2/core/remotes/errors"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

// Classify gives an error from a registry its class and Docker's words.
// repository is the familiar name that was asked for.
func Classify(err error, repository string) error {
	var status remoteserrors.ErrUnexpectedStatus
	var list docker.Errors
	var one docker.Error
	var dns *net.DNSError
	var op *net.OpError
	switch {
	case err == nil, errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, docker.ErrInvalidAuthorization):
		// Not class unauthenticated: docker's client would ask for a password
		// on its terminal, or wait for ever without one.
		err = errdefs.NotFoundf("pull access denied for %s, repository does not exist or may require 'docker login': %w", repository, err)
		return errdefs.WithHint(err, "log in to the registry with `cleat login`")
	case errors.As(err, &one):
		return fromRegistry(one)
	case errors.As(err, &list) && len(list) > 0 && errors.As(list[0], &one):
		return fromRegistry(one)
	case errors.As(err, &status):
		return errdefs.As(classOf(status.StatusCode), err)
	case errors.As(err, &dns), errors.As(err, &op):
		return errdefs.As(errdefs.ErrUnavailable, err)
	}
	return err
}

func fromRegistry(e docker.Error) error {
	msg := e.Message
	if msg == "" {
		msg = e.Code.Message()
	}
	if d, ok := e.Detail.(string); ok && d != "" {
		msg += " - " + d
	}
	var class error = errdefs.ErrInternal
	switch e.Code {
	case docker.ErrorCodeUnsupported:
		class = errdefs.ErrNotImplemented
	case docker.ErrorCodeUnauthorized:
		class = errdefs.ErrUnauthenticated
	case docker.ErrorCodeDenied:
		class = errdefs.ErrPermissionDenied
	case docker.ErrorCodeUnavailable:
		class = errdefs.ErrUnavailable
	}
	return errdefs.As(class, errors.New("error from registry: "+msg))
}

func classOf(status int) error {
	switch status {
	case http.StatusUnauthorized:
		return errdefs.ErrUnauthenticated
	case http.StatusForbidden:
		return errdefs.ErrPermissionDenied
	case http.StatusNotFound:
		return errdefs.ErrNotFound
	case http.StatusBadRequest:
		return errdefs.ErrInvalidArgument
	case http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusBadGateway, http.StatusGatewayTimeout:
		return errdefs.ErrUnavailable
	}
	return errdefs.ErrInternal
}
