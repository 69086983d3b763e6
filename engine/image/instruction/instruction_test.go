package instruction

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

func TestApply(t *testing.T) {
	sh := []string{"/bin/sh", "-c"}
	for line, want := range map[string]container.Config{
		`CMD echo hi`:                      {Cmd: append(sh, "echo hi")},
		`cmd ["a","b"]`:                    {Cmd: []string{"a", "b"}},
		`CMD []`:                           {Cmd: []string{}},
		`CMD [not json`:                    {Cmd: append(sh, "[not json")},
		`ENTRYPOINT ["x"]`:                 {Entrypoint: []string{"x"}},
		`ENV A=1 B="two words" C=x\ y`:     {Env: []string{"A=1", "B=two words", "C=x y"}},
		`ENV A some words`:                 {Env: []string{"A=some words"}},
		`ENV A='$X' B="${X:-d}" C=${A:+z}`: {Env: []string{"A=$X", "B=d", "C="}},
		`LABEL a=b "c d"="e f"`:            {Labels: map[string]string{"a": "b", "c d": "e f"}},
		`EXPOSE 80 53/udp 1000-1002`: {ExposedPorts: network.PortSet{
			network.MustParsePort("80/tcp"): {}, network.MustParsePort("53/udp"): {},
			network.MustParsePort("1000/tcp"): {}, network.MustParsePort("1001/tcp"): {}, network.MustParsePort("1002/tcp"): {}}},
		`USER www:www`:       {User: "www:www"},
		`WORKDIR /a/../b`:    {WorkingDir: "/b"},
		`WORKDIR rel dir`:    {WorkingDir: "/rel dir"},
		`VOLUME /a /b`:       {Volumes: map[string]struct{}{"/a": {}, "/b": {}}},
		`VOLUME ["/c d"]`:    {Volumes: map[string]struct{}{"/c d": {}}},
		`STOPSIGNAL SIGQUIT`: {StopSignal: "SIGQUIT"},
		`SHELL ["/bin/x"]`:   {Shell: []string{"/bin/x"}},
		`ONBUILD RUN make`:   {OnBuild: []string{"RUN make"}},
		`HEALTHCHECK NONE`:   {Healthcheck: &container.HealthConfig{Test: []string{"NONE"}}},
		`HEALTHCHECK --interval=5s --retries=2 CMD curl x`: {Healthcheck: &container.HealthConfig{
			Test: []string{"CMD-SHELL", "curl x"}, Interval: 5 * time.Second, Retries: 2}},
		`HEALTHCHECK CMD ["a"]`: {Healthcheck: &container.HealthConfig{Test: []string{"CMD", "a"}}},
	} {
		var got container.Config
		if err := Apply(&got, []string{line}); err != nil {
			t.Errorf("%s: %v", line, err)
		} else if diff := cmp.Diff(want, got, cmpopts.EquateComparable(network.Port{})); diff != "" {
			t.Errorf("%s:\n%s", line, diff)
		}
	}
	for _, bad := range []string{"RUN x", "FROM x", "ENV", "ENV A", "ENV A=1 B", "ENV =x", `ENV A="x`, "EXPOSE x", "EXPOSE 70000",
		"HEALTHCHECK x", "HEALTHCHECK --interval=1ns CMD x", "HEALTHCHECK --what=1 CMD x", "SHELL x", "ONBUILD FROM x",
		"ONBUILD ONBUILD RUN x", "USER a b", "ENV A=${x", "ENV A=${x?y}", "STOPSIGNAL"} {
		var got container.Config
		if err := Apply(&got, []string{bad}); errdefs.HTTPStatus(err) != 400 {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestApplyBuildsOn(t *testing.T) {
	cfg := container.Config{Env: []string{"A=1", "P=/x"}, WorkingDir: "/w", Shell: []string{"/bin/ash"}, Labels: map[string]string{"k": "v"}}
	shared := cfg.Labels
	err := Apply(&cfg, []string{"ENV A=2 P=$P:/y", "WORKDIR sub", "CMD go", "LABEL k=w", "", "# comment", "ENV B=$A\nUSER $B"})
	if err != nil {
		t.Fatal(err)
	}
	want := container.Config{Env: []string{"A=2", "P=/x:/y", "B=2"}, WorkingDir: "/w/sub", Shell: []string{"/bin/ash"},
		Cmd: []string{"/bin/ash", "go"}, Labels: map[string]string{"k": "w"}, User: "2"}
	if diff := cmp.Diff(want, cfg); diff != "" {
		t.Error(diff)
	}
	if shared["k"] != "v" {
		t.Error("the labels of the original were changed")
	}
}

func FuzzApply(f *testing.F) {
	for _, s := range []string{`ENV A="$X" B='y'`, `HEALTHCHECK --interval=1s CMD x`, `VOLUME ["a"]`, "EXPOSE 1-3/udp", `LABEL a\`, `ENV "a\`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		cfg := container.Config{Env: []string{"X=1"}}
		if err := Apply(&cfg, []string{s}); err != nil && errdefs.HTTPStatus(err) != 400 {
			t.Errorf("%q: %v", s, err)
		}
	})
}
