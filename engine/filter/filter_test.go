package filter_test

import (
	"errors"
	"testing"

	"github.com/cleatlabs/cleat/engine/filter"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

func parse(t *testing.T, s string) filter.Args {
	t.Helper()
	a, err := filter.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestParseBothForms(t *testing.T) {
	for _, s := range []string{`{"label":["a=b","c"]}`, `{"label":{"a=b":true,"c":true,"d":false}}`} {
		a := parse(t, s)
		if !a.Labels("label", map[string]string{"a": "b", "c": "any"}) {
			t.Errorf("%s: labels that match do not", s)
		}
		if a.Labels("label", map[string]string{"a": "b"}) || a.Labels("label", map[string]string{"a": "x", "c": ""}) {
			t.Errorf("%s: labels that do not match do", s)
		}
	}
	if _, err := filter.Parse("["); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("bad JSON: %v", err)
	}
	if a := parse(t, ""); !a.Exact("x", "y") || a.Has("x") {
		t.Error("no filter must match everything")
	}
}

func TestMatching(t *testing.T) {
	a := parse(t, `{"name":["^web"],"driver":["bridge"],"ref":["lib*:v?"],"id":["ab"],"dangling":["true"]}`)
	for _, c := range []struct {
		what      string
		got, want bool
	}{
		{"regexp", a.Match("name", "web1"), true},
		{"regexp no", a.Match("name", "my-web"), false},
		{"exact", a.Exact("driver", "bridge"), true},
		{"exact no", a.Exact("driver", "bridge2"), false},
		{"glob", a.Glob("ref", "library:v1"), true},
		{"glob no", a.Glob("ref", "library:v10"), false},
		{"prefix", a.Prefix("id", "abc"), true},
		{"prefix no", a.Prefix("id", "xab"), false},
	} {
		if c.got != c.want {
			t.Errorf("%s: %v", c.what, c.got)
		}
	}
	if on, err := a.Bool("dangling", false); err != nil || !on {
		t.Errorf("bool: %v %v", on, err)
	}
	if _, err := parse(t, `{"dangling":["maybe"]}`).Bool("dangling", false); err == nil {
		t.Error("maybe is no bool")
	}
	if err := a.Validate("name"); err == nil {
		t.Error("unknown keys must be refused")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`{"a":["b"]}`)
	f.Add(`{"a":{"b":true}}`)
	f.Fuzz(func(t *testing.T, s string) {
		a, err := filter.Parse(s)
		if err != nil {
			return
		}
		for k := range a {
			a.Match(k, "x")
			a.Glob(k, "x")
			a.Labels(k, map[string]string{"x": "y"})
		}
	})
}
