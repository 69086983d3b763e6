package dockerapi

import (
	"strconv"
	"strings"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

// The API versions served.
const (
	MinAPIVersion = "1.24"
	MaxAPIVersion = "1.56"
)

// version is an API version 1.N as N; majors other than 1 lie outside 0-999.
type version int

const (
	oldestVersion version = 24
	newestVersion version = 56
)

// parseVersion reads "major.minor".
func parseVersion(s string) (version, bool) {
	major, minor, ok := strings.Cut(s, ".")
	if !ok || !isNumber(major) || !isNumber(minor) {
		return 0, false
	}
	x, _ := strconv.Atoi(major) // at most 3 digits
	y, _ := strconv.Atoi(minor)
	return version((x-1)*1000 + y), true
}

func isNumber(s string) bool {
	if s == "" || len(s) > 3 {
		return false
	}
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// cutVersion splits "/v1.50/rest" into "1.50" and "/rest"; a path without
// version gives ok false.
func cutVersion(path string) (v, rest string, ok bool) {
	if len(path) < 4 || path[:2] != "/v" || path[2] < '0' || path[2] > '9' {
		return "", path, false
	}
	v, rest, _ = strings.Cut(path[2:], "/")
	return v, "/" + rest, true
}

// supported refuses versions that are not served, in Docker's words.
func (s *Server) supported(text string, v version) error {
	switch {
	case v < s.oldest:
		return errdefs.Invalidf("client version %s is too old. Minimum supported API version is %s, please upgrade your client to a newer version", text, s.cfg.MinAPIVersion)
	case v > newestVersion:
		return errdefs.Invalidf("client version %s is too new. Maximum supported API version is %s", text, MaxAPIVersion)
	}
	return nil
}
