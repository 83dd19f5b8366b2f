package upstreams

import (
	"slices"
	"strconv"
	"strings"
)

// defaultFloor is the FLOOR of a zone that does not say.
const defaultFloor = 0.5

// OnEmpty is what is answered where health leaves too little of a pool: below
// FLOOR, health is ignored or obeyed to the end.
type OnEmpty string

// The values of ON_EMPTY.
const (
	OnEmptyOpen   OnEmpty = "open"   // answer from the unhealthy too
	OnEmptyClosed OnEmpty = "closed" // answer from the healthy alone, no data without any
)

func (p *parser) onEmpty(text string) (OnEmpty, bool) {
	v := OnEmpty(text)
	if v != OnEmptyOpen && v != OnEmptyClosed {
		p.bad("ON_EMPTY "+text, "unknown", "open or closed")
		return "", false
	}
	return v, true
}

// floor reads a share from 0 to 1. The result is a pointer because 0 is a share
// too.
func (p *parser) floor(text string) (*float64, bool) {
	f, err := strconv.ParseFloat(text, 64)
	// The library also reads signs, exponents, hexadecimal and NaN.
	if err != nil || f > 1 || strings.Trim(text, "0123456789.") != "" {
		p.bad("FLOOR "+text, "not a share", "0 to 1, such as 0.5")
		return nil, false
	}
	return &f, true
}

// alpn reads protocol ids separated by commas (RFC 9460 §7.1.1), each of 1 to 255
// octets (RFC 7301 §3.1). An id with a comma or a backslash in it cannot be
// written, as the RFC allows.
func (p *parser) alpn(text string) ([]string, bool) {
	var out []string
	for id := range strings.SplitSeq(text, ",") {
		id = strings.TrimSpace(id)
		if len(id) < 1 || len(id) > 255 || strings.ContainsFunc(id, notInALPN) {
			p.bad("ALPN "+text, "not a list of protocol ids", "ids of 1 to 255 octets separated by commas, such as h2,h3")
			return nil, false
		}
		if !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	return out, true
}

func notInALPN(r rune) bool { return r <= ' ' || r == 0x7f || r == '\\' }
