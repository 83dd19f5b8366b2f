package upstreams

import (
	"errors"
	"strings"
	"time"
	"unicode"
)

// splitWord splits "word key=value …" into the word and its attributes.
func splitWord(text string) (word, attributes string) {
	text = strings.TrimSpace(text)
	if i := strings.IndexFunc(text, unicode.IsSpace); i >= 0 {
		return text[:i], text[i:]
	}
	return text, ""
}

var (
	errNotPair   = errors.New("not key=value")
	errAttribute = errors.New("unknown attribute")
)

// attributes hands each attribute of a text to set. One that set refuses is left
// out alone and becomes a defect of the text.
func (p *parser) attributes(text, attributes, want string, set func(attribute string) error) {
	for a := range strings.FieldsSeq(attributes) {
		if err := set(a); err != nil {
			p.bad(text, a+": "+err.Error(), want)
		}
	}
}

// timeAttribute is the set of texts that may have one attribute, a time.
func timeAttribute(name string, at *time.Time) func(attribute string) error {
	return func(attribute string) error {
		key, value, ok := strings.Cut(attribute, "=")
		switch {
		case !ok:
			return errNotPair
		case key != name:
			return errAttribute
		}
		t, err := time.Parse(time.RFC3339, value)
		if err != nil {
			return errors.New("not a time")
		}
		*at = t.UTC()
		return nil
	}
}

// withTime is the text that timeAttribute reads; the zero time is left out.
func withTime(word, name string, at time.Time) string {
	if at.IsZero() {
		return word
	}
	return word + " " + name + "=" + at.Format(time.RFC3339Nano)
}
