// Package instruction applies single Dockerfile instructions to an image's
// configuration, as `docker commit --change` and `docker import --change` take
// them: CMD ENTRYPOINT ENV EXPOSE HEALTHCHECK LABEL ONBUILD SHELL STOPSIGNAL USER
// VOLUME WORKDIR. engine/image uses it. It is pure.
package instruction

import (
	"encoding/json"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

// Apply applies the instructions in order to cfg.
func Apply(cfg *container.Config, lines []string) error {
	for _, line := range lines {
		for _, l := range strings.Split(line, "\n") {
			if l = strings.TrimSpace(l); l == "" || strings.HasPrefix(l, "#") {
				continue
			}
			if err := one(cfg, l); err != nil {
				return err
			}
		}
	}
	return nil
}

func one(cfg *container.Config, line string) error {
	word, rest := line, ""
	if i := strings.IndexAny(line, " \t"); i >= 0 {
		word, rest = line[:i], strings.TrimSpace(line[i:])
	}
	name := strings.ToUpper(word)
	f, ok := table()[name]
	if !ok {
		return errdefs.Invalidf("%s is not a valid change command", strings.ToLower(word))
	}
	if rest == "" && name != "CMD" && name != "ENTRYPOINT" {
		return errdefs.Invalidf("%s requires at least one argument", name)
	}
	return f(cfg, rest)
}

func table() map[string]func(*container.Config, string) error {
	return map[string]func(*container.Config, string) error{
		"CMD": cmd, "ENTRYPOINT": entrypoint, "ENV": env, "EXPOSE": expose, "HEALTHCHECK": healthcheck,
		"LABEL": label, "ONBUILD": onbuild, "SHELL": shell, "STOPSIGNAL": stopSignal, "USER": user,
		"VOLUME": volume, "WORKDIR": workdir,
	}
}

// command reads the exec form (a JSON list) or the shell form.
func command(cfg *container.Config, rest string) []string {
	if list, ok := jsonList(rest); ok {
		return list
	}
	if rest == "" {
		return []string{}
	}
	sh := cfg.Shell
	if len(sh) == 0 {
		sh = []string{"/bin/sh", "-c"}
	}
	return append(slices.Clone(sh), rest)
}

func jsonList(s string) ([]string, bool) {
	if !strings.HasPrefix(s, "[") {
		return nil, false
	}
	var list []string
	if err := json.Unmarshal([]byte(s), &list); err != nil {
		return nil, false
	}
	if list == nil {
		list = []string{}
	}
	return list, true
}

func cmd(cfg *container.Config, rest string) error {
	cfg.Cmd = command(cfg, rest)
	cfg.ArgsEscaped = false
	return nil
}

func entrypoint(cfg *container.Config, rest string) error {
	cfg.Entrypoint = command(cfg, rest)
	return nil
}

func shell(cfg *container.Config, rest string) error {
	list, ok := jsonList(rest)
	if !ok || len(list) == 0 {
		return errdefs.Invalidf("SHELL requires the arguments to be in JSON form")
	}
	cfg.Shell = list
	return nil
}

func env(cfg *container.Config, rest string) error {
	pairs, err := keyValues("ENV", rest, lookup(cfg.Env))
	if err != nil {
		return err
	}
	for _, p := range pairs {
		kv := p[0] + "=" + p[1]
		at := slices.IndexFunc(cfg.Env, func(e string) bool {
			k, _, _ := strings.Cut(e, "=")
			return k == p[0]
		})
		if at >= 0 {
			cfg.Env = slices.Clone(cfg.Env)
			cfg.Env[at] = kv
		} else {
			cfg.Env = append(cfg.Env, kv)
		}
	}
	return nil
}

func label(cfg *container.Config, rest string) error {
	pairs, err := keyValues("LABEL", rest, lookup(cfg.Env))
	if err != nil {
		return err
	}
	labels := maps.Clone(cfg.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	for _, p := range pairs {
		labels[p[0]] = p[1]
	}
	cfg.Labels = labels
	return nil
}

// keyValues reads `k=v k2="v 2"`, or the old form `k v with spaces`.
func keyValues(name, rest string, vars func(string) string) ([][2]string, error) {
	list, err := words(rest, vars)
	if err != nil {
		return nil, err
	}
	first, _ := splitFirst(rest)
	if !strings.Contains(first, "=") {
		if len(list) < 2 {
			return nil, errdefs.Invalidf("%s must have two arguments", name)
		}
		_, value := splitFirst(rest)
		v, err := expand(value, vars)
		return [][2]string{{list[0], v}}, err
	}
	var out [][2]string
	for _, w := range list {
		k, v, ok := strings.Cut(w, "=")
		if !ok {
			return nil, errdefs.Invalidf("Syntax error - can't find = in %q. Must be of the form: name=value", w)
		}
		if k == "" {
			return nil, errdefs.Invalidf("%s names can not be blank", name)
		}
		out = append(out, [2]string{k, v})
	}
	return out, nil
}

func splitFirst(s string) (string, string) {
	if i := strings.IndexAny(s, " \t"); i >= 0 {
		return s[:i], strings.TrimSpace(s[i:])
	}
	return s, ""
}

func expose(cfg *container.Config, rest string) error {
	list, err := words(rest, lookup(cfg.Env))
	if err != nil {
		return err
	}
	ports := maps.Clone(cfg.ExposedPorts)
	if ports == nil {
		ports = network.PortSet{}
	}
	for _, w := range list {
		r, err := network.ParsePortRange(w)
		if err != nil {
			return errdefs.Invalidf("invalid containerPort: %s", w)
		}
		for p := range r.All() {
			ports[p] = struct{}{}
		}
	}
	cfg.ExposedPorts = ports
	return nil
}

func healthcheck(cfg *container.Config, rest string) error {
	h := &container.HealthConfig{}
	for strings.HasPrefix(rest, "--") {
		var flag string
		flag, rest = splitFirst(rest)
		if err := healthFlag(h, flag); err != nil {
			return err
		}
	}
	kind, test := splitFirst(rest)
	switch strings.ToUpper(kind) {
	case "NONE":
		if test != "" {
			return errdefs.Invalidf("HEALTHCHECK NONE takes no arguments")
		}
		cfg.Healthcheck = &container.HealthConfig{Test: []string{"NONE"}}
		return nil
	case "CMD":
		if test == "" {
			return errdefs.Invalidf("missing command after HEALTHCHECK CMD")
		}
		if list, ok := jsonList(test); ok {
			h.Test = append([]string{"CMD"}, list...)
		} else {
			h.Test = []string{"CMD-SHELL", test}
		}
		cfg.Healthcheck = h
		return nil
	}
	return errdefs.Invalidf("unknown type %q in HEALTHCHECK (try CMD)", kind)
}

func healthFlag(h *container.HealthConfig, flag string) error {
	name, value, _ := strings.Cut(strings.TrimPrefix(flag, "--"), "=")
	if name == "retries" {
		n, err := strconv.Atoi(value)
		if err != nil || n < 0 {
			return errdefs.Invalidf("--retries must be at least 0 (not %q)", value)
		}
		h.Retries = n
		return nil
	}
	targets := map[string]*time.Duration{
		"interval": &h.Interval, "timeout": &h.Timeout, "start-period": &h.StartPeriod, "start-interval": &h.StartInterval,
	}
	target, ok := targets[name]
	if !ok {
		return errdefs.Invalidf("unknown flag: --%s", name)
	}
	d, err := time.ParseDuration(value)
	if err != nil || d < 0 || d > 0 && d < container.MinimumDuration {
		return errdefs.Invalidf("interval %q of --%s cannot be less than %s", value, name, container.MinimumDuration)
	}
	*target = d
	return nil
}

func onbuild(cfg *container.Config, rest string) error {
	word, _ := splitFirst(rest)
	switch strings.ToUpper(word) {
	case "ONBUILD":
		return errdefs.Invalidf("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
	case "MAINTAINER", "FROM":
		return errdefs.Invalidf("%s isn't allowed as an ONBUILD trigger", strings.ToUpper(word))
	}
	cfg.OnBuild = append(slices.Clone(cfg.OnBuild), rest)
	return nil
}

func single(name, rest string, cfg *container.Config) (string, error) {
	list, err := words(rest, lookup(cfg.Env))
	if err != nil {
		return "", err
	}
	if len(list) != 1 {
		return "", errdefs.Invalidf("%s requires exactly one argument", name)
	}
	return list[0], nil
}

func stopSignal(cfg *container.Config, rest string) (err error) {
	cfg.StopSignal, err = single("STOPSIGNAL", rest, cfg)
	return err
}

func user(cfg *container.Config, rest string) (err error) {
	cfg.User, err = single("USER", rest, cfg)
	return err
}

func workdir(cfg *container.Config, rest string) error {
	dir, err := expand(rest, lookup(cfg.Env))
	if err != nil {
		return err
	}
	if !path.IsAbs(dir) {
		dir = path.Join("/", cfg.WorkingDir, dir)
	}
	cfg.WorkingDir = path.Clean(dir)
	return nil
}

func volume(cfg *container.Config, rest string) error {
	list, ok := jsonList(rest)
	if !ok {
		var err error
		if list, err = words(rest, lookup(cfg.Env)); err != nil {
			return err
		}
	}
	volumes := maps.Clone(cfg.Volumes)
	if volumes == nil {
		volumes = map[string]struct{}{}
	}
	for _, v := range list {
		if v = strings.TrimSpace(v); v == "" {
			return errdefs.Invalidf("VOLUME specified can not be an empty string")
		}
		volumes[v] = struct{}{}
	}
	cfg.Volumes = volumes
	return nil
}
