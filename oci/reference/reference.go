// Package reference reads the names of images as users write them and gives
// them back in the short form that users expect.
//
// Everything that names an image uses it: engine/image, registry, apps. It adds
// to github.com/distribution/reference the three shapes that a word on a command
// line can have (name, digest, prefix of an ID) and the classes of
// internal/errdefs. It touches nothing but its arguments.
package reference

import (
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

// Named is a repository name, with or without tag and digest, in full form
// (docker.io/library/busybox:latest).
type Named = reference.Named

// DefaultTag is what a name without tag and digest means.
const DefaultTag = "latest"

const (
	minPrefix = 4
	fullHex   = 64
)

// Query is what a user's word may mean: a name, a digest, or the beginning of
// an image ID. Name and IDPrefix can both be set ("cafe" is both).
type Query struct {
	// Name has a tag or a digest, or both; nil when the word is a digest.
	Name Named
	// Digest is set for "sha256:<64 hex>", for 64 hex digits, and for name@digest.
	Digest digest.Digest
	// IDPrefix is 4 to 64 hex digits without algorithm.
	IDPrefix string
}

// ParseQuery reads a word that names an existing image.
func ParseQuery(word string) (Query, error) {
	q := Query{IDPrefix: idPrefix(word)}
	if q.IDPrefix != "" && strings.HasPrefix(word, "sha256:") && len(q.IDPrefix) < fullHex {
		return q, nil
	}
	any, err := reference.ParseAnyReference(word)
	if err != nil {
		return Query{}, errdefs.Invalidf("invalid reference format: %q: %w", word, err)
	}
	if d, ok := any.(reference.Digested); ok {
		q.Digest = d.Digest()
	}
	if n, ok := any.(reference.Named); ok {
		q.Name = reference.TagNameOnly(n)
	}
	return q, nil
}

// Parse reads a name that is to be given to an image or asked of a registry;
// neither tag nor digest is added.
func Parse(s string) (Named, error) {
	n, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return nil, errdefs.Invalidf("%w", err)
	}
	return n, nil
}

// ParseTagged is Parse, with DefaultTag where there is neither tag nor digest.
func ParseTagged(s string) (Named, error) {
	n, err := Parse(s)
	if err != nil {
		return nil, err
	}
	return reference.TagNameOnly(n), nil
}

// Tag returns the tag of n, or "".
func Tag(n Named) string {
	if t, ok := n.(reference.Tagged); ok {
		return t.Tag()
	}
	return ""
}

// Digest returns the digest of n, or "".
func Digest(n Named) digest.Digest {
	if d, ok := n.(reference.Digested); ok {
		return d.Digest()
	}
	return ""
}

// Repository returns n without tag and digest, in full form.
func Repository(n Named) string { return n.Name() }

// Domain returns the registry host of n.
func Domain(n Named) string { return reference.Domain(n) }

// Path returns the repository within the registry, such as library/busybox.
func Path(n Named) string { return reference.Path(n) }

// Familiar returns the short form with tag and digest.
func Familiar(n Named) string { return reference.FamiliarString(n) }

// FamiliarRepository returns the short form without tag and digest.
func FamiliarRepository(n Named) string { return reference.FamiliarName(n) }

// FamiliarMatch says whether n matches a pattern as `docker images` takes it.
func FamiliarMatch(pattern string, n Named) (bool, error) {
	return reference.FamiliarMatch(pattern, n)
}

// WithTag returns the repository of n with the tag.
func WithTag(n Named, tag string) (Named, error) {
	t, err := reference.WithTag(reference.TrimNamed(n), tag)
	if err != nil {
		return nil, errdefs.Invalidf("invalid tag format: %w", err)
	}
	return t, nil
}

// WithDigest returns the repository of n with the digest.
func WithDigest(n Named, d digest.Digest) (Named, error) {
	c, err := reference.WithDigest(reference.TrimNamed(n), d)
	if err != nil {
		return nil, errdefs.Invalidf("invalid digest: %w", err)
	}
	return c, nil
}

// FamiliarOf shortens a stored full name; what does not parse is returned as is.
func FamiliarOf(name string) string {
	n, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return name
	}
	return reference.FamiliarString(n)
}

func idPrefix(word string) string {
	h := strings.TrimPrefix(word, "sha256:")
	if len(h) < minPrefix || len(h) > fullHex {
		return ""
	}
	for _, c := range h {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return ""
		}
	}
	return h
}
