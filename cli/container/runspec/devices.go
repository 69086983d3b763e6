package runspec

import (
	"path"
	"regexp"
	"strings"

	"github.com/moby/moby/api/types/container"
)

// deviceOptions reads --device: paths become mappings, vendor.com/class=name
// becomes a CDI request beside those of --gpus.
func deviceOptions(given []string, gpus []container.DeviceRequest) ([]container.DeviceMapping, []container.DeviceRequest, error) {
	mappings := make([]container.DeviceMapping, 0, len(given))
	var cdi []string
	for _, d := range given {
		if isCDIName(d) {
			cdi = append(cdi, d)
			continue
		}
		m, err := deviceMapping(d)
		if err != nil {
			return nil, nil, err
		}
		mappings = append(mappings, m)
	}
	if len(cdi) > 0 {
		gpus = append(gpus, container.DeviceRequest{Driver: "cdi", DeviceIDs: cdi})
	}
	return mappings, gpus, nil
}

func isCDIName(d string) bool {
	if strings.HasPrefix(d, "/") || !strings.Contains(d, "=") {
		return false
	}
	return regexp.MustCompile(`^[A-Za-z]([A-Za-z0-9_.-]*[A-Za-z0-9])?/[A-Za-z]([A-Za-z0-9_-]*[A-Za-z0-9])?=[A-Za-z0-9]([A-Za-z0-9_.:-]*[A-Za-z0-9])?$`).MatchString(d)
}

// deviceMapping reads HOST[:CONTAINER][:MODE].
func deviceMapping(d string) (container.DeviceMapping, error) {
	m := container.DeviceMapping{CgroupPermissions: "rwm"}
	parts := strings.Split(d, ":")
	if len(parts) > 3 || parts[0] == "" {
		return m, errorf("bad format for path: %s", d)
	}
	inside := ""
	switch {
	case len(parts) == 1:
		m.PathOnHost = path.Clean(parts[0])
		inside = m.PathOnHost
	case len(parts) == 2 && validDeviceMode(parts[1]):
		m.PathOnHost, m.CgroupPermissions = path.Clean(parts[0]), parts[1]
		inside = m.PathOnHost
	case len(parts) == 2:
		m.PathOnHost, inside = parts[0], path.Clean(parts[1])
	default:
		if !validDeviceMode(parts[2]) {
			return m, errorf("bad mode specified: %s", parts[2])
		}
		m.PathOnHost, inside, m.CgroupPermissions = parts[0], parts[1], parts[2]
	}
	if !path.IsAbs(inside) {
		return m, errorf("%s is not an absolute path", inside)
	}
	m.PathInContainer = inside
	return m, nil
}

// validDeviceMode wants each of r, w, m at most once, and one at least.
func validDeviceMode(mode string) bool {
	for i := range mode {
		if !strings.Contains("rwm", mode[i:i+1]) || strings.Contains(mode[:i], mode[i:i+1]) {
			return false
		}
	}
	return mode != ""
}
