package reference

import (
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

func TestParseQuery(t *testing.T) {
	hex := strings.Repeat("ab", 32)
	for word, want := range map[string]struct{ name, digest, prefix string }{
		"busybox":                 {"docker.io/library/busybox:latest", "", ""},
		"busybox:1":               {"docker.io/library/busybox:1", "", ""},
		"a/b":                     {"docker.io/a/b:latest", "", ""},
		"host:5000/a/b:c":         {"host:5000/a/b:c", "", ""},
		"localhost/x":             {"localhost/x:latest", "", ""},
		"cafe":                    {"docker.io/library/cafe:latest", "", "cafe"},
		"caf":                     {"docker.io/library/caf:latest", "", ""},
		"sha256:cafe":             {"", "", "cafe"},
		"sha256:" + hex:           {"", "sha256:" + hex, hex},
		hex:                       {"", "sha256:" + hex, hex},
		"busybox@sha256:" + hex:   {"docker.io/library/busybox@sha256:" + hex, "sha256:" + hex, ""},
		"busybox:1@sha256:" + hex: {"docker.io/library/busybox:1@sha256:" + hex, "sha256:" + hex, ""},
		"index.docker.io/x":       {"docker.io/library/x:latest", "", ""},
	} {
		q, err := ParseQuery(word)
		name := ""
		if q.Name != nil {
			name = q.Name.String()
		}
		if err != nil || name != want.name || q.Digest.String() != want.digest || q.IDPrefix != want.prefix {
			t.Errorf("%s: %q %q %q %v", word, name, q.Digest, q.IDPrefix, err)
		}
	}
	for _, bad := range []string{"", "UPPER", "a b", "x:", "-x", "http://x", "x@sha256:1", "x:" + strings.Repeat("t", 129)} {
		if _, err := ParseQuery(bad); errdefs.HTTPStatus(err) != 400 {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestFamiliar(t *testing.T) {
	for full, want := range map[string]string{
		"docker.io/library/busybox:1": "busybox:1", "docker.io/a/b:c": "a/b:c", "quay.io/a/b:c": "quay.io/a/b:c",
		"not a name": "not a name",
	} {
		if got := FamiliarOf(full); got != want {
			t.Errorf("%s: %s", full, got)
		}
	}
}

// FuzzParseQuery: whatever is accepted must be accepted again, with the same
// meaning, in the form that it is stored in.
func FuzzParseQuery(f *testing.F) {
	for _, s := range []string{"busybox", "a/b:c", "h:1/x@sha256:" + strings.Repeat("0", 64), "cafe", "sha256:cafe", "[::1]:5000/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		q, err := ParseQuery(s)
		if err != nil || q.Name == nil {
			return
		}
		again, err := ParseQuery(q.Name.String())
		if err != nil || again.Name.String() != q.Name.String() || again.Digest != q.Digest {
			t.Errorf("%q is %q, which is %v, %v", s, q.Name, again.Name, err)
		}
		if _, err := ParseTagged(Familiar(q.Name)); err != nil {
			t.Errorf("the short form %q: %v", Familiar(q.Name), err)
		}
	})
}
