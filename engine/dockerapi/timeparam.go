package dockerapi

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

// timeLayouts are the date forms of --since and --until, with zone and in the
// zone of now.
var timeLayouts = [...]string{
	time.RFC3339Nano, "2006-01-02T15:04Z07:00", "2006-01-02T15Z07:00", "2006-01-02Z07:00",
	"2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02",
}

// parseTime reads a moment: Unix seconds with or without nanoseconds
// ("1700000000.000000001"), a Go duration before now ("10m"), or a date. ""
// gives the zero time.
func parseTime(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if t, ok := parseUnix(s); ok {
		return t, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d), nil
	}
	for _, layout := range timeLayouts {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("failed to parse value as time or duration: %q", s)
}

// parseUnix reads seconds[.nanoseconds]; fewer than nine digits are filled up
// with zeros, more are cut.
func parseUnix(s string) (time.Time, bool) {
	whole, frac, _ := strings.Cut(s, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return time.Time{}, false
	}
	for _, c := range []byte(frac) {
		if c < '0' || c > '9' {
			return time.Time{}, false
		}
	}
	if len(frac) > 9 {
		frac = frac[:9]
	}
	nsec, err := strconv.ParseInt(frac+"000000000"[len(frac):], 10, 64)
	if err != nil {
		return time.Time{}, false
	}
	return time.Unix(sec, nsec), true
}

// moment reads a time parameter. "0" is the zero time: no bound.
func (s *Server) moment(c *call, name string) (time.Time, error) {
	v := c.param(name)
	if v == "0" {
		return time.Time{}, nil
	}
	t, err := parseTime(v, s.now())
	if err != nil {
		return t, errdefs.Invalidf("invalid value for '%s': %w", name, err)
	}
	return t, nil
}
