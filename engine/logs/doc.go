// Package logs writes and reads containers' logs: drivers "local", "json-file"
// and "none", with rotation on by default.
//
// The shim writes (a log has no hole when the daemon dies), the daemon reads
// (docker logs, follow). Files are the only thing the two share.
package logs
