package dockerapi

import "context"

// contexts are a listener's, found among the values of every request's context.
type contexts struct {
	// streams ends when the listener stops. A request's own context does not
	// do for a connection that was taken over: it is done as soon as the
	// client ends its input.
	streams context.Context
	// changes ends when a stopping listener has waited long enough.
	changes context.Context
}

type contextsKey struct{}

// contextsOf finds the listener's; a handler that is served otherwise, as in
// httptest, has its requests end with the client only.
func contextsOf(ctx context.Context) contexts {
	if c, ok := ctx.Value(contextsKey{}).(contexts); ok {
		return c
	}
	free := context.WithoutCancel(ctx)
	return contexts{streams: free, changes: free}
}
