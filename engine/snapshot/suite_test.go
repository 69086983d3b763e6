package snapshot

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/testsuite"
	"golang.org/x/sys/unix"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("snapshots are mounted, which needs root")
	}
}

func opener(driver string) testsuite.SnapshotterFunc {
	return func(_ context.Context, root string) (snapshots.Snapshotter, func() error, error) {
		_, sn, err := Open(Config{Root: root, Driver: driver}, slog.Default())
		if err != nil {
			return nil, nil, err
		}
		return sn, sn.Close, nil
	}
}

func TestOverlayContract(t *testing.T) {
	needRoot(t)
	if err := OverlaySupported(t.TempDir()); err != nil {
		t.Skip(err)
	}
	// The suite renames directories of lower layers, which overlayfs answers
	// with EXDEV unless redirect_dir is on; its default is the kernel's.
	testsuite.SnapshotterSuite(t, "overlay", func(_ context.Context, root string) (snapshots.Snapshotter, func() error, error) {
		sn, err := openOverlay(root, "redirect_dir=on")
		if err != nil {
			return nil, nil, err
		}
		return sn, sn.Close, nil
	})
}

func TestNativeContract(t *testing.T) {
	needRoot(t)
	testsuite.SnapshotterSuite(t, "native", opener("native"))
}

func TestBtrfsContract(t *testing.T) {
	needRoot(t)
	mnt := btrfsMount(t)
	open := opener("btrfs")
	testsuite.SnapshotterSuite(t, "btrfs", func(ctx context.Context, _ string) (snapshots.Snapshotter, func() error, error) {
		root, err := os.MkdirTemp(mnt, "suite-")
		if err != nil {
			return nil, nil, err
		}
		return open(ctx, root)
	})
}

// btrfsMount makes a btrfs file system in a file and mounts it.
func btrfsMount(t *testing.T) string {
	t.Helper()
	mkfs, err := exec.LookPath("mkfs.btrfs")
	if err != nil {
		t.Skip("mkfs.btrfs is not installed (package btrfs-progs)")
	}
	dir := t.TempDir()
	img, mnt := filepath.Join(dir, "fs.img"), filepath.Join(dir, "mnt")
	if err := os.WriteFile(img, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(img, 512<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(mkfs, "-q", img).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.btrfs: %v\n%s", err, out)
	}
	if err := os.Mkdir(mnt, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-o", "loop", img, mnt).CombinedOutput(); err != nil {
		t.Skipf("a btrfs file cannot be mounted here: %v %s", err, out)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(mnt, 0); err != nil {
			t.Errorf("unmount %s: %v", mnt, err)
		}
	})
	return mnt
}
