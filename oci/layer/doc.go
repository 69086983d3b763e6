// Package layer turns layer blobs into files and files into layer blobs.
//
// Applier unpacks a tar, plain or compressed with gzip or zstd, onto a
// snapshot; Writer makes the tar of a snapshot's changes. engine/image and
// engine/build use both.
//
// Guarantees of Applier: nothing outside the target changes, whatever the tar
// says (paths, symbolic and hard links are resolved inside the target; trusted
// attributes are refused); what was read is hashed, so that the caller compares
// the uncompressed digest with the one it expects; a tar that would unpack to more
// than the limits ends with an error of class ErrExhausted. The caller discards the
// target after an error.
package layer
