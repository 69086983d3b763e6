package formatting

import (
	"sort"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/docker/go-units"
)

// ShortID cuts an ID to twelve digits, without its algorithm.
func ShortID(id string) string {
	if _, rest, ok := strings.Cut(id, ":"); ok {
		id = rest
	}
	if len(id) > 12 {
		id = id[:12]
	}
	return id
}

// ID gives the ID, shortened unless noTrunc.
func ID(id string, noTrunc bool) string {
	if noTrunc {
		return id
	}
	return ShortID(id)
}

// Size is a decimal size of three digits (1.23MB).
func Size(n int64) string { return units.HumanSizeWithPrecision(float64(n), 3) }

// BinarySize is a binary size (1.23MiB).
func BinarySize(n float64) string { return units.BytesSize(n) }

// Ago words the time since t.
func Ago(now, t time.Time) string {
	return units.HumanDuration(now.Sub(t)) + " ago"
}

// Ellipsis cuts s to at most n characters, the last of which is then an ellipsis.
func Ellipsis(s string, n int) string {
	if n <= 0 || utf8.RuneCountInString(s) <= n {
		return s
	}
	r := []rune(s)
	if n == 1 {
		return string(r[:1])
	}
	return string(r[:n-1]) + "…"
}

// Pairs joins a map as k=v,k=v, sorted.
func Pairs(m map[string]string) string {
	if len(m) == 0 {
		return ""
	}
	out := make([]string, 0, len(m))
	for k, v := range m {
		out = append(out, k+"="+v)
	}
	sort.Strings(out)
	return strings.Join(out, ",")
}
