package image

import (
	"regexp"
	"runtime"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

// ParsePlatform reads OS/ARCH[/VARIANT], OS or ARCH, with the common other
// names of architectures.
func ParsePlatform(s string) (*ocispec.Platform, error) {
	parts := strings.Split(strings.ToLower(s), "/")
	word := regexp.MustCompile(`^[a-z0-9_.-]+$`)
	for _, p := range parts {
		if !word.MatchString(p) {
			return nil, errdefs.Invalidf("invalid platform %q: expected OS/ARCH[/VARIANT]", s)
		}
	}
	p := &ocispec.Platform{}
	switch len(parts) {
	case 1:
		if knownOS(parts[0]) {
			p.OS, p.Architecture = parts[0], runtime.GOARCH
		} else {
			p.OS = "linux"
			p.Architecture, p.Variant = arch(parts[0], "")
		}
	case 2:
		p.OS = parts[0]
		p.Architecture, p.Variant = arch(parts[1], "")
	case 3:
		p.OS = parts[0]
		p.Architecture, p.Variant = arch(parts[1], parts[2])
	default:
		return nil, errdefs.Invalidf("invalid platform %q: expected OS/ARCH[/VARIANT]", s)
	}
	return p, nil
}

func knownOS(s string) bool {
	switch s {
	case "linux", "windows", "darwin", "freebsd":
		return true
	}
	return false
}

func arch(a, variant string) (string, string) {
	switch a {
	case "x86_64", "x86-64":
		a = "amd64"
	case "i386", "i686", "x86":
		a = "386"
	case "aarch64":
		a = "arm64"
	case "armhf":
		a, variant = "arm", "v7"
	case "armel":
		a, variant = "arm", "v6"
	}
	if a == "arm" && len(variant) == 1 {
		variant = "v" + variant
	}
	if a == "arm64" && (variant == "8" || variant == "v8") || a == "amd64" && variant == "v1" {
		variant = ""
	}
	return a, variant
}

// PlatformString is the inverse of ParsePlatform.
func PlatformString(p ocispec.Platform) string {
	out := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		out += "/" + p.Variant
	}
	return out
}

func parsePlatforms(given []string) ([]ocispec.Platform, error) {
	var out []ocispec.Platform
	for _, s := range given {
		for one := range strings.SplitSeq(s, ",") {
			p, err := ParsePlatform(one)
			if err != nil {
				return nil, err
			}
			out = append(out, *p)
		}
	}
	return out, nil
}
