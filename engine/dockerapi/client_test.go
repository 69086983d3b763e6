package dockerapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/engine/logs"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

// TestClientContainers drives the real client over the routes of containers
// that answer at once, and looks at what reached the backends.
func TestClientContainers(t *testing.T) {
	r := newRig(t)
	d, ctx := r.docker(), t.Context()
	seconds := 3
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	want := func(lines ...string) {
		t.Helper()
		if diff := cmp.Diff(lines, r.took()); diff != "" {
			t.Errorf("the backends were asked otherwise (-want +got):\n%s", diff)
		}
	}
	must(d.ContainerCreate(ctx, client.ContainerCreateOptions{Name: "web", Image: "busybox", Platform: &ocispec.Platform{OS: "linux", Architecture: "arm64"}}))
	want(`create "web" "busybox" "bridge" {"architecture":"arm64","os":"linux"}`)
	must(d.ContainerStart(ctx, "web", client.ContainerStartOptions{}))
	must(d.ContainerStop(ctx, "web", client.ContainerStopOptions{Signal: "INT", Timeout: &seconds}))
	must(d.ContainerRestart(ctx, "web", client.ContainerRestartOptions{}))
	must(d.ContainerKill(ctx, "web", client.ContainerKillOptions{Signal: "HUP"}))
	must(d.ContainerUnpause(ctx, "web", client.ContainerUnpauseOptions{}))
	must(d.ContainerRename(ctx, "web", client.ContainerRenameOptions{NewName: "www"}))
	must(d.ContainerResize(ctx, "web", client.ContainerResizeOptions{Height: 10, Width: 20}))
	must(d.ContainerRemove(ctx, "web", client.ContainerRemoveOptions{Force: true, RemoveVolumes: true}))
	want(`start "web"`, `stop "web" {"Signal":"INT","Timeout":3}`, `restart "web" {"Signal":"","Timeout":null}`,
		`kill "web" "HUP"`, `unpause "web"`, `rename "web" "www"`, `resize "web" {"Width":20,"Height":10}`,
		`remove "web" {"Force":true,"Volumes":true,"Link":false}`)

	if _, err := d.ContainerPause(ctx, "web", client.ContainerPauseOptions{}); !cerrdefs.IsConflict(err) {
		t.Errorf("pause: %v", err)
	}
	if _, err := d.ContainerInspect(ctx, "missing", client.ContainerInspectOptions{}); !cerrdefs.IsNotFound(err) || !strings.Contains(err.Error(), "No such container: missing") {
		t.Errorf("inspect of nothing: %v", err)
	}
	_, err := d.ContainerKill(ctx, "missing", client.ContainerKillOptions{})
	if !cerrdefs.IsNotFound(err) || !strings.Contains(err.Error(), "cannot kill container: missing: No such container") {
		t.Errorf("kill of nothing: %v", err)
	}
	r.took()

	limit := int64(-5)
	must(d.ContainerUpdate(ctx, "web", client.ContainerUpdateOptions{Resources: &container.Resources{Memory: 64, PidsLimit: &limit}}))
	must(d.ContainerCommit(ctx, "web", client.ContainerCommitOptions{Reference: "repo:tag", NoPause: true, Changes: []string{"CMD x"}}))
	must(d.ContainerList(ctx, client.ContainerListOptions{All: true, Limit: 4, Filters: make(client.Filters).Add("status", "running")}))
	must(d.ContainerTop(ctx, "web", client.ContainerTopOptions{}))
	must(d.ContainerPrune(ctx, client.ContainerPruneOptions{Filters: make(client.Filters).Add("until", "1h")}))
	must(d.NetworkConnect(ctx, "mine", client.NetworkConnectOptions{Container: "web", EndpointConfig: &network.EndpointSettings{}}))
	must(d.NetworkDisconnect(ctx, "mine", client.NetworkDisconnectOptions{Container: "web", Force: true}))
	want(`update "web" 64 0`, `commit "web" "docker.io/library/repo" "tag" true false ["CMD x"]`,
		`list {"All":true,"Size":false,"Limit":4,"Filters":{"status":["running"]}}`, `top "web" "-ef"`,
		`prune {"until":["1h"]}`, `connect "mine" "web" true`, `disconnect "mine" "web" true`)

	diff, err := d.ContainerDiff(ctx, "web", client.ContainerDiffOptions{})
	if err != nil || len(diff.Changes) != 1 {
		t.Errorf("diff: %v, %v", diff, err)
	}
	exp, err := d.ContainerExport(ctx, "web", client.ContainerExportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(exp); err != nil || string(b) != "tar of web" {
		t.Errorf("export: %q, %v", b, err)
	}
}

func TestClientCopy(t *testing.T) {
	r := newRig(t)
	d, ctx := r.docker(), t.Context()
	st, err := d.ContainerStatPath(ctx, "web", client.ContainerStatPathOptions{Path: "/a b"})
	if err != nil || st.Stat.Name != "f" || st.Stat.Size != 3 {
		t.Errorf("stat: %+v, %v", st, err)
	}
	got, err := d.CopyFromContainer(ctx, "web", client.CopyFromContainerOptions{SourcePath: "/f"})
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(got.Content); err != nil || string(b) != "tar" || got.Stat.Name != "f" {
		t.Errorf("copy from: %q %+v %v", b, got.Stat, err)
	}
	r.took()
	_, err = d.CopyToContainer(ctx, "web", client.CopyToContainerOptions{DestinationPath: "/d", Content: strings.NewReader("plain"), CopyUIDGID: true})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{`copyto "web" "/d" {"NoOverwriteDirNonDir":true,"CopyUIDGID":true} "plain"`}, r.took()); diff != "" {
		t.Error(diff)
	}
	if _, err := d.CopyFromContainer(ctx, "missing", client.CopyFromContainerOptions{SourcePath: "/f"}); !cerrdefs.IsNotFound(err) {
		t.Errorf("copy from nothing: %v", err)
	}
	r.containers.copyErr = errors.New("disk broke")
	got, err = d.CopyFromContainer(ctx, "web", client.CopyFromContainerOptions{SourcePath: "/f"})
	if err == nil {
		_, err = io.ReadAll(got.Content)
	}
	if err == nil {
		t.Error("an archive that broke off looks whole")
	}
	if m := r.object(400, "GET", "/containers/web/archive", ""); m["message"] != "bad parameter: path cannot be empty" {
		t.Error(m)
	}
}

func TestClientImages(t *testing.T) {
	r := newRig(t)
	d, ctx := r.docker(), t.Context()
	want := func(lines ...string) {
		t.Helper()
		if diff := cmp.Diff(lines, r.took()); diff != "" {
			t.Errorf("the backends were asked otherwise (-want +got):\n%s", diff)
		}
	}
	p, err := d.ImagePull(ctx, "reg:5000/a/b:1", client.ImagePullOptions{
		RegistryAuth: "eyJ1c2VybmFtZSI6InUiLCJwYXNzd29yZCI6InAifQ==", Platforms: []ocispec.Platform{{OS: "linux", Architecture: "amd64"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	want(`pull "reg:5000/a/b:1" false {"architecture":"amd64","os":"linux"} {"username":"u","password":"p"}`)

	r.images.pullErr = errdefs.Unauthenticatedf("denied")
	if p, err = d.ImagePull(ctx, "busybox", client.ImagePullOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(ctx); err == nil || !strings.Contains(err.Error(), "denied") {
		t.Errorf("an error inside the stream: %v", err)
	}
	r.images.early = errdefs.NotFoundf("pull access denied for busybox")
	if _, err = d.ImagePull(ctx, "busybox", client.ImagePullOptions{All: true}); !cerrdefs.IsNotFound(err) {
		t.Errorf("an error before the stream: %v", err)
	}
	want(`pull "busybox:latest" false null null`, `pull "busybox" true null null`)
	r.images.pullErr, r.images.early = nil, nil

	push, err := d.ImagePush(ctx, "reg:5000/a/b:1", client.ImagePushOptions{RegistryAuth: "e30="})
	if err != nil {
		t.Fatal(err)
	}
	if err := push.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := d.ImageTag(ctx, client.ImageTagOptions{Source: "sha256:1", Target: "x/y"}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.ImageRemove(ctx, "reg:5000/a/b", client.ImageRemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.ImageInspect(ctx, "reg:5000/a/b:1", client.ImageInspectWithManifests(true)); err != nil {
		t.Fatal(err)
	}
	if _, err := d.ImageHistory(ctx, "a/b", client.ImageHistoryWithPlatform(ocispec.Platform{OS: "linux", Architecture: "arm64"})); err != nil {
		t.Fatal(err)
	}
	want(`push "reg:5000/a/b:1" false null null`, `tag "sha256:1" "x/y:latest"`,
		`rmi "reg:5000/a/b" {"Force":true,"NoPrune":true,"Platforms":null}`,
		`imageinspect "reg:5000/a/b:1" null true`, `history "a/b" {"architecture":"arm64","os":"linux"}`)

	saved, err := d.ImageSave(ctx, []string{"a", "b/c"})
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(saved); err != nil || string(b) != "image tar" {
		t.Errorf("save: %q, %v", b, err)
	}
	loaded, err := d.ImageLoad(ctx, strings.NewReader("some tar"), client.ImageLoadWithQuiet(true))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(loaded); err != nil || string(b) != `{"stream":"Loaded image: x\n"}`+"\n" {
		t.Errorf("a quiet load says %q, %v", b, err)
	}
	imp, err := d.ImageImport(ctx, client.ImageImportSource{Source: strings.NewReader("rootfs"), SourceName: "-"}, "new:1", client.ImageImportOptions{Message: "m", Changes: []string{"CMD a"}})
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(imp); err != nil || !strings.Contains(string(b), `{"status":"sha256:2"}`) {
		t.Errorf("import: %q, %v", b, err)
	}
	if _, err := d.ImageList(ctx, client.ImageListOptions{All: true, SharedSize: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.ImagePrune(ctx, client.ImagePruneOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.DistributionInspect(ctx, "reg:5000/a/b", client.DistributionInspectOptions{}); err != nil {
		t.Fatal(err)
	}
	want(`save ["a","b/c"] null`, `load "some tar" null`, `import "rootfs" "new:1" "m" ["CMD a"] null`,
		`images {"All":true,"SharedSize":true,"Manifests":false,"Filters":null}`, `imageprune null`, `distribution "reg:5000/a/b" null`)

	if _, err := d.ImageSearch(ctx, "x", client.ImageSearchOptions{}); !cerrdefs.IsNotImplemented(err) || !strings.Contains(err.Error(), "GET /images/search") {
		t.Errorf("search: %v", err)
	}
	if _, err := d.ImagePull(ctx, "scratch", client.ImagePullOptions{}); !cerrdefs.IsPermissionDenied(err) {
		t.Errorf("pull of scratch: %v", err)
	}
}

func TestClientNetworksVolumesSystem(t *testing.T) {
	r := newRig(t)
	d, ctx := r.docker(), t.Context()
	ok := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	ok(d.NetworkCreate(ctx, "mine", client.NetworkCreateOptions{Driver: "bridge"}))
	ok(d.NetworkInspect(ctx, "mine", client.NetworkInspectOptions{}))
	ok(d.NetworkList(ctx, client.NetworkListOptions{}))
	ok(d.NetworkPrune(ctx, client.NetworkPruneOptions{}))
	if _, err := d.NetworkRemove(ctx, "bridge", client.NetworkRemoveOptions{}); !cerrdefs.IsPermissionDenied(err) {
		t.Errorf("remove of bridge: %v", err)
	}
	ok(d.VolumeCreate(ctx, client.VolumeCreateOptions{Name: "v", Labels: map[string]string{"a": "b"}}))
	ok(d.VolumeInspect(ctx, "v", client.VolumeInspectOptions{}))
	ok(d.VolumeList(ctx, client.VolumeListOptions{}))
	ok(d.VolumeRemove(ctx, "v", client.VolumeRemoveOptions{Force: true}))
	ok(d.VolumePrune(ctx, client.VolumePruneOptions{}))
	if diff := cmp.Diff([]string{`netcreate "mine" null`, `nets null`, `netprune null`, `netrm "bridge"`,
		`volcreate {"Labels":{"a":"b"},"Name":"v"}`, `volumes null`, `volrm "v" true`, `volprune null`}, r.took()); diff != "" {
		t.Error(diff)
	}
	if _, err := d.VolumeInspect(ctx, "missing", client.VolumeInspectOptions{}); !cerrdefs.IsNotFound(err) {
		t.Errorf("no such volume: %v", err)
	}

	ping, err := d.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true})
	if err != nil || ping.APIVersion != "1.56" || ping.OSType != "linux" || ping.BuilderVersion != "2" || ping.SwarmStatus.NodeState != "inactive" {
		t.Errorf("ping: %+v, %v", ping, err)
	}
	v, err := d.ServerVersion(ctx, client.ServerVersionOptions{})
	if err != nil || v.APIVersion != "1.56" || v.MinAPIVersion != "1.24" {
		t.Errorf("version: %+v, %v", v, err)
	}
	info, err := d.Info(ctx, client.InfoOptions{})
	if err != nil || info.Info.Swarm.LocalNodeState != "inactive" {
		t.Errorf("info: %+v, %v", info, err)
	}
	du, err := d.DiskUsage(ctx, client.DiskUsageOptions{Images: true, Verbose: true})
	if err != nil || du.Images.TotalSize != 9 || len(du.Images.Items) != 1 {
		t.Errorf("df: %+v, %v", du, err)
	}
	if _, err := d.RegistryLogin(ctx, client.RegistryLoginOptions{Username: "u", Password: "wrong"}); !cerrdefs.IsUnauthorized(err) {
		t.Errorf("login: %v", err)
	}
	auth, err := d.RegistryLogin(ctx, client.RegistryLoginOptions{Username: "u", ServerAddress: "reg"})
	if err != nil || (auth.Auth != registry.AuthResponse{Status: "Login Succeeded"}) {
		t.Errorf("login: %+v %v", auth, err)
	}
	if p, err := d.PluginList(ctx, client.PluginListOptions{}); err != nil || len(p.Items) != 0 {
		t.Errorf("plugins: %v, %v", p, err)
	}
	if _, err := d.ServiceList(ctx, client.ServiceListOptions{}); !cerrdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "not a swarm manager") {
		t.Errorf("services: %v", err)
	}
	if _, err := d.ImageBuild(ctx, strings.NewReader(""), client.ImageBuildOptions{}); !cerrdefs.IsNotImplemented(err) || !strings.Contains(err.Error(), "not implemented: POST /build") {
		t.Errorf("build: %v", err)
	}
	if _, err := d.BuildCachePrune(ctx, client.BuildCachePruneOptions{}); err != nil {
		t.Errorf("build prune: %v", err)
	}
}

func TestClientLogs(t *testing.T) {
	r := newRig(t)
	d, ctx := r.docker(), t.Context()
	at := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	r.containers.lines = []logs.Entry{
		{Time: at, Stream: logs.Stdout, Line: []byte("one")},
		{Time: at, Stream: logs.Stderr, Line: []byte("bad"), Attrs: map[string]string{"b": "2", "a": "1 x"}},
		{Time: at, Stream: logs.Stdout, Line: []byte("tw"), Partial: true},
		{Time: at, Stream: logs.Stdout, Line: []byte("o")},
	}
	read := func(o client.ContainerLogsOptions) (string, string) {
		t.Helper()
		rd, err := d.ContainerLogs(ctx, "web", o)
		if err != nil {
			t.Fatal(err)
		}
		defer rd.Close()
		return demux(t, rd)
	}
	out, errOut := read(client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Tail: "3", Since: "1700000000.5"})
	if out != "one\ntwo\n" || errOut != "bad\n" {
		t.Errorf("logs: %q, %q", out, errOut)
	}
	if diff := cmp.Diff([]string{`logs "web" 3 false 1700000000`}, r.took()); diff != "" {
		t.Error(diff)
	}
	out, errOut = read(client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Timestamps: true, Details: true})
	const ts = "2026-01-02T03:04:05.000006000Z "
	if out != ts+" one\n"+ts+" two\n" || errOut != ts+"a=1+x,b=2 bad\n" {
		t.Errorf("logs with everything: %q, %q", out, errOut)
	}
	if _, err := d.ContainerLogs(ctx, "web", client.ContainerLogsOptions{}); !cerrdefs.IsInvalidArgument(err) {
		t.Errorf("no stream: %v", err)
	}
	if _, err := d.ContainerLogs(ctx, "missing", client.ContainerLogsOptions{ShowStdout: true}); !cerrdefs.IsNotFound(err) {
		t.Errorf("no container: %v", err)
	}

	r.containers.lines, r.containers.logsErr = nil, errdefs.NotImplementedf("configured logging driver does not support reading")
	for _, follow := range []bool{false, true} {
		if _, err := d.ContainerLogs(ctx, "web", client.ContainerLogsOptions{ShowStdout: true, Follow: follow}); !cerrdefs.IsNotImplemented(err) {
			t.Errorf("a driver that cannot be read, follow %v: %v", follow, err)
		}
	}
	settle(t)
}

func TestClientLogsFollow(t *testing.T) {
	r := newRig(t)
	r.containers.follow = make(chan struct{})
	r.containers.lines = []logs.Entry{{Stream: logs.Stdout, Line: []byte("now")}}
	rd, err := r.docker().ContainerLogs(t.Context(), "web", client.ContainerLogsOptions{ShowStdout: true, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 8+4)
	if _, err := io.ReadFull(rd, buf); err != nil || string(buf[8:]) != "now\n" {
		t.Fatalf("the first line: %q, %v", buf, err)
	}
	_ = rd.Close()
	<-r.containers.follow // the reader's context ended with the client
	settle(t)

	// A container that says nothing: the header comes all the same.
	r.containers.follow, r.containers.lines = make(chan struct{}), nil
	rd, err = r.docker().ContainerLogs(t.Context(), "web", client.ContainerLogsOptions{ShowStdout: true, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	_ = rd.Close()
	<-r.containers.follow
	settle(t)
}

func TestClientStats(t *testing.T) {
	r := newRig(t)
	d, ctx := r.docker(), t.Context()
	st, err := d.ContainerStats(ctx, "web", client.ContainerStatsOptions{Stream: true})
	if err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(st.Body)
	var n int
	for dec.More() {
		var s container.StatsResponse
		if err := dec.Decode(&s); err != nil || s.OSType != "linux" {
			t.Fatalf("%+v, %v", s, err)
		}
		n++
	}
	if n != 3 {
		t.Errorf("%d samples", n)
	}
	if _, err := d.ContainerStats(ctx, "web", client.ContainerStatsOptions{}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{`stats "web" true false`, `stats "web" false true`}, r.took()); diff != "" {
		t.Error(diff)
	}
	if _, err := d.ContainerStats(ctx, "missing", client.ContainerStatsOptions{}); !cerrdefs.IsNotFound(err) {
		t.Error(err)
	}
}

// TestClientWait proves that the header comes before the answer: docker run
// starts the container only then.
func TestClientWait(t *testing.T) {
	r := newRig(t)
	resp := r.do("POST", "/v1.50/containers/web/wait?condition=next-exit", "") // returns with the header
	r.containers.waiting <- container.WaitResponse{StatusCode: 7}
	if b, err := io.ReadAll(resp.Body); err != nil || strings.TrimSpace(string(b)) != `{"StatusCode":7}` {
		t.Errorf("wait: %s, %v", b, err)
	}
	w := r.docker().ContainerWait(t.Context(), "missing", client.ContainerWaitOptions{})
	if err := <-w.Error; !cerrdefs.IsNotFound(err) {
		t.Errorf("wait for nothing: %v", err)
	}
	if m := r.object(400, "POST", "/containers/web/wait?condition=never", ""); m["message"] != `invalid condition: "never"` {
		t.Error(m)
	}
	ctx, cancel := context.WithCancel(t.Context())
	w = r.docker().ContainerWait(ctx, "web", client.ContainerWaitOptions{Condition: container.WaitConditionRemoved})
	cancel()
	<-r.containers.released
	settle(t)
}

func TestClientEvents(t *testing.T) {
	r := newRig(t)
	publish := func(typ apievents.Type, action apievents.Action, id string, attrs map[string]string) {
		r.bus.Publish(typ, action, id, attrs)
	}
	publish("container", "create", "c1", map[string]string{"name": "web", "image": "busybox:1", "label": "x"})
	publish("network", "connect", "n1", map[string]string{"name": "mine"})
	publish("container", "exec_start: sh", "c1", map[string]string{"name": "web", "image": "busybox:1"})
	publish("image", "pull", "busybox:1", map[string]string{"name": "busybox"})
	publish("image", "create", "sha256:1", nil)

	past := func(version string, pairs ...string) []string {
		t.Helper()
		f := map[string][]string{}
		for i := 0; i+1 < len(pairs); i += 2 {
			f[pairs[i]] = append(f[pairs[i]], pairs[i+1])
		}
		b, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		text := r.text(200, "GET", version+"/events?since=1h&until=0s&filters="+strings.ReplaceAll(string(b), `"`, "%22"), "")
		var out []string
		for line := range strings.Lines(text) {
			var m apievents.Message
			if err := json.Unmarshal([]byte(line), &m); err != nil {
				t.Fatal(err)
			}
			out = append(out, string(m.Type)+" "+string(m.Action))
		}
		return out
	}
	all := []string{"container create", "network connect", "container exec_start: sh", "image pull", "image create"}
	for _, c := range []struct {
		version string
		filter  []string
		want    []string
	}{
		{"", nil, all},
		{"/v1.45", nil, all[:4]},
		{"", []string{"type", "image"}, all[3:]},
		{"", []string{"event", "create"}, []string{all[0], all[4]}},
		{"", []string{"event", "exec_start"}, []string{all[2]}},
		{"", []string{"container", "we"}, []string{all[0], all[2]}},
		{"", []string{"container", "c1", "event", "create"}, []string{all[0]}},
		{"", []string{"image", "busybox"}, []string{all[0], all[2], all[3]}},
		{"", []string{"network", "mine"}, []string{all[1]}},
		{"", []string{"label", "label=x"}, []string{all[0]}},
		{"", []string{"scope", "swarm"}, nil},
	} {
		if diff := cmp.Diff(c.want, past(c.version, c.filter...)); diff != "" {
			t.Errorf("%s %v: %s", c.version, c.filter, diff)
		}
	}
	old := r.object(200, "GET", `/v1.50/events?since=1h&until=0s&filters={%22event%22:[%22create%22],%22type%22:[%22container%22]}`, "")
	if old["status"] != "create" || old["id"] != "c1" || old["from"] != "busybox:1" {
		t.Errorf("an old client's event: %v", old)
	}
	if text := r.text(200, "GET", "/events?since=1h&until=0s", "", "Accept", "application/json-seq"); !strings.HasPrefix(text, "\x1e{") {
		t.Errorf("json-seq: %q", text)
	}

	ctx, cancel := context.WithCancel(t.Context())
	live := r.docker().Events(ctx, client.EventsListOptions{Filters: make(client.Filters).Add("type", "volume")})
	for { // until the stream is there
		publish("volume", "create", "v", nil)
		select {
		case m := <-live.Messages:
			if m.Type != "volume" {
				t.Errorf("%+v", m)
			}
		case err := <-live.Err:
			t.Fatal(err)
		case <-time.After(5 * time.Millisecond):
			continue
		}
		break
	}
	cancel()
	settle(t)
	for _, q := range []string{"since=x", "until=1.2.3", "since=20&until=10"} {
		r.object(400, "GET", "/events?"+q, "")
	}
}

func TestEventUntil(t *testing.T) {
	r := newRig(t)
	soon := time.Now().Add(50 * time.Millisecond)
	text := r.text(200, "GET", "/events?until="+soon.UTC().Format(time.RFC3339Nano), "")
	if text != "" {
		t.Errorf("%q", text)
	}
}

func TestEndpointsAnswer(t *testing.T) {
	r := newRig(t)
	absent := []string{"POST /session", "POST /grpc", "POST /build", "POST /swarm/init", "GET /containers/web/attach/ws", "GET /images/a/b/attestations", "POST /plugins/a/b/enable"}
	for _, a := range absent {
		method, path, _ := strings.Cut(a, " ")
		m := r.object(501, method, "/v1.50"+path, "")
		if msg, _ := m["message"].(string); !strings.HasPrefix(msg, "not implemented: "+method+" /"+strings.Split(path, "/")[1]) {
			t.Errorf("%s: %v", a, m)
		}
	}
	for _, a := range []string{"GET /swarm", "GET /nodes", "POST /services/create", "GET /tasks/x/logs", "DELETE /secrets/x", "GET /configs", "POST /swarm/leave", "PUT /volumes/v"} {
		method, path, _ := strings.Cut(a, " ")
		r.object(503, method, path, "")
	}
	for _, a := range []string{"GET /nowhere", "DELETE /info", "POST /containers/json/x", "HEAD /info", "GET /images/../info", "GET /v1.50", "GET /vx/info", "GET /v1.x/info", "GET /v1.50/v1.50/info", "GET /", "GET /containers/a/../json"} {
		method, path, _ := strings.Cut(a, " ")
		resp := r.do(method, path, "")
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != 404 || method != "HEAD" && strings.TrimSpace(string(b)) != `{"message":"page not found"}` {
			t.Errorf("%s: %d %s", a, resp.StatusCode, b)
		}
	}
	if m := r.object(404, "GET", "/plugins/a/b/json", ""); m["message"] != `plugin "a/b" not found` {
		t.Error(m)
	}
	if !slices.Contains([]int{200}, r.do("GET", "/containers//web/json", "").StatusCode) {
		t.Error("docker inspect /web")
	}
	if m := r.object(200, "GET", "/containers/we%2Fb/json", ""); m["Name"] != "/web" {
		t.Error(m)
	}
}
