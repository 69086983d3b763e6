package errdefs_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

func TestStatus(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
	}{
		{nil, 200},
		{errdefs.NotFoundf("x"), 404},
		{errdefs.Invalidf("x"), 400},
		{errdefs.Conflictf("x"), 409},
		{errdefs.Forbiddenf("x"), 403},
		{errdefs.Unauthenticatedf("x"), 401},
		{errdefs.Unavailablef("x"), 503},
		{errdefs.NotImplementedf("x"), 501},
		{errdefs.NotModifiedf("x"), 304},
		{errdefs.Internalf("x"), 500},
		{errors.New("x"), 500},
		{fmt.Errorf("while: %w", errdefs.NotFoundf("x")), 404},
		{errdefs.As(errdefs.ErrConflict, errors.New("x")), 409},
		{errdefs.WithHint(errdefs.NotFoundf("x"), "look elsewhere"), 404},
	} {
		if got := errdefs.HTTPStatus(c.err); got != c.status {
			t.Errorf("%v: %d, want %d", c.err, got, c.status)
		}
	}
}

func TestMessagesAndHints(t *testing.T) {
	inner := errors.New("inner")
	err := errdefs.WithHint(errdefs.Conflictf("taken: %w", inner), "choose another")
	if err.Error() != "taken: inner" || !errors.Is(err, inner) || errdefs.Hint(fmt.Errorf("outer: %w", err)) != "choose another" {
		t.Errorf("%v, hint %q", err, errdefs.Hint(err))
	}
	if errdefs.As(errdefs.ErrConflict, nil) != nil || errdefs.WithHint(nil, "x") != nil {
		t.Error("nil must stay nil")
	}
}
