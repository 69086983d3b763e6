// Package atomicfile replaces files so that a reader, or the next start after
// kill -9 or power loss, sees either the old content or the new, never a part.
//
// Everything that keeps state in plain files writes through it. WriteFile and
// WriteJSON are durable when they return: temporary file in the same folder,
// write, fsync, rename, fsync of the folder. WriteVolatile and
// WriteVolatileJSON leave the two fsyncs out, for folders that do not outlive a
// reboot, such as the run folder; they survive kill -9 but not power loss.
//
// A crash can leave a temporary file behind. Its name is recognised by
// IsTemp, and Clean removes those of a folder that nobody is writing to.
package atomicfile
