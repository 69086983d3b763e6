// Package filter reads and applies the `filters` parameter of the Docker API:
// a JSON object of lists or sets, {"label":["a=b"]} or {"label":{"a=b":true}}.
//
// Every noun of the engine matches with it; the Docker API parses with it.
package filter

import (
	"encoding/json"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

// Args is a set of values by filter key. The nil Args matches everything.
type Args map[string][]string

// Parse reads the query parameter; "" gives nil.
func Parse(s string) (Args, error) {
	if s == "" {
		return nil, nil
	}
	var sets map[string]map[string]bool
	if err := json.Unmarshal([]byte(s), &sets); err == nil {
		a := make(Args, len(sets))
		for k, set := range sets {
			for v, on := range set {
				if on {
					a[k] = append(a[k], v)
				}
			}
			slices.Sort(a[k])
		}
		return a, nil
	}
	var lists map[string][]string
	if err := json.Unmarshal([]byte(s), &lists); err != nil {
		return nil, errdefs.Invalidf("invalid filter: %q is not a JSON object of lists", s)
	}
	return Args(lists), nil
}

// Validate refuses keys that are not among accepted.
func (a Args) Validate(accepted ...string) error {
	for k := range a {
		if !slices.Contains(accepted, k) {
			return errdefs.Invalidf("invalid filter '%s'", k)
		}
	}
	return nil
}

// Has says whether the key was given.
func (a Args) Has(key string) bool { return len(a[key]) > 0 }

// Exact says whether the key is absent or one of its values equals v.
func (a Args) Exact(key, v string) bool {
	return !a.Has(key) || slices.Contains(a[key], v)
}

// Match says whether the key is absent or one of its values is a regular
// expression that finds a place in v, as Docker's name and id filters do.
func (a Args) Match(key, v string) bool {
	if !a.Has(key) {
		return true
	}
	for _, pattern := range a[key] {
		if pattern == v {
			return true
		}
		if re, err := regexp.Compile(pattern); err == nil && re.MatchString(v) {
			return true
		}
	}
	return false
}

// Prefix says whether the key is absent or one of its values begins v.
func (a Args) Prefix(key, v string) bool {
	if !a.Has(key) {
		return true
	}
	return slices.ContainsFunc(a[key], func(p string) bool { return strings.HasPrefix(v, p) })
}

// Glob says whether the key is absent or one of its values matches v as a
// path.Match pattern.
func (a Args) Glob(key, v string) bool {
	if !a.Has(key) {
		return true
	}
	return slices.ContainsFunc(a[key], func(p string) bool {
		ok, err := path.Match(p, v)
		return err == nil && ok
	})
}

// Labels says whether labels satisfy every value of the key: "k" (present) or
// "k=v" (equal). With key "label!" use NotLabels.
func (a Args) Labels(key string, labels map[string]string) bool {
	for _, want := range a[key] {
		if !hasLabel(labels, want) {
			return false
		}
	}
	return true
}

// NotLabels says whether labels satisfy none of the key's values.
func (a Args) NotLabels(key string, labels map[string]string) bool {
	return !slices.ContainsFunc(a[key], func(w string) bool { return hasLabel(labels, w) })
}

func hasLabel(labels map[string]string, want string) bool {
	k, v, withValue := strings.Cut(want, "=")
	got, ok := labels[k]
	return ok && (!withValue || got == v)
}

// Bool reads the key as one boolean ("1", "true", "0", "false"); absent gives def.
func (a Args) Bool(key string, def bool) (bool, error) {
	if !a.Has(key) {
		return def, nil
	}
	var yes, no bool
	for _, v := range a[key] {
		switch strings.ToLower(v) {
		case "1", "true":
			yes = true
		case "0", "false":
			no = true
		default:
			return def, errdefs.Invalidf("invalid filter '%s=%s'", key, v)
		}
	}
	if yes == no {
		return def, errdefs.Invalidf("invalid filter '%s=%v'", key, a[key])
	}
	return yes, nil
}
