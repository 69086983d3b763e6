package logs

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

// TestJSONIsDockers compares with the bytes that Docker's json-file writes.
func TestJSONIsDockers(t *testing.T) {
	at := time.Date(2026, 11, 23, 9, 26, 0, 120_000_000, time.UTC)
	for _, c := range []struct {
		e     Entry
		attrs map[string]string
		want  string
	}{
		{Entry{Time: at, Stream: Stdout, Line: []byte("hello")}, nil,
			`{"log":"hello\n","stream":"stdout","time":"2026-11-23T09:26:00.12Z"}` + "\n"},
		{Entry{Time: at.In(time.FixedZone("x", 3600)), Stream: Stderr, Line: []byte("part"), Partial: true}, nil,
			`{"log":"part","stream":"stderr","time":"2026-11-23T09:26:00.12Z"}` + "\n"},
		{Entry{Time: at, Stream: Stdout, Line: []byte("a<b>&\"\\\t\r\x01\xff\u2028é")}, map[string]string{"b": "2", "a": "1"},
			`{"log":"a\u003cb\u003e\u0026\"\\\t\r\u0001\ufffd\u2028é\n","stream":"stdout","attrs":{"a":"1","b":"2"},"time":"2026-11-23T09:26:00.12Z"}` + "\n"},
		{Entry{Time: at, Stream: Stdout}, nil, `{"log":"\n","stream":"stdout","time":"2026-11-23T09:26:00.12Z"}` + "\n"},
	} {
		if got := string(jsonFormat{}.append(nil, c.e, c.attrs)); got != c.want {
			t.Errorf("got  %swant %s", got, c.want)
		}
	}
}

func FuzzEscape(f *testing.F) {
	f.Add([]byte("plain"))
	f.Add([]byte("\x00\x1f\x7f\xc3\x28\u2029<>&\"\\"))
	f.Fuzz(func(t *testing.T, line []byte) {
		var got, want string
		if err := json.Unmarshal(append(appendEscaped([]byte{'"'}, line), '"'), &got); err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(string(line))
		if err == nil {
			err = json.Unmarshal(b, &want)
		}
		if err != nil || got != want {
			t.Fatalf("%q, want %q (%v)", got, want, err)
		}
	})
}

// FuzzRoundTrip: what is written is read back, in both formats.
func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("hello"), int64(1), false, false)
	f.Add([]byte{}, int64(1767323045600000000), true, true)
	f.Add([]byte("0000\xff\xfe\xfd"), int64(1), true, false)
	f.Fuzz(func(t *testing.T, line []byte, nano int64, stderr, partial bool) {
		e := Entry{Time: time.Unix(0, nano).UTC(), Stream: Stdout, Line: line, Partial: partial}
		if stderr {
			e.Stream = Stderr
		}
		for _, format := range []format{localFormat{}, jsonFormat{}} {
			want := line
			if format == (jsonFormat{}) {
				want = []byte(string([]rune(string(line)))) // each bad byte is one U+FFFD
				if partial && bytes.HasSuffix(line, []byte("\n")) || e.Time.Year() < 1 || e.Time.Year() > 9999 {
					continue // Docker's format cannot say these
				}
			}
			b := format.append(nil, e, nil)
			var got Entry
			n, err := format.decode(b, &got)
			if err != nil || n != len(b) || !bytes.Equal(got.Line, want) || !got.Time.Equal(e.Time) || got.Stream != e.Stream || got.Partial != partial {
				t.Fatalf("%T: %+v (%d of %d, %v)", format, got, n, len(b), err)
			}
			w := &window{r: bytes.NewReader(b)}
			if start, part, err := format.prev(w, int64(len(b))); err != nil || start != 0 || part != partial {
				t.Fatalf("%T backwards: %d, %v, %v", format, start, part, err)
			}
		}
	})
}

// FuzzScanner: any bytes are read to their end without panic, and the good
// record behind damage is found.
func FuzzScanner(f *testing.F) {
	good := Entry{Time: t0, Stream: Stdout, Line: []byte("good")}
	f.Add([]byte{})
	f.Add([]byte("{\"log\":\n"))
	f.Add([]byte{0xce, 0, 0, 9, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add(localFormat{}.append(nil, good, nil)[:20])
	f.Add(bytes.Repeat([]byte{0}, 4096))
	f.Fuzz(func(t *testing.T, junk []byte) {
		for _, format := range []format{localFormat{}, jsonFormat{}} {
			data := bytes.Clone(junk)
			if format == (jsonFormat{}) {
				data = append(data, '\n')
			}
			data = format.append(data, good, nil)
			s := newScanner(bytes.NewReader(data), format)
			found := false
			var e Entry
			for {
				err := s.next(&e)
				if errors.Is(err, io.EOF) {
					if !s.skipDamage() {
						break
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				found = found || string(e.Line) == "good"
			}
			if !found {
				t.Fatalf("%T: the record behind the damage was not found", format)
			}
			if s.off > int64(len(data)) {
				t.Fatalf("%T: read %d of %d bytes", format, s.off, len(data))
			}
			if _, err := format.boundary(bytes.NewReader(junk), int64(len(junk))); err != nil {
				t.Fatal(err)
			}
			w := &window{r: bytes.NewReader(junk)}
			_, _, _ = format.prev(w, int64(len(junk))) // must not panic
		}
	})
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		driver string
		opts   map[string]string
		want   string
	}{
		{"", nil, ""},
		{"local", map[string]string{"max-size": "10m", "max-file": "2", "compress": "false", "mode": "non-blocking", "max-buffer-size": "4m", "tag": "x"}, ""},
		{"json-file", map[string]string{"max-size": "-1", "labels": "a,b", "env": "c"}, ""},
		{"none", map[string]string{"anything": "goes"}, ""},
		{"syslog", nil, "logger: no log driver named 'syslog' is registered"},
		{"json-file", map[string]string{"foo": "1"}, "unknown log opt 'foo' for json-file log driver"},
		{"local", map[string]string{"foo": "1"}, "unknown log opt 'foo' for log driver local"},
		{"json-file", map[string]string{"max-file": "0"}, "max-file cannot be less than 1"},
		{"json-file", map[string]string{"max-file": "x"}, "max-file"},
		{"json-file", map[string]string{"max-size": "0"}, "max-size must be a positive number"},
		{"json-file", map[string]string{"max-size": "big"}, "max-size"},
		{"json-file", map[string]string{"compress": "true", "max-file": "1"}, "compress cannot be true when max-file is less than 2 or max-size is not set"},
		{"json-file", map[string]string{"compress": "perhaps"}, "compress"},
		{"local", map[string]string{"mode": "fast"}, "logger: logging mode not supported: fast"},
		{"local", map[string]string{"max-buffer-size": "1m"}, "logger: max-buffer-size option is only supported with 'mode=non-blocking'"},
		{"local", map[string]string{"mode": "non-blocking", "max-buffer-size": "x"}, "error parsing option max-buffer-size"},
	} {
		err := Validate(c.driver, c.opts)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %v: %v, want %q", c.driver, c.opts, err, c.want)
		}
	}
}
