package formatting

import (
	"bytes"
	"encoding/json"
	"io"

	"sigs.k8s.io/yaml"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

// Inspected is one object of an inspect command: its Go value, whose field
// names templates may use, and the daemon's JSON.
type Inspected struct {
	Value any
	Raw   json.RawMessage
}

// Inspect prints objects: all of them as one JSON array (or YAML list), or each
// through a template. A template is tried on the Go value and then on the raw
// JSON, so that both spellings of a field work.
func Inspect(w io.Writer, format, output string, objects []Inspected) error {
	if format != "" && format != "json" && output == "" {
		for _, o := range objects {
			if err := inspectTemplate(w, format, o); err != nil {
				return err
			}
		}
		return nil
	}
	raws := make([]json.RawMessage, 0, len(objects))
	for _, o := range objects {
		raw, err := o.raw()
		if err != nil {
			return err
		}
		raws = append(raws, raw)
	}
	all, err := json.Marshal(raws)
	if err != nil {
		return err
	}
	switch {
	case output == "yaml":
		y, err := yaml.JSONToYAML(all)
		if err != nil {
			return err
		}
		_, err = w.Write(y)
		return err
	case output != "" && output != "json":
		return errdefs.Invalidf("invalid output %q: must be json or yaml", output)
	case format == "json" && output == "":
		_, err = w.Write(append(all, '\n'))
		return err
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, all, "", "    "); err != nil {
		return err
	}
	pretty.WriteByte('\n')
	_, err = w.Write(pretty.Bytes())
	return err
}

func (o Inspected) raw() (json.RawMessage, error) {
	if len(o.Raw) > 0 {
		return o.Raw, nil
	}
	return json.Marshal(o.Value)
}

func inspectTemplate(w io.Writer, format string, o Inspected) error {
	t, err := parse(format)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	err = t.Execute(&out, o.Value)
	if err != nil {
		raw, rerr := o.raw()
		if rerr != nil {
			return rerr
		}
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.UseNumber()
		var generic any
		if derr := dec.Decode(&generic); derr != nil {
			return derr
		}
		out.Reset()
		if gerr := t.Option("missingkey=error").Execute(&out, generic); gerr != nil {
			return errdefs.Invalidf("template parsing error: %w", err)
		}
	}
	out.WriteByte('\n')
	_, err = w.Write(out.Bytes())
	return err
}
