// Package dockerapi serves the Docker Engine API on the engine's nouns.
//
// The docker command, compose, SDKs and our own command line talk to it.
// platform/ builds a Server from the Backends (backend.go) and puts it behind
// one or more Listeners.
//
//	client ── socket ──▶ Listener ──▶ Server ──▶ Backends
//	                     (conns)      (routes,    (engine/container,
//	                                   shapes)     image, network, ...)
//
// Guarantees:
//   - Every route answers for API 1.24 up to MaxAPIVersion, in the shapes that
//     clients of that version read. What is absent answers 501 with its name.
//   - A change that a client asked for is not cut short because the client
//     hangs up; a stream ends when its client does.
//   - A handler's panic is answered 500 and logged; it ends no other request.
//   - No goroutine outlives its request, and no request outlives Listener.Stop.
package dockerapi
