package image

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/google/go-cmp/cmp"
	apiimage "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/engine/filter"
	"github.com/cleatlabs/cleat/internal/errdefs"
	"github.com/cleatlabs/cleat/oci/ocitest"
)

func named(name string, d digest.Digest) images.Image {
	return images.Image{Name: name, Target: ocispec.Descriptor{Digest: d}}
}

func TestPlanRemoval(t *testing.T) {
	a, b := digest.FromString("a"), digest.FromString("b")
	ida, idb := a.Encoded()[:12], b.Encoded()[:12]
	x := newIndex([]images.Image{
		named("docker.io/library/one:1", a), named("docker.io/library/one:2", a),
		named("docker.io/library/single:1", b),
		named(danglingName(digest.FromString("c")), digest.FromString("c")),
		named("docker.io/library/x:1", digest.FromString("d")), named("quay.io/x:1", digest.FromString("d")),
	})
	c, d := digest.FromString("c").Encoded(), digest.FromString("d").Encoded()
	stopped, running := []Use{{ContainerID: strings.Repeat("5", 64)}}, []Use{{ContainerID: strings.Repeat("6", 64), Running: true}}
	for _, tc := range []struct {
		what, word string
		force      bool
		users      []Use
		children   bool
		untag      int
		keep, gone bool
		err        string
	}{
		{what: "one of two tags", word: "one:1", untag: 1},
		{what: "one of two tags in use", word: "one:1", users: running, untag: 1},
		{what: "last tag", word: "single:1", untag: 1, gone: true},
		{what: "last tag, stopped container", word: "single:1", users: stopped,
			err: "conflict: unable to delete single:1 (must be forced) - container 555555555555 is using its referenced image " + idb},
		{what: "last tag, running container", word: "single:1", users: running,
			err: "conflict: unable to delete single:1 (must be forced) - container 666666666666 is using its referenced image " + idb},
		{what: "last tag forced", word: "single:1", users: running, force: true, untag: 1, keep: true},
		{what: "last tag with children", word: "single:1", children: true, untag: 1, keep: true},
		{what: "by ID", word: ida, untag: 2, gone: true},
		{what: "by digest", word: "sha256:" + b.Encoded(), untag: 1, gone: true},
		{what: "by ID, stopped", word: idb, users: stopped,
			err: "conflict: unable to delete " + idb + " (must be forced) - image is being used by stopped container 555555555555"},
		{what: "by ID, stopped, forced", word: idb, users: stopped, force: true, untag: 1, gone: true},
		{what: "by ID, running, forced", word: idb, users: running, force: true,
			err: "conflict: unable to delete " + idb + " (cannot be forced) - image is being used by running container 666666666666"},
		{what: "nameless", word: c, untag: 1, gone: true},
		{what: "several repositories", word: d[:10],
			err: "conflict: unable to delete " + d[:12] + " (must be forced) - image is referenced in multiple repositories"},
		{what: "several repositories, forced", word: d[:10], force: true, untag: 2, gone: true},
		{what: "name with digest", word: "one@" + a.String(), untag: 2, gone: true},
		{what: "unknown", word: "nothing", err: "No such image: nothing:latest"},
	} {
		r, err := planRemoval(x, tc.word, tc.force, tc.users, tc.children)
		if tc.err != "" || err != nil {
			if err == nil || err.Error() != tc.err {
				t.Errorf("%s: error %v, want %s", tc.what, err, tc.err)
			}
			continue
		}
		if len(r.untag) != tc.untag || r.keep != tc.keep || r.gone != tc.gone {
			t.Errorf("%s: %+v", tc.what, r)
		}
	}
}

func TestLookup(t *testing.T) {
	mk := func(hex string) digest.Digest {
		return digest.NewDigestFromEncoded(digest.SHA256, hex+strings.Repeat("0", 64-len(hex)))
	}
	x := newIndex([]images.Image{
		named("docker.io/library/cafe:latest", mk("1111")), named("docker.io/library/b:1", mk("cafe1")),
		named("docker.io/library/c:1", mk("cafe2")), named("docker.io/a/c:1", mk("cafe2")),
	})
	for word, want := range map[string]string{
		"cafe": "docker.io/library/cafe:latest", "cafe1": "docker.io/library/b:1", "sha256:cafe2": "docker.io/a/c:1",
		mk("cafe2").Encoded(): "docker.io/a/c:1", "c@" + mk("cafe2").String(): "docker.io/library/c:1",
		"b:1": "docker.io/library/b:1", "docker.io/library/b:1": "docker.io/library/b:1",
	} {
		if got, err := x.lookup(word); err != nil || got.Name != want {
			t.Errorf("%s: %s %v", word, got.Name, err)
		}
	}
	for word, want := range map[string]string{
		"b": "No such image: b:latest", "sha256:cafe": "ambiguous reference: several images have an ID that begins with cafe",
		"b@" + mk("cafe2").String(): "No such image: b@" + mk("cafe2").String(), "beef": "No such image: beef:latest",
		"sha256:beef": "No such image: sha256:beef",
	} {
		if _, err := x.lookup(word); errdefs.HTTPStatus(err) != http.StatusNotFound || err.Error() != want {
			t.Errorf("%s: %v", word, err)
		}
	}
}

func TestPlanPrune(t *testing.T) {
	ds := map[string]digest.Digest{}
	for _, n := range []string{"tagged", "dangling", "used", "parent", "child"} {
		ds[n] = digest.FromString(n)
	}
	child := named(danglingName(ds["child"]), ds["child"])
	child.Labels = map[string]string{labelParent: ds["parent"].String()}
	x := newIndex([]images.Image{
		named("docker.io/library/tagged:1", ds["tagged"]), named(danglingName(ds["dangling"]), ds["dangling"]),
		named(danglingName(ds["used"]), ds["used"]), named(danglingName(ds["parent"]), ds["parent"]), child,
	})
	used := func(d digest.Digest) bool { return d == ds["used"] }
	all := func(images.Image) bool { return true }
	ids := func(rs []removal) []string {
		var out []string
		for _, r := range rs {
			for n, d := range ds {
				if d == r.id {
					out = append(out, n)
				}
			}
		}
		slices.Sort(out)
		return out
	}
	if got := ids(planPrune(x, true, all, used)); !slices.Equal(got, []string{"child", "dangling", "parent"}) {
		t.Errorf("dangling: %v", got)
	}
	if got := ids(planPrune(x, false, all, used)); !slices.Equal(got, []string{"child", "dangling", "parent", "tagged"}) {
		t.Errorf("all: %v", got)
	}
	notChild := func(i images.Image) bool { return i.Target.Digest != ds["child"] }
	if got := ids(planPrune(x, true, notChild, used)); !slices.Equal(got, []string{"dangling"}) {
		t.Errorf("filtered: %v", got)
	}
}

// TestRemoveFrees checks names, answers, events, and that blobs and layers are
// gone from the disk, but not what a container needs.
func TestRemoveFrees(t *testing.T) {
	f := newFixture(t, nil)
	f.load(t, two("demo:1", "demo:2"), big("other:1"))
	f.rec.take()
	img, err := f.Get(t.Context(), "demo:1", nil)
	must(t, err)
	must(t, f.PrepareSnapshot(t.Context(), "c1", img))
	uses := []Use{{ContainerID: "c1c1c1c1c1c1c1"}}
	f.SetInUse(func(d digest.Digest) []Use {
		if d == img.ID {
			return uses
		}
		return nil
	})
	got, err := f.Remove(t.Context(), "demo:1", RemoveOptions{})
	must(t, err)
	if d := cmp.Diff([]apiimage.DeleteResponse{{Untagged: "demo:1"}}, got); d != "" {
		t.Error(d)
	}
	if _, err := f.Remove(t.Context(), "demo:2", RemoveOptions{}); errdefs.HTTPStatus(err) != http.StatusConflict {
		t.Errorf("in use: %v", err)
	}
	got, err = f.Remove(t.Context(), "demo:2", RemoveOptions{Force: true})
	must(t, err)
	if d := cmp.Diff([]apiimage.DeleteResponse{{Untagged: "demo:2"}}, got); d != "" {
		t.Error(d)
	}
	list, err := f.List(t.Context(), ListOptions{Filters: filter.Args{"dangling": {"true"}}})
	if err != nil || len(list) != 1 || list[0].ID != img.ID.String() || len(list[0].RepoTags) != 0 {
		t.Errorf("list %+v %v", list, err)
	}
	got, err = f.Remove(t.Context(), img.ID.String(), RemoveOptions{Force: true})
	must(t, err)
	if d := cmp.Diff([]apiimage.DeleteResponse{{Deleted: img.ID.String()}}, got); d != "" {
		t.Error(d)
	}
	must(t, f.st.Collect(t.Context()))
	checkTwo(t, f.mounted(t, "c1")) // the container's layers are still there
	uses = nil
	if _, err := f.Remove(t.Context(), "other:1", RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	events, _ := f.rec.take()
	want := []string{"untag demo:1", "untag demo:2", "delete " + img.ID.String(), "untag other:1"}
	if !slices.Equal(events[:4], want) {
		t.Errorf("events %q", events)
	}
}

func TestBlobsGoAfterRemoval(t *testing.T) {
	f := newFixture(t, nil)
	f.load(t, two("demo:1"), big("other:1")) // they share two layers
	if _, err := f.Remove(t.Context(), "other:1", RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	must(t, f.st.Collect(t.Context()))
	checkTwo(t, f.writable(t, "c", "demo:1"))
	must(t, f.RemoveSnapshot(t.Context(), "c"))
	must(t, f.RemoveSnapshot(t.Context(), "c"))
	if _, err := f.Remove(t.Context(), "demo:1", RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	must(t, f.st.Collect(t.Context()))
	verifyNothingElse(t, f, nil)
}

func TestTagMovesName(t *testing.T) {
	f := newFixture(t, nil)
	f.load(t, two("demo:1"), big("other:1"))
	old, err := f.Get(t.Context(), "demo:1", nil)
	must(t, err)
	must(t, f.Tag(t.Context(), "other:1", "demo:1"))
	must(t, f.Tag(t.Context(), "other:1", "demo:1"))
	again, err := f.Get(t.Context(), old.ID.String(), nil)
	if err != nil || len(again.Names) != 0 {
		t.Errorf("the old image: %+v %v", again, err)
	}
	now, err := f.Get(t.Context(), "demo:1", nil)
	if err != nil || !slices.Equal(now.Names, []string{"demo:1", "other:1"}) {
		t.Errorf("the new image: %+v %v", now, err)
	}
	rep, err := f.Prune(t.Context(), nil)
	if err != nil || len(rep.ImagesDeleted) != 1 || rep.ImagesDeleted[0].Deleted != old.ID.String() || rep.SpaceReclaimed == 0 {
		t.Errorf("prune %+v %v", rep, err)
	}
	if err := f.Tag(t.Context(), "other:1", "x@"+old.ID.String()); errdefs.HTTPStatus(err) != http.StatusBadRequest {
		t.Errorf("tag with a digest: %v", err)
	}
}

func TestListFilters(t *testing.T) {
	f := newFixture(t, nil)
	older, newer := two("demo:1", "quay.io/team/demo:2"), big("other:1")
	older.Created = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	newer.Config.Labels = map[string]string{"k": "v"}
	f.load(t, older, newer)
	for _, tc := range []struct {
		filters filter.Args
		want    []string
	}{
		{nil, []string{"other:1", "demo:1 quay.io/team/demo:2"}},
		{filter.Args{"reference": {"demo"}}, []string{"demo:1"}},
		{filter.Args{"reference": {"*:1"}}, []string{"other:1", "demo:1"}},
		{filter.Args{"reference": {"quay.io/*/demo"}}, []string{"quay.io/team/demo:2"}},
		{filter.Args{"label": {"k=v"}}, []string{"other:1"}},
		{filter.Args{"label": {"k=w"}}, nil},
		{filter.Args{"label!": {"k"}}, []string{"demo:1 quay.io/team/demo:2"}},
		{filter.Args{"before": {"other:1"}}, []string{"demo:1 quay.io/team/demo:2"}},
		{filter.Args{"since": {"demo:1"}}, []string{"other:1"}},
		{filter.Args{"until": {"2021-01-01"}}, []string{"demo:1 quay.io/team/demo:2"}},
		{filter.Args{"dangling": {"true"}}, nil},
	} {
		list, err := f.List(t.Context(), ListOptions{Filters: tc.filters, SharedSize: true})
		var got []string
		for _, s := range list {
			got = append(got, strings.Join(s.RepoTags, " "))
			if s.Size <= 0 || s.SharedSize < 0 || s.SharedSize > s.Size {
				t.Errorf("sizes %d %d", s.Size, s.SharedSize)
			}
		}
		if err != nil || !slices.Equal(got, tc.want) {
			t.Errorf("%v: %q %v", tc.filters, got, err)
		}
	}
	for _, bad := range []filter.Args{{"what": {"x"}}, {"dangling": {"x"}}, {"until": {"soon"}}, {"reference": {"["}}} {
		if _, err := f.List(t.Context(), ListOptions{Filters: bad}); errdefs.HTTPStatus(err) != http.StatusBadRequest {
			t.Errorf("%v: %v", bad, err)
		}
	}
	du, err := f.DiskUsage(t.Context())
	if err != nil || len(du.Images) != 2 || du.Total <= 0 || du.Reclaimable != du.Total {
		t.Errorf("usage %+v %v", du, err)
	}
	if n, err := f.LayersSize(t.Context()); err != nil || n != du.Total {
		t.Errorf("layers %d of %d, %v", n, du.Total, err)
	}
	var sum int64
	for _, i := range du.Images {
		sum += i.Size
	}
	if sum <= du.Total {
		t.Errorf("the images share layers: %d together, %d in all", sum, du.Total)
	}
}

func TestBadArchives(t *testing.T) {
	f := newFixture(t, nil)
	ok := build(t, two("demo:1"))
	missing := &ocitest.Built{Manifest: ok.Manifest, Names: ok.Names, Blobs: map[digest.Digest][]byte{}}
	for d, data := range ok.Blobs {
		if d != ok.Layers[1].Digest {
			missing.Blobs[d] = data
		}
	}
	swapped := two("demo:1")
	wrong := build(t, swapped)
	wrong.Blobs[wrong.Layers[0].Digest] = []byte("not what the digest says")
	for name, b := range map[string]*ocitest.Built{"missing layer": missing, "changed layer": wrong} {
		var buf strings.Builder
		must(t, ocitest.WriteBuilt(&buf, b))
		if err := f.Load(t.Context(), strings.NewReader(buf.String()), nil, nil); errdefs.HTTPStatus(err) != http.StatusBadRequest {
			t.Errorf("%s: %v", name, err)
		}
		must(t, f.st.Collect(t.Context())) // what is left may be used by the next
	}
	for name, data := range map[string]string{"empty": "", "noise": strings.Repeat("noise", 1000)} {
		if err := f.Load(t.Context(), strings.NewReader(data), nil, nil); errdefs.HTTPStatus(err) != http.StatusBadRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
	if list, err := f.List(t.Context(), ListOptions{All: true}); err != nil || len(list) != 0 {
		t.Errorf("images %v %v", list, err)
	}
	must(t, f.st.Collect(t.Context()))
	verifyNothingElse(t, f, nil)
}
