// Package wire is what the daemon and a shim say to each other: frames on a
// unix socket, each a 4-byte big-endian length and a JSON document.
//
// A connection starts as a control connection: requests carry a sequence
// number, are served concurrently, and are answered in any order. The request
// OpAttach turns its connection into a byte stream after the answer.
//
// Compatibility: a shim lives as long as its container and may be older or
// newer than the daemon. Operations and fields are only ever added; unknown
// fields are ignored; an unknown operation is answered with class
// not-implemented. Version counts changes that break this, and Hello tells it.
//
// The package is small on purpose, for every shim links it: no net/http, no
// containerd, no protobuf.
package wire
