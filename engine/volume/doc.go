// Package volume keeps the engine's named and anonymous volumes: the local
// driver (a folder, or a mount by type/o/device) and drivers that speak
// Docker's volume plugin protocol on a socket. engine/container mounts through
// it; the Docker API manages through it.
//
// # Files
//
//	Root/NAME/volume.json    the record; a volume exists when this does
//	Root/NAME/_data          content of a local volume, or its mount point
//	Root/.new-*  .old-*      being made or removed; swept at Start
//	Run/mounts.json          who has what mounted, of this boot
//
// A volume appears and disappears by one rename, so kill -9 leaves a whole
// volume or none. Nothing is ever removed through a mount: a folder with a mount
// below it is left alone until that is gone.
//
// # Locks
//
// Service.mu guards the maps and the counts and is never held during disk,
// network or mount work on a volume's content; entry.op serialises the slow
// operations on one volume, so a dead NFS server blocks only its own volume.
// op is taken before mu.
package volume
