package image

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"

	"github.com/cleatlabs/cleat/internal/errdefs"
	"github.com/cleatlabs/cleat/oci/reference"
)

// danglingPrefix begins the name of an image that has no name of its own.
const danglingPrefix = "cleat-dangling@"

func danglingName(d digest.Digest) string { return danglingPrefix + d.String() }

func isDangling(i images.Image) bool { return strings.HasPrefix(i.Name, danglingPrefix) }

// index is every name at one moment. It is not changed once made.
type index struct {
	all      []images.Image // by name
	byName   map[string]images.Image
	byDigest map[digest.Digest][]images.Image
	digests  []string // sorted, hex only, for prefixes
}

func newIndex(all []images.Image) *index {
	x := &index{
		all:      all,
		byName:   make(map[string]images.Image, len(all)),
		byDigest: make(map[digest.Digest][]images.Image, len(all)),
	}
	slices.SortFunc(x.all, func(a, b images.Image) int { return strings.Compare(a.Name, b.Name) })
	for _, i := range x.all {
		x.byName[i.Name] = i
		x.byDigest[i.Target.Digest] = append(x.byDigest[i.Target.Digest], i)
	}
	for d := range x.byDigest {
		x.digests = append(x.digests, d.Encoded())
	}
	slices.Sort(x.digests)
	return x
}

// lookup finds the image that a word means: a name before an ID prefix.
func (x *index) lookup(word string) (images.Image, error) {
	q, err := reference.ParseQuery(word)
	if err != nil {
		return images.Image{}, err
	}
	switch {
	case q.Digest != "" && q.Name != nil:
		for _, i := range x.byDigest[q.Digest] {
			if n, err := reference.Parse(i.Name); err == nil && n.Name() == q.Name.Name() {
				return i, nil
			}
		}
		return images.Image{}, noSuchImage(q, word)
	case q.Digest != "":
		if named := x.byDigest[q.Digest]; len(named) > 0 {
			return named[0], nil
		}
		return images.Image{}, noSuchImage(q, word)
	case q.Name != nil:
		if i, ok := x.byName[q.Name.String()]; ok {
			return i, nil
		}
	}
	if q.IDPrefix != "" {
		d, err := x.expand(q.IDPrefix)
		if err != nil {
			return images.Image{}, err
		}
		if d != "" {
			return x.byDigest[d][0], nil
		}
	}
	return images.Image{}, noSuchImage(q, word)
}

// expand completes a prefix of an ID; "" when there is none.
func (x *index) expand(prefix string) (digest.Digest, error) {
	at, _ := slices.BinarySearch(x.digests, prefix)
	if at == len(x.digests) || !strings.HasPrefix(x.digests[at], prefix) {
		return "", nil
	}
	if at+1 < len(x.digests) && strings.HasPrefix(x.digests[at+1], prefix) {
		return "", errdefs.NotFoundf("ambiguous reference: several images have an ID that begins with %s", prefix)
	}
	return digest.NewDigestFromEncoded(digest.SHA256, x.digests[at]), nil
}

// familiar lists the names of an image in short form, without the dangling one.
func (x *index) familiar(d digest.Digest) []string {
	var out []string
	for _, i := range x.byDigest[d] {
		if !isDangling(i) {
			out = append(out, reference.FamiliarOf(i.Name))
		}
	}
	return out
}

func noSuchImage(q reference.Query, word string) error {
	if q.Name != nil {
		word = reference.Familiar(q.Name)
	}
	return errdefs.NotFoundf("No such image: %s", word)
}

// cache keeps names and parsed images of one generation of the store.
type cache struct {
	mu         sync.Mutex
	generation uint64
	index      *index
	parsed     map[parsedKey]*parsed
}

// names returns the current index.
func (s *Service) index(ctx context.Context) (*index, error) {
	c := &s.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	g := s.store.Generation() // before reading: a change meanwhile makes it stale
	if c.index != nil && c.generation == g {
		return c.index, nil
	}
	all, err := s.store.Images().List(s.store.Context(ctx))
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	c.index, c.generation, c.parsed = newIndex(all), g, make(map[parsedKey]*parsed)
	return c.index, nil
}

func (c *cache) get(x *index, k parsedKey) *parsed {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.index != x {
		return nil
	}
	return c.parsed[k]
}

func (c *cache) put(x *index, k parsedKey, p *parsed) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.index == x {
		c.parsed[k] = p
	}
}
