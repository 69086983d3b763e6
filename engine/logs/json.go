package logs

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"time"
	"unicode/utf8"
)

// jsonFormat is Docker's: one JSON object a line, whose log ends with a
// newline unless it is a part.
type jsonFormat struct{}

// jsonMax bounds a record: a byte takes at most six, attributes come on top.
const jsonMax = 8 * maxLine

func (jsonFormat) ext() string { return ".json" }

func (jsonFormat) append(b []byte, e Entry, attrs map[string]string) []byte {
	b = append(b, `{"log":"`...)
	b = appendEscaped(b, e.Line)
	if !e.Partial {
		b = append(b, `\n`...)
	}
	b = append(b, `","stream":"`...)
	if e.Stream == Stderr {
		b = append(b, "stderr"...)
	} else {
		b = append(b, "stdout"...)
	}
	b = append(b, '"')
	for i, k := range slices.Sorted(maps.Keys(attrs)) {
		if i == 0 {
			b = append(b, `,"attrs":{"`...)
		} else {
			b = append(b, `,"`...)
		}
		b = appendEscaped(b, []byte(k))
		b = append(b, `":"`...)
		b = appendEscaped(b, []byte(attrs[k]))
		b = append(b, '"')
	}
	if len(attrs) > 0 {
		b = append(b, '}')
	}
	b = append(b, `,"time":"`...)
	b = e.Time.UTC().AppendFormat(b, time.RFC3339Nano)
	return append(b, "\"}\n"...)
}

const hex = "0123456789abcdef"

// appendEscaped adds s as the inside of a JSON string, escaping what Docker
// escapes; what is no UTF-8 becomes U+FFFD.
func appendEscaped(b, s []byte) []byte {
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRune(s[i:])
			switch {
			case r == utf8.RuneError && n == 1:
				b = append(b, `\ufffd`...)
			case r == '\u2028' || r == '\u2029':
				b = append(b, `\u202`...)
				b = append(b, hex[r&15])
			default:
				b = append(b, s[i:i+n]...)
			}
			i += n
			continue
		}
		i++
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, '\\', 'n')
		case c == '\r':
			b = append(b, '\\', 'r')
		case c == '\t':
			b = append(b, '\\', 't')
		case c < ' ' || c == '<' || c == '>' || c == '&':
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			b = append(b, c)
		}
	}
	return b
}

type jsonRecord struct {
	Log    *string           `json:"log"`
	Stream string            `json:"stream"`
	Attrs  map[string]string `json:"attrs"`
	Time   time.Time         `json:"time"`
}

func (jsonFormat) decode(b []byte, e *Entry) (int, error) {
	i := bytes.IndexByte(b, '\n')
	if i < 0 {
		if len(b) > jsonMax {
			return len(b), errCorrupt
		}
		return 0, errShort
	}
	var rec jsonRecord
	if err := json.Unmarshal(b[:i], &rec); err != nil || rec.Log == nil {
		return i + 1, errCorrupt
	}
	line, whole := bytes.CutSuffix([]byte(*rec.Log), []byte("\n"))
	*e = Entry{Time: rec.Time, Stream: Stdout, Line: line, Partial: !whole, Attrs: rec.Attrs}
	if rec.Stream == "stderr" {
		e.Stream = Stderr
	}
	return i + 1, nil
}

func (f jsonFormat) prev(w *window, end int64) (int64, bool, error) {
	for from := max(0, end-256); ; from = max(0, from-block) {
		b, err := w.bytes(from, end)
		if err != nil {
			return 0, false, err
		}
		if len(b) == 0 || b[len(b)-1] != '\n' {
			return 0, false, errCorrupt
		}
		i := bytes.LastIndexByte(b[:len(b)-1], '\n')
		if i < 0 && from > 0 {
			if len(b) > jsonMax {
				return 0, false, errCorrupt
			}
			continue
		}
		var e Entry
		if _, err := f.decode(b[i+1:], &e); err != nil {
			return 0, false, errCorrupt
		}
		return from + int64(i+1), e.Partial, nil
	}
}

func (jsonFormat) boundary(r io.ReaderAt, size int64) (int64, error) {
	w := &window{r: r}
	for end := size; end > 0; {
		from := max(0, end-block)
		b, err := w.bytes(from, end)
		if err != nil {
			return 0, errors.Join(errCorrupt, err)
		}
		if i := bytes.LastIndexByte(b, '\n'); i >= 0 {
			return from + int64(i+1), nil
		}
		end = from
	}
	return 0, nil
}
