package container

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

// hostDevice is a device file of the host and what of it a container gets.
type hostDevice struct {
	path         string // inside the container
	kind         string // "c" or "b"
	major, minor int64
	mode         os.FileMode
	uid, gid     uint32
	access       string // "rwm"
}

// planDevices lists the device files to make and the rules of the device
// cgroup: everything is denied but Docker's defaults and what was asked for.
func planDevices(in *specInput) ([]specs.LinuxDevice, []specs.LinuxDeviceCgroup, error) {
	var devices []specs.LinuxDevice
	for _, d := range in.Devices {
		mode, uid, gid := d.mode, d.uid, d.gid
		devices = append(devices, specs.LinuxDevice{Path: d.path, Type: d.kind, Major: d.major, Minor: d.minor, FileMode: &mode, UID: &uid, GID: &gid})
	}
	if in.Host.Privileged {
		return devices, []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}, nil
	}
	rules := []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	for _, d := range [][2]int64{{1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, {5, 0}, {5, 1}, {5, 2}} {
		rules = append(rules, allow("c", d[0], d[1], "rwm"))
	}
	// Making any node is harmless, terminals are the container's own.
	rules = append(rules,
		specs.LinuxDeviceCgroup{Allow: true, Type: "c", Access: "m"},
		specs.LinuxDeviceCgroup{Allow: true, Type: "b", Access: "m"},
	)
	pts := int64(136)
	rules = append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: &pts, Access: "rwm"})
	for _, d := range in.Devices {
		rules = append(rules, allow(d.kind, d.major, d.minor, d.access))
	}
	for _, raw := range in.Host.DeviceCgroupRules {
		r, err := parseDeviceRule(raw)
		if err != nil {
			return nil, nil, err
		}
		rules = append(rules, r)
	}
	return devices, rules, nil
}

func allow(kind string, major, minor int64, access string) specs.LinuxDeviceCgroup {
	return specs.LinuxDeviceCgroup{Allow: true, Type: kind, Major: &major, Minor: &minor, Access: access}
}

// parseDeviceRule reads "c 42:* rmw".
func parseDeviceRule(s string) (specs.LinuxDeviceCgroup, error) {
	m := regexp.MustCompile(`^([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})$`).FindStringSubmatch(s)
	if m == nil {
		return specs.LinuxDeviceCgroup{}, errdefs.Invalidf("invalid device cgroup rule format: '%s'", s)
	}
	r := specs.LinuxDeviceCgroup{Allow: true, Type: m[1], Access: m[4]}
	for i, p := range []**int64{&r.Major, &r.Minor} {
		if m[i+2] == "*" {
			continue
		}
		n, err := strconv.ParseInt(m[i+2], 10, 64)
		if err != nil {
			return r, errdefs.Invalidf("invalid device cgroup rule format: '%s'", s)
		}
		*p = &n
	}
	return r, nil
}

// findDevices looks up the device files that a container gets.
func findDevices(h *container.HostConfig) ([]hostDevice, error) {
	var found []hostDevice
	if h.Privileged {
		all, err := walkDevices("/dev", "/dev", "rwm")
		if err != nil {
			return nil, err
		}
		found = all
	}
	for _, d := range h.Devices {
		inside, access := d.PathInContainer, d.CgroupPermissions
		setDefault(&inside, d.PathOnHost)
		setDefault(&access, "rwm")
		list, err := resolveDevice(d.PathOnHost, inside, access)
		if err != nil {
			return nil, errdefs.Invalidf("error gathering device information while adding custom device %q: %v", d.PathOnHost, err)
		}
		for _, add := range list {
			found = slices.DeleteFunc(found, func(have hostDevice) bool { return have.path == add.path })
			found = append(found, add)
		}
	}
	return found, nil
}

// resolveDevice gives one device, or those of a folder. Links are the host's
// own and followed.
func resolveDevice(host, inside, access string) ([]hostDevice, error) {
	real, err := filepath.EvalSymlinks(host)
	if err != nil {
		return nil, plainError(err)
	}
	fi, err := os.Stat(real)
	if err != nil {
		return nil, plainError(err)
	}
	if fi.IsDir() {
		list, err := walkDevices(real, inside, access)
		if err == nil && len(list) == 0 {
			err = errors.New("not a device node")
		}
		return list, err
	}
	d, ok := deviceOf(fi, inside, access)
	if !ok {
		return nil, errors.New("not a device node")
	}
	return []hostDevice{d}, nil
}

func plainError(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("no such file or directory")
	}
	return err
}

// walkDevices leaves out what a container has of its own.
func walkDevices(dir, inside, access string) ([]hostDevice, error) {
	var list []hostDevice
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // unplugged meanwhile
			}
			return err
		}
		if e.IsDir() {
			if slices.Contains([]string{"pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"}, e.Name()) && p != dir {
				return filepath.SkipDir
			}
			return nil
		}
		if e.Name() == "console" || e.Type()&os.ModeDevice == 0 {
			return nil
		}
		fi, err := e.Info()
		if err != nil {
			return nil // unplugged meanwhile
		}
		if d, ok := deviceOf(fi, filepath.Join(inside, strings.TrimPrefix(p, dir)), access); ok {
			list = append(list, d)
		}
		return nil
	})
	return list, err
}

func deviceOf(fi os.FileInfo, inside, access string) (hostDevice, bool) {
	st, ok := fi.Sys().(*unixStat)
	if !ok || fi.Mode()&os.ModeDevice == 0 {
		return hostDevice{}, false
	}
	kind := "b"
	if fi.Mode()&os.ModeCharDevice != 0 {
		kind = "c"
	}
	return hostDevice{
		path: inside, kind: kind, access: access, mode: fi.Mode().Perm(), uid: st.Uid, gid: st.Gid,
		major: int64(unix.Major(st.Rdev)), minor: int64(unix.Minor(st.Rdev)),
	}, true
}

// findBlockDevices resolves the paths that block I/O limits name.
func findBlockDevices(r *container.Resources) (map[string]blockDevice, error) {
	var paths []string
	for _, d := range r.BlkioWeightDevice {
		paths = append(paths, d.Path)
	}
	for _, d := range slices.Concat(r.BlkioDeviceReadBps, r.BlkioDeviceWriteBps, r.BlkioDeviceReadIOps, r.BlkioDeviceWriteIOps) {
		paths = append(paths, d.Path)
	}
	if len(paths) == 0 {
		return nil, nil
	}
	found := map[string]blockDevice{}
	for _, p := range paths {
		var st unix.Stat_t
		if err := unix.Stat(p, &st); err != nil {
			return nil, errdefs.Invalidf("block device %s: %v", p, err)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFBLK {
			return nil, errdefs.Invalidf("%s is not a block device", p)
		}
		found[p] = blockDevice{int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))}
	}
	return found, nil
}
