// Package snapshot opens the driver that stores layers and containers' writable
// layers on this machine: overlay, btrfs or plain copies.
//
// platform opens one and hands it to oci/store, which all others go through.
// Every driver satisfies containerd's snapshots.Snapshotter and passes that
// interface's own test suite; a removed snapshot's files are deleted by
// Cleanup, outside of any lock, and what a killed process left behind goes with them.
//
//	driver     a writable layer costs        needs
//	overlay    two directories               a file system that overlayfs can use as upper
//	btrfs      one subvolume snapshot        Root on btrfs
//	native     a copy of all layers below    nothing
package snapshot
