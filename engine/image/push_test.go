package image

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/oci/ocitest"
)

func TestPushAndPullBack(t *testing.T) {
	_, host := newRegistry(t)
	f := newFixture(t, nil)
	f.load(t, two("demo:1"))
	ref := host + "/lib/demo:1"
	if err := f.Tag(t.Context(), "demo:1", ref); err != nil {
		t.Fatal(err)
	}
	if err := f.Push(t.Context(), PushOptions{Ref: ref, Progress: f.rec.progress}); err != nil {
		t.Fatal(err)
	}
	_, lines := f.rec.take()
	all := strings.Join(lines, "\n")
	for _, want := range []string{"The push refers to repository [" + host + "/lib/demo]", " Preparing", " Pushed", "1: digest: sha256:"} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q in:\n%s", want, all)
		}
	}
	if err := f.Push(t.Context(), PushOptions{Ref: ref, Progress: f.rec.progress}); err != nil {
		t.Fatal(err)
	}
	if _, lines = f.rec.take(); !strings.Contains(strings.Join(lines, "\n"), "Layer already exists") {
		t.Errorf("second push: %q", lines)
	}
	other := newFixture(t, nil)
	if err := other.Pull(t.Context(), PullOptions{Ref: ref}); err != nil {
		t.Fatal(err)
	}
	checkTwo(t, other.writable(t, "c", ref))
	a, err := f.Get(t.Context(), ref, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := other.Get(t.Context(), ref, nil)
	if err != nil || a.ID != b.ID {
		t.Errorf("IDs %s, %s, %v", a.ID, b.ID, err)
	}
}

func TestPushErrors(t *testing.T) {
	f := newFixture(t, nil)
	err := f.Push(t.Context(), PushOptions{Ref: "nothing:1"})
	if err == nil || err.Error() != "tag does not exist: nothing:1" {
		t.Errorf("error %v", err)
	}
}

func TestSaveAndLoad(t *testing.T) {
	f := newFixture(t, nil)
	f.load(t, two("demo:1", "demo:2"), two("other:1"))
	var buf bytes.Buffer
	if err := f.Save(t.Context(), []string{"demo"}, nil, &buf); err != nil {
		t.Fatal(err)
	}
	files, err := ocitest.ReadTar(bytes.NewReader(buf.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if m := string(files["manifest.json"]); !strings.Contains(m, `"demo:1"`) || !strings.Contains(m, `"demo:2"`) {
		t.Errorf("manifest.json: %s", m)
	}
	other := newFixture(t, nil)
	if err := other.Load(t.Context(), &buf, nil, other.rec.progress); err != nil {
		t.Fatal(err)
	}
	checkTwo(t, other.writable(t, "c", "demo:2"))
	_, lines := other.rec.take()
	slices.Sort(lines)
	if !slices.Equal(lines, []string{"Loaded image: demo:1", "Loaded image: demo:2"}) {
		t.Errorf("messages %q", lines)
	}
}

func TestCommit(t *testing.T) {
	f := newFixture(t, nil)
	f.load(t, two("demo:1"))
	root := f.writable(t, "c1", "demo:1")
	must(t, os.WriteFile(filepath.Join(root, "etc/conf"), []byte("three\n"), 0o644))
	must(t, os.WriteFile(filepath.Join(root, "added"), []byte("a"), 0o600))
	must(t, os.Link(filepath.Join(root, "added"), filepath.Join(root, "linked")))
	must(t, os.RemoveAll(filepath.Join(root, "dir")))
	must(t, os.WriteFile(filepath.Join(root, "etc/hosts"), nil, 0o644))
	must(t, os.Mkdir(filepath.Join(root, "proc"), 0o755))

	changes, err := f.Changes(t.Context(), "c1")
	if err != nil {
		t.Fatal(err)
	}
	want := []container.FilesystemChange{{Kind: 1, Path: "/added"}, {Kind: 2, Path: "/dir"}, {Kind: 0, Path: "/etc"},
		{Kind: 0, Path: "/etc/conf"}, {Kind: 1, Path: "/linked"}}
	if !slices.Equal(changes, want) {
		t.Errorf("changes %v, want %v", changes, want)
	}
	img, err := f.Get(t.Context(), "demo:1", nil)
	if err != nil {
		t.Fatal(err)
	}
	id, err := f.Commit(t.Context(), CommitOptions{
		SnapshotKey: "c1", Parent: img, Repo: "demo", Tag: "2", Comment: "hello", Author: "me",
		ContainerConfig: &container.Config{Cmd: []string{"sh"}, Env: []string{"A=1"}},
		Changes:         []string{"ENV B=2", `CMD ["x","y"]`, "EXPOSE 80"},
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := f.Get(t.Context(), "demo:2", nil)
	if err != nil || got.ID != id {
		t.Fatalf("%v, %v", got, err)
	}
	if !slices.Equal(got.Config.Config.Env, []string{"A=1", "B=2"}) || !slices.Equal(got.Config.Config.Cmd, []string{"x", "y"}) {
		t.Errorf("config %+v", got.Config.Config)
	}
	root2 := f.writable(t, "c2", "demo:2")
	if got := read(t, filepath.Join(root2, "etc/conf")); got != "three\n" {
		t.Errorf("conf %q", got)
	}
	if _, err := os.Lstat(filepath.Join(root2, "dir")); !os.IsNotExist(err) {
		t.Errorf("dir is there: %v", err)
	}
	a, err := os.Stat(filepath.Join(root2, "added"))
	must(t, err)
	b, err := os.Stat(filepath.Join(root2, "linked"))
	must(t, err)
	if !os.SameFile(a, b) {
		t.Error("the hard link was lost")
	}
	hist, err := f.History(t.Context(), "demo:2", nil)
	if err != nil || len(hist) != 3 || hist[0].Comment != "hello" || hist[0].CreatedBy != "sh" || hist[1].ID != img.ID.String() {
		t.Errorf("history %+v, %v", hist, err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestImport(t *testing.T) {
	f := newFixture(t, nil)
	var buf bytes.Buffer
	must(t, ocitest.WriteTar(&buf, ocitest.File{Path: "hello", Data: []byte("hi")}))
	id, err := f.Import(t.Context(), &buf, ImportOptions{Ref: "imp", Message: "m", Changes: []string{"WORKDIR /x"}})
	if err != nil {
		t.Fatal(err)
	}
	in, err := f.Inspect(t.Context(), "imp", nil, false)
	if err != nil || in.ID != id || in.Config.WorkingDir != "/x" || in.Comment != "m" || !slices.Equal(in.RepoTags, []string{"imp:latest"}) {
		t.Errorf("%+v %v", in, err)
	}
	if read(t, filepath.Join(f.writable(t, "c", "imp"), "hello")) != "hi" {
		t.Error("content")
	}
}

func TestPullAllTagsAndPlatforms(t *testing.T) {
	srv, host := newRegistry(t)
	amd := build(t, two())
	arm := two()
	arm.Platform = ocispec.Platform{OS: "linux", Architecture: "arm64"}
	if amd.Manifest.Platform.Architecture == "arm64" {
		arm.Platform.Architecture = "amd64"
	}
	arm.Layers[0].Files[1].Data = []byte("arm\n")
	idx, err := ocitest.Index(build(t, arm), amd)
	must(t, err)
	must(t, ocitest.Push(srv.Client(), srv.URL, "lib/multi", "a", idx))
	must(t, ocitest.Push(srv.Client(), srv.URL, "lib/multi", "b", amd))
	f := newFixture(t, nil)
	must(t, f.Pull(t.Context(), PullOptions{Ref: host + "/lib/multi", AllTags: true}))
	img, err := f.Get(t.Context(), host+"/lib/multi:a", nil)
	must(t, err)
	if img.ID != idx.Manifest.Digest || img.Manifest.Digest != amd.Manifest.Digest {
		t.Errorf("ID %s, manifest %s", img.ID, img.Manifest.Digest)
	}
	if _, err := f.Get(t.Context(), host+"/lib/multi:a", &arm.Platform); err == nil || !strings.Contains(err.Error(), "does not provide the specified platform") {
		t.Errorf("error %v", err)
	}
	must(t, f.Pull(t.Context(), PullOptions{Ref: host + "/lib/multi:a", Platform: &arm.Platform}))
	if _, err := f.Get(t.Context(), host+"/lib/multi:a", &arm.Platform); err != nil {
		t.Error(err)
	}
	none := ocispec.Platform{OS: "linux", Architecture: "s390x"}
	err = f.Pull(t.Context(), PullOptions{Ref: host + "/lib/multi:a", Platform: &none})
	if err == nil || !strings.Contains(err.Error(), "no matching manifest for linux/s390x") {
		t.Errorf("error %v", err)
	}
	d, err := f.Distribution(t.Context(), host+"/lib/multi:a", nil)
	if err != nil || len(d.Platforms) != 2 || d.Descriptor.Digest != idx.Manifest.Digest {
		t.Errorf("%+v %v", d, err)
	}
}

func TestPullErrors(t *testing.T) {
	_, host := newRegistry(t)
	f := newFixture(t, nil)
	for ref, want := range map[string]string{
		host + "/none:1":  "manifest for " + host + "/none:1 not found: manifest unknown: manifest unknown",
		"UPPER":           "invalid reference format",
		"127.0.0.1:1/x:1": "connection refused",
	} {
		if err := f.Pull(t.Context(), PullOptions{Ref: ref}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", ref, err, want)
		}
	}
}
