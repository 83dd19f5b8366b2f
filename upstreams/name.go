package upstreams

import (
	"errors"
	"strings"
)

const (
	maxLabel = 63  // octets of a label (RFC 1035 §2.3.4)
	maxName  = 255 // octets of a name in wire form
)

var (
	errEmptyName  = errors.New("empty name")
	errEmptyLabel = errors.New("empty label (a final dot, or two dots in a row)")
	errLongLabel  = errors.New("label longer than 63 octets")
	errLongName   = errors.New("name longer than 255 octets")
	errEscape     = errors.New(`bad escape, \DDD or \X expected`)
	errNameOctet  = errors.New("space or control character in a name")
)

// WireName is the uncompressed wire form of a name in presentation form, in
// lower case and with the root label at its end (RFC 1035 §3.1, RFC 4343). The
// text has no final dot. It is the form in which a snapshot keeps every name.
func WireName(text string) (string, error) {
	if text == "" {
		return "", errEmptyName
	}
	out := make([]byte, 1, len(text)+2)
	start := 0 // of the current label's length octet
	endLabel := func() error {
		n := len(out) - start - 1
		if n == 0 {
			return errEmptyLabel
		}
		if n > maxLabel {
			return errLongLabel
		}
		out[start] = byte(n)
		start = len(out)
		out = append(out, 0)
		return nil
	}
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '.':
			if err := endLabel(); err != nil {
				return "", err
			}
			continue
		case c == '\\':
			octet, n := unescape(text[i+1:])
			if n == 0 {
				return "", errEscape
			}
			i += n
			c = octet
		case c <= ' ' || c == 0x7f:
			return "", errNameOctet
		}
		out = append(out, lower(c))
	}
	if err := endLabel(); err != nil {
		return "", err
	}
	if len(out) > maxName {
		return "", errLongName
	}
	return string(out), nil
}

// wireNames are the wire forms of names, each with or without the final dot.
func wireNames(texts []string) ([]string, error) {
	out := make([]string, len(texts))
	for i, text := range texts {
		wire, err := WireName(trimDot(text))
		if err != nil {
			return nil, err
		}
		out[i] = wire
	}
	return out, nil
}

// unescape reads what follows a backslash: the octet and how much it took, 0
// where it is no escape.
func unescape(s string) (octet byte, n int) {
	if s == "" {
		return 0, 0
	}
	if s[0] < '0' || s[0] > '9' {
		return s[0], 1
	}
	if len(s) < 3 {
		return 0, 0
	}
	v := 0
	for _, d := range []byte(s[:3]) {
		if d < '0' || d > '9' {
			return 0, 0
		}
		v = v*10 + int(d-'0')
	}
	if v > 255 {
		return 0, 0
	}
	return byte(v), 3
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// NameText is the presentation form of a name in wire form, without the final
// dot; dots inside of labels and octets that do not print are escaped.
func NameText(wire string) string {
	var b strings.Builder
	for len(wire) > 0 && wire[0] != 0 {
		n := int(wire[0])
		if n >= len(wire) {
			break
		}
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		for _, c := range []byte(wire[1 : 1+n]) {
			switch {
			case c == '.' || c == '\\':
				b.WriteByte('\\')
				b.WriteByte(c)
			case c <= ' ' || c > '~':
				b.WriteString(octetEscape(c))
			default:
				b.WriteByte(c)
			}
		}
		wire = wire[1+n:]
	}
	return b.String()
}

// parent is the name without its first label; the root's is the root.
func parent(wire string) string {
	if len(wire) <= 1 {
		return wire
	}
	return wire[1+int(wire[0]):]
}

// labels counts the labels of a name in wire form, the root not counted.
func labels(wire string) int {
	n := 0
	for len(wire) > 1 {
		wire = parent(wire)
		n++
	}
	return n
}

// trimDot takes the final dot off a name in presentation form, unless the dot is
// escaped and so belongs to the last label.
func trimDot(s string) string {
	cut := strings.TrimSuffix(s, ".")
	if escapes := len(cut) - len(strings.TrimRight(cut, `\`)); escapes%2 == 1 {
		return s
	}
	return cut
}
