package shim

import (
	"strings"
	"testing"
	"time"

	"github.com/cleatlabs/cleat/engine/logs"
)

func split(chunks ...string) []string {
	var got []string
	s := splitter{stream: logs.Stdout, emit: func(e logs.Entry) {
		line := string(e.Line)
		if e.Partial {
			line += "+"
		}
		got = append(got, line)
	}}
	for _, c := range chunks {
		s.write(time.Time{}, []byte(c))
	}
	s.flush(time.Time{})
	return got
}

func TestSplitter(t *testing.T) {
	long := strings.Repeat("x", maxLine)
	for name, c := range map[string]struct{ in, want []string }{
		"lines":                 {[]string{"a\nb\n"}, []string{"a", "b"}},
		"empty lines":           {[]string{"\n\na\n"}, []string{"", "", "a"}},
		"across chunks":         {[]string{"a", "b", "c\nd"}, []string{"abc", "d"}},
		"newline alone":         {[]string{"a", "\n"}, []string{"a"}},
		"exactly full":          {[]string{long, "\n"}, []string{long}},
		"exactly full, no end":  {[]string{long}, []string{long}},
		"one more":              {[]string{long + "y\n"}, []string{long + "+", "y"}},
		"long in small chunks":  {[]string{long[:10], long[:maxLine-10], "yz", "\n"}, []string{long + "+", "yz"}},
		"twice as long":         {[]string{long + long + "\n"}, []string{long + "+", long}},
		"nothing":               {nil, nil},
		"chunk ends at newline": {[]string{"ab\n", "cd\n"}, []string{"ab", "cd"}},
	} {
		got := split(c.in...)
		if strings.Join(got, "|") != strings.Join(c.want, "|") {
			t.Errorf("%s: %d entries %.40q", name, len(got), got)
		}
	}
}

// FuzzSplitter: whatever the chunks, the text comes out again, in entries of
// bounded length.
func FuzzSplitter(f *testing.F) {
	f.Add("a\nbc", 1)
	f.Add(strings.Repeat("x", maxLine+1)+"\n", 1000)
	f.Fuzz(func(t *testing.T, text string, step int) {
		if step <= 0 {
			step = 1
		}
		var chunks []string
		for rest := text; rest != ""; {
			n := min(step, len(rest))
			chunks = append(chunks, rest[:n])
			rest = rest[n:]
		}
		var out strings.Builder
		s := splitter{emit: func(e logs.Entry) {
			if len(e.Line) > maxLine {
				t.Errorf("entry of %d bytes", len(e.Line))
			}
			out.Write(e.Line)
			if !e.Partial {
				out.WriteByte('\n')
			}
		}}
		for _, c := range chunks {
			s.write(time.Time{}, []byte(c))
		}
		s.flush(time.Time{})
		if got := strings.TrimSuffix(out.String(), "\n"); got != strings.TrimSuffix(text, "\n") {
			t.Errorf("%d bytes came out as %d", len(text), len(got))
		}
	})
}
