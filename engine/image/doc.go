// Package image is the engine's images: pull, push, tag, remove, list, inspect,
// save, load, import, commit and prune, with Docker's rules, on the content
// store of package oci. engine/container, engine/build, engine/cri and the
// Docker API are its users.
package image
