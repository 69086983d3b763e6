package container

import (
	"regexp"
	"strings"
	"text/template"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

// logAttrs are the labels, variables and tag that the options select.
func logAttrs(r *record) (map[string]string, error) {
	opts := r.HostConfig.LogConfig.Config
	attrs := map[string]string{}
	if err := selectAttrs(attrs, r.Config.Labels, opts["labels"], opts["labels-regex"]); err != nil {
		return nil, err
	}
	if opts["env"] != "" || opts["env-regex"] != "" {
		env := map[string]string{}
		for _, e := range r.Config.Env {
			k, v, _ := strings.Cut(e, "=")
			env[k] = v
		}
		if err := selectAttrs(attrs, env, opts["env"], opts["env-regex"]); err != nil {
			return nil, err
		}
	}
	if tag := opts["tag"]; tag != "" {
		text, err := logTag(tag, r)
		if err != nil {
			return nil, err
		}
		attrs["tag"] = text
	}
	if len(attrs) == 0 {
		return nil, nil
	}
	return attrs, nil
}

func selectAttrs(to, from map[string]string, names, pattern string) error {
	for name := range strings.SplitSeq(names, ",") {
		if v, ok := from[name]; ok {
			to[name] = v
		}
	}
	if pattern == "" {
		return nil
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return errdefs.Invalidf("invalid log option %q: %v", pattern, err)
	}
	for k, v := range from {
		if re.MatchString(k) {
			to[k] = v
		}
	}
	return nil
}

// tagValues are what a tag's template can name, as Docker's.
type tagValues struct {
	ID, FullID, Name, ImageName, ImageID, ImageFullID, DaemonName string
}

func logTag(tag string, r *record) (string, error) {
	t, err := template.New("tag").Parse(tag)
	if err != nil {
		return "", errdefs.Invalidf("invalid log option tag: %v", err)
	}
	v := tagValues{
		ID: r.ID[:12], FullID: r.ID, Name: r.Name, ImageName: r.Config.Image,
		ImageFullID: r.Image.String(), ImageID: r.Image.Encoded(), DaemonName: "docker",
	}
	if len(v.ImageID) > 12 {
		v.ImageID = v.ImageID[:12]
	}
	var b strings.Builder
	if err := t.Execute(&b, v); err != nil {
		return "", errdefs.Invalidf("invalid log option tag: %v", err)
	}
	return b.String(), nil
}
