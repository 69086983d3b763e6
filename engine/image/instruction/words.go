package instruction

import (
	"strings"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

// lookup finds the value of a variable in a list of "k=v".
func lookup(env []string) func(string) string {
	return func(name string) string {
		for _, e := range env {
			if k, v, _ := strings.Cut(e, "="); k == name {
				return v
			}
		}
		return ""
	}
}

// words splits s at blanks outside of quotes, removes quotes and backslashes,
// and replaces variables except in single quotes.
func words(s string, vars func(string) string) ([]string, error) {
	l := lexer{in: s, vars: vars}
	var out []string
	for {
		l.skipBlanks()
		if l.pos == len(l.in) {
			return out, nil
		}
		w, err := l.word(true)
		if err != nil {
			return nil, err
		}
		out = append(out, w)
	}
}

// expand is words for one value in which blanks are part of it.
func expand(s string, vars func(string) string) (string, error) {
	l := lexer{in: s, vars: vars}
	return l.word(false)
}

type lexer struct {
	in   string
	pos  int
	vars func(string) string
}

func (l *lexer) skipBlanks() {
	for l.pos < len(l.in) && isBlank(l.in[l.pos]) {
		l.pos++
	}
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

func (l *lexer) word(untilBlank bool) (string, error) {
	var b strings.Builder
	for l.pos < len(l.in) {
		c := l.in[l.pos]
		switch {
		case untilBlank && isBlank(c):
			return b.String(), nil
		case c == '\'':
			end := strings.IndexByte(l.in[l.pos+1:], '\'')
			if end < 0 {
				return "", errdefs.Invalidf("unexpected end of statement while looking for matching single-quote")
			}
			b.WriteString(l.in[l.pos+1 : l.pos+1+end])
			l.pos += end + 2
		case c == '"':
			if err := l.doubleQuoted(&b); err != nil {
				return "", err
			}
		case c == '\\':
			if l.pos+1 < len(l.in) {
				b.WriteByte(l.in[l.pos+1])
			}
			l.pos += 2
		case c == '$':
			v, err := l.variable()
			if err != nil {
				return "", err
			}
			b.WriteString(v)
		default:
			b.WriteByte(c)
			l.pos++
		}
	}
	l.pos = min(l.pos, len(l.in))
	return b.String(), nil
}

func (l *lexer) doubleQuoted(b *strings.Builder) error {
	l.pos++
	for l.pos < len(l.in) {
		switch c := l.in[l.pos]; c {
		case '"':
			l.pos++
			return nil
		case '\\':
			if l.pos+1 < len(l.in) && strings.IndexByte(`"$\`, l.in[l.pos+1]) >= 0 {
				l.pos++
			}
			b.WriteByte(l.in[l.pos])
			l.pos++
		case '$':
			v, err := l.variable()
			if err != nil {
				return err
			}
			b.WriteString(v)
		default:
			b.WriteByte(c)
			l.pos++
		}
	}
	return errdefs.Invalidf("unexpected end of statement while looking for matching double-quote")
}

// variable reads $name, ${name}, ${name:-default} or ${name:+alternative}.
func (l *lexer) variable() (string, error) {
	l.pos++
	if l.pos < len(l.in) && l.in[l.pos] == '{' {
		end := strings.IndexByte(l.in[l.pos:], '}')
		if end < 0 {
			return "", errdefs.Invalidf("syntax error: missing '}'")
		}
		body := l.in[l.pos+1 : l.pos+end]
		l.pos += end + 1
		name, other := body, ""
		op := strings.Index(body, ":")
		if op >= 0 {
			name, other = body[:op], body[op+1:]
		}
		if !isName(name) {
			return "", errdefs.Invalidf("syntax error: bad substitution ${%s}", body)
		}
		v := l.vars(name)
		switch {
		case op < 0:
			return v, nil
		case strings.HasPrefix(other, "-"):
			if v == "" {
				v = other[1:]
			}
			return v, nil
		case strings.HasPrefix(other, "+"):
			if v != "" {
				v = other[1:]
			}
			return v, nil
		}
		return "", errdefs.Invalidf("unsupported modifier in substitution ${%s}", body)
	}
	start := l.pos
	for l.pos < len(l.in) && isNameByte(l.in[l.pos], l.pos > start) {
		l.pos++
	}
	if l.pos == start {
		return "$", nil
	}
	return l.vars(l.in[start:l.pos]), nil
}

func isName(s string) bool {
	for i := range len(s) {
		if !isNameByte(s[i], i > 0) {
			return false
		}
	}
	return s != ""
}

func isNameByte(c byte, digit bool) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || digit && c >= '0' && c <= '9'
}
