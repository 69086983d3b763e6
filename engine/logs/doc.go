// Package logs writes and reads containers' logs: drivers "local", "json-file"
// and "none", with rotation on by default.
//
// The shim writes (a log has no hole when the daemon dies), the daemon reads
// (docker logs, follow). Files are the only thing the two share.
//
// # Files
//
// A log is a folder of segments, numbered without gaps while it grows:
//
//	00000007.log.gz   00000008.log   00000009.log      driver local
//	00000007.json     00000008.json  container-json.log -> 00000008.json
//
// Only the highest is written. A segment never changes its number: rotation
// creates the next one, compression replaces N.log by N.log.gz, and what
// max-file does not allow any more is removed from the low end. So a follower
// that holds segment N open, however slow, finds N+1 by its name, and loses
// entries only when it falls behind by more than max-file keeps.
//
// # Guarantees
//
// An entry is one write(2): kill -9 of the writer tears at most the last one,
// which readers skip and the next writer cuts off. Entries are not fsynced.
// When the disk is full, entries are dropped and counted; a line saying how
// many is written as soon as there is room, and WriteEntry returns no error, so
// that a container never blocks or dies for its log.
//
// The package is linked into every shim: it imports neither net/http nor
// internal/errdefs (which does).
package logs
