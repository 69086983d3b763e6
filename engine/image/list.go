package image

import (
	"cmp"
	"context"
	"path"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	apiimage "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"

	"github.com/cleatlabs/cleat/engine/filter"
	"github.com/cleatlabs/cleat/internal/errdefs"
	"github.com/cleatlabs/cleat/oci/reference"
)

// List lists images, newest first.
func (s *Service) List(ctx context.Context, o ListOptions) ([]apiimage.Summary, error) {
	if err := o.Filters.Validate("dangling", "label", "label!", "before", "since", "reference", "until"); err != nil {
		return nil, err
	}
	x, err := s.index(ctx)
	if err != nil {
		return nil, err
	}
	keep, err := s.filters(ctx, x, o.Filters)
	if err != nil {
		return nil, err
	}
	ctx = s.store.Context(ctx)
	z := s.sizer()
	var out []apiimage.Summary
	var sizes []footprint
	for _, id := range x.digests {
		d := digest.NewDigestFromEncoded(digest.SHA256, id)
		names := x.byDigest[d]
		if !o.All && isDangling(names[0]) && len(names) == 1 && hasChildren(x, d) {
			continue // an intermediate image
		}
		var matching []images.Image
		for _, i := range names {
			if keep(i) {
				matching = append(matching, i)
			}
		}
		if len(matching) == 0 {
			continue
		}
		sum, f, err := s.summary(ctx, x, z, matching, o.Manifests)
		if err != nil {
			return nil, err
		}
		out, sizes = append(out, *sum), append(sizes, f)
	}
	if o.SharedSize {
		for i, n := range shared(sizes) {
			out[i].SharedSize = n
		}
	}
	slices.SortStableFunc(out, func(a, b apiimage.Summary) int { return cmp.Compare(b.Created, a.Created) })
	return out, nil
}

// summary describes one image by those of its names that were asked for.
func (s *Service) summary(ctx context.Context, x *index, z *sizer, names []images.Image, manifests bool) (*apiimage.Summary, footprint, error) {
	target := names[0].Target
	f, err := z.measure(ctx, target)
	if err != nil {
		return nil, f, err
	}
	sum := &apiimage.Summary{
		ID: formatID(target.Digest), Descriptor: &target, Labels: map[string]string{},
		ParentID: names[0].Labels[labelParent], Size: f.total(), SharedSize: -1, Containers: -1,
		RepoTags: []string{}, RepoDigests: []string{},
	}
	if n := len(s.users(target.Digest)); n > 0 {
		sum.Containers = int64(n)
	}
	sum.RepoTags, sum.RepoDigests = tagsAndDigests(names)
	m, err := s.manifestOf(ctx, x, target, nil)
	if err != nil {
		return nil, f, err
	}
	if m != nil {
		if m.config.Created != nil {
			sum.Created = m.config.Created.Unix()
		}
		if m.config.Config.Labels != nil {
			sum.Labels = m.config.Config.Labels
		}
	}
	if manifests {
		if sum.Manifests, err = s.manifestSummaries(ctx, z, target); err != nil {
			return nil, f, err
		}
	}
	return sum, f, nil
}

// tagsAndDigests are the names in short form, and for each repository the digest.
func tagsAndDigests(names []images.Image) (tags, digests []string) {
	tags, digests = []string{}, []string{}
	for _, i := range names {
		n, err := reference.Parse(i.Name)
		if err != nil || isDangling(i) {
			continue
		}
		if reference.Digest(n) == "" {
			tags = append(tags, reference.Familiar(n))
		}
		if d, err := reference.WithDigest(n, i.Target.Digest); err == nil && !slices.Contains(digests, reference.Familiar(d)) {
			digests = append(digests, reference.Familiar(d))
		}
	}
	return tags, digests
}

// filters compiles the filters into one test of a name.
func (s *Service) filters(ctx context.Context, x *index, args filter.Args) (func(images.Image) bool, error) {
	var tests []func(images.Image) bool
	created := func(i images.Image) (time.Time, *parsed) {
		m, err := s.manifestOf(ctx, x, i.Target, nil)
		if err != nil || m == nil || m.config.Created == nil {
			return time.Time{}, m
		}
		return *m.config.Created, m
	}
	if args.Has("dangling") {
		want, err := args.Bool("dangling", false)
		if err != nil {
			return nil, err
		}
		tests = append(tests, func(i images.Image) bool { return isDangling(i) == want })
	}
	for _, key := range []string{"before", "since"} {
		for _, word := range args[key] {
			other, err := x.lookup(word)
			if err != nil {
				return nil, err
			}
			at, _ := created(other)
			tests = append(tests, func(i images.Image) bool {
				t, _ := created(i)
				if key == "before" {
					return t.Before(at)
				}
				return t.After(at)
			})
		}
	}
	for _, v := range args["until"] {
		until, err := parseTime(v, s.now())
		if err != nil {
			return nil, errdefs.Invalidf("invalid value for 'until' filter: %w", err)
		}
		tests = append(tests, func(i images.Image) bool {
			t, _ := created(i)
			return t.Before(until)
		})
	}
	if args.Has("label") || args.Has("label!") {
		tests = append(tests, func(i images.Image) bool {
			_, m := created(i)
			if m == nil {
				return false
			}
			return args.Labels("label", m.config.Config.Labels) && args.NotLabels("label!", m.config.Config.Labels)
		})
	}
	if args.Has("reference") {
		for _, pattern := range args["reference"] {
			if _, err := path.Match(pattern, ""); err != nil {
				return nil, errdefs.Invalidf("invalid pattern %q: %w", pattern, err)
			}
		}
		tests = append(tests, func(i images.Image) bool { return matchesReference(args["reference"], i) })
	}
	return func(i images.Image) bool {
		for _, ok := range tests {
			if !ok(i) {
				return false
			}
		}
		return true
	}, nil
}

func matchesReference(patterns []string, i images.Image) bool {
	n, err := reference.Parse(i.Name)
	if err != nil || isDangling(i) {
		return false
	}
	return slices.ContainsFunc(patterns, func(p string) bool {
		for _, candidate := range []string{reference.Familiar(n), reference.FamiliarRepository(n)} {
			c, err := reference.Parse(candidate)
			if err != nil {
				continue
			}
			if ok, err := reference.FamiliarMatch(p, c); err == nil && ok {
				return true
			}
		}
		return false
	})
}
