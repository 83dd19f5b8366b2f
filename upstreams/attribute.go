package upstreams

import (
	"errors"
	"strings"
	"time"
)

// splitWord splits "word key=value …" into the word and its attributes.
func splitWord(text string) (word string, attributes []string) {
	fields := strings.Fields(text)
	if len(fields) == 0 {
		return "", nil
	}
	return fields[0], fields[1:]
}

var (
	errNotPair   = errors.New("not key=value")
	errAttribute = errors.New("unknown attribute")
)

// attributes hands each attribute of a text to set. One that set refuses is left
// out alone and becomes a defect of the text; the errors are returned joined.
func (p *parser) attributes(text string, attributes []string, want string, set func(attribute string) error) error {
	var errs []error
	for _, a := range attributes {
		if err := set(a); err != nil {
			p.bad(text, a+": "+err.Error(), want)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
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
