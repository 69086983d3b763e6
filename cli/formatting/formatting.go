// Package formatting prints lists and objects the way docker does: tables,
// Go templates (`--format`), JSON and YAML (`-o`), and quiet lists of names.
//
// A row is a struct whose exported fields (and methods with arguments, as
// Label) are what templates may name; fields are in alphabetical order, which
// is the order of docker's JSON. All values of a row are strings already in
// the form that people read.
package formatting

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"
	"text/tabwriter"
	"text/template"

	"github.com/docker/cli/templates"
	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

// Header maps fields to column titles.
type Header map[string]string

// Label is the title of a column `{{.Label "a.b"}}`.
func (h Header) Label(name string) string {
	last := name[strings.LastIndexByte(name, '.')+1:]
	return strings.NewReplacer("-", " ", "_", " ").Replace(last)
}

// List is what a listing command prints.
type List struct {
	// Format is the user's --format; empty means Table.
	Format string
	// Output is the user's -o: json or yaml print Objects.
	Output string
	// Quiet prints only what QuietFormat says.
	Quiet       bool
	QuietFormat string
	// Table is the template of the default table, without the word table.
	Table  string
	Header Header
	Rows   []any
	// Objects are the API's own objects, for -o.
	Objects any
}

// Flags are the output flags that listing commands have in common.
type Flags struct {
	Format  string
	Output  string
	Quiet   bool
	NoTrunc bool
}

const formatHelp = `Format output using a custom template:
'table':            Print output in table format with column headers (default)
'table TEMPLATE':   Print output in table format using the given Go template
'json':             Print one JSON object a line
'TEMPLATE':         Print output using the given Go template`

// AddList adds --format, -o, -q and --no-trunc.
func (f *Flags) AddList(fs *pflag.FlagSet, what string) {
	f.AddFormat(fs)
	f.AddOutput(fs)
	fs.BoolVarP(&f.Quiet, "quiet", "q", false, "Only display "+what)
	fs.BoolVar(&f.NoTrunc, "no-trunc", false, "Don't truncate output")
}

// AddFormat adds --format.
func (f *Flags) AddFormat(fs *pflag.FlagSet) { fs.StringVar(&f.Format, "format", "", formatHelp) }

// AddOutput adds -o.
func (f *Flags) AddOutput(fs *pflag.FlagSet) {
	fs.StringVarP(&f.Output, "output", "o", "", `Print the daemon's objects as "json" or "yaml"`)
}

// Print writes the list.
func (l List) Print(w io.Writer) error {
	if l.Output != "" {
		return Object(w, l.Output, l.Objects)
	}
	format := l.Format
	if l.Quiet && (format == "" || format == "table") {
		format = l.QuietFormat
	}
	switch {
	case format == "" || format == "table":
		return l.table(w, l.Table)
	case format == "json":
		return l.lines(w, "{{json .}}")
	case format == "raw":
		return l.raw(w)
	case strings.HasPrefix(format, "table "):
		return l.table(w, strings.TrimSpace(strings.TrimPrefix(format, "table ")))
	default:
		return l.lines(w, format)
	}
}

func escapes(s string) string { return strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(s) }

func parse(text string) (*template.Template, error) {
	t, err := templates.Parse(escapes(text))
	if err != nil {
		return nil, errdefs.Invalidf("template parsing error: %w", err)
	}
	return t, nil
}

func (l List) table(w io.Writer, text string) error {
	t, err := parse(text)
	if err != nil {
		return err
	}
	tw := tabwriter.NewWriter(w, 10, 1, 3, ' ', 0)
	head, err := templates.New("").Funcs(templates.HeaderFunctions).Parse(escapes(text))
	if err != nil {
		return errdefs.Invalidf("template parsing error: %w", err)
	}
	var line bytes.Buffer
	if err := head.Execute(&line, l.Header); err != nil {
		return errdefs.Invalidf("template parsing error: %w", err)
	}
	// Unknown fields of the header are those that have no title.
	fmt.Fprintln(tw, strings.ReplaceAll(line.String(), "<no value>", ""))
	if err := l.execute(tw, t); err != nil {
		return err
	}
	return tw.Flush()
}

func (l List) lines(w io.Writer, text string) error {
	t, err := parse(text)
	if err != nil {
		return err
	}
	return l.execute(w, t)
}

func (l List) execute(w io.Writer, t *template.Template) error {
	var line bytes.Buffer
	for _, row := range l.Rows {
		line.Reset()
		if err := t.Execute(&line, row); err != nil {
			return errdefs.Invalidf("template parsing error: %w", err)
		}
		line.WriteByte('\n')
		if _, err := w.Write(line.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

// raw prints every field on a line of its own.
func (l List) raw(w io.Writer) error {
	for _, row := range l.Rows {
		v := reflect.Indirect(reflect.ValueOf(row))
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() {
				fmt.Fprintf(w, "%s: %v\n", strings.ToLower(f.Name), v.Field(i).Interface())
			}
		}
		if _, err := fmt.Fprintln(w); err != nil {
			return err
		}
	}
	return nil
}

// Object prints one value as json (indented) or yaml.
func Object(w io.Writer, output string, v any) error {
	switch output {
	case "json":
		return JSON(w, v)
	case "yaml":
		b, err := yaml.Marshal(v)
		if err != nil {
			return err
		}
		_, err = w.Write(b)
		return err
	default:
		return errdefs.Invalidf("invalid output %q: must be json or yaml", output)
	}
}

// JSON prints v indented, without escaping <, > and &.
func JSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "    ")
	return enc.Encode(v)
}

// Template executes a user's template on one value; "json" prints it compact.
func Template(w io.Writer, text string, v any) error {
	if text == "json" {
		text = "{{json .}}"
	}
	t, err := parse(text)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, v); err != nil {
		return errdefs.Invalidf("template parsing error: %w", err)
	}
	b.WriteByte('\n')
	_, err = w.Write(b.Bytes())
	return err
}
