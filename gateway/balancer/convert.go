package balancer

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf/btf"
)

// conversion copies values of a type from one layout into another, fields by their
// names. What the new layout has alone is 0, what the old one has alone is left out.
type conversion struct {
	size  int // of what it makes
	spans []span
}

// span is bytes that stay together. Those of rest, behind them in the old value, have
// to be 0, as the new one has no room for them.
type span struct{ to, from, size, rest int }

// spare is the name of fields that mean nothing.
const spare = "spare"

// errTooLarge is that a value does not fit into a field that is smaller now.
var errTooLarge = errors.New("a value is too large for its field")

// newConversion finds where the fields are. The error says which one means something
// else, so that nobody could copy it.
func newConversion(to, from btf.Type) (conversion, error) {
	size, err := btf.Sizeof(to)
	if err != nil {
		return conversion{}, err
	}
	c := conversion{size: size}
	err = c.add(to.TypeName(), span{}, to, from)
	return c, err
}

// add adds the spans of what begins at a place.
func (c *conversion) add(name string, at span, to, from btf.Type) error {
	switch is := btf.UnderlyingType(to).(type) {
	case *btf.Struct:
		if was, ok := btf.UnderlyingType(from).(*btf.Struct); ok {
			return c.addFields(name, at, is.Members, was.Members)
		}
	case *btf.Array:
		if was, ok := btf.UnderlyingType(from).(*btf.Array); ok {
			return c.addArray(name, at, is, was)
		}
	case *btf.Union: // whose bytes are the same thing in several ways
		if was, ok := btf.UnderlyingType(from).(*btf.Union); ok && was.Size == is.Size {
			c.join(span{to: at.to, from: at.from, size: int(is.Size)})
			return nil
		}
	case *btf.Int, *btf.Enum:
		return c.addNumber(name, at, to, from)
	}
	return fmt.Errorf("%s was %v and is %v", name, from, to)
}

func (c *conversion) addFields(name string, at span, is, was []btf.Member) error {
	old := map[string]btf.Member{}
	for _, m := range was {
		old[m.Name] = m
	}
	for _, m := range is {
		o, ok := old[m.Name]
		if !ok || m.Name == spare {
			continue
		}
		if m.Name == "" || m.BitfieldSize > 0 || o.BitfieldSize > 0 {
			return fmt.Errorf("%s has a field without a name or a place", name)
		}
		here := span{to: at.to + int(m.Offset.Bytes()), from: at.from + int(o.Offset.Bytes())}
		if err := c.add(name+"."+m.Name, here, m.Type, o.Type); err != nil {
			return err
		}
	}
	return nil
}

// addArray adds arrays of the same length, and texts of any.
func (c *conversion) addArray(name string, at span, is, was *btf.Array) error {
	size, err := btf.Sizeof(is.Type)
	if err != nil {
		return err
	}
	old, err := btf.Sizeof(was.Type)
	if err != nil {
		return err
	}
	least := int(min(is.Nelems, was.Nelems))
	_, number := btf.UnderlyingType(is.Type).(*btf.Int)
	switch {
	case is.Nelems != was.Nelems && (size != 1 || old != 1):
		return fmt.Errorf("%s had %d elements and has %d", name, was.Nelems, is.Nelems)
	case number && size == old:
		c.join(span{at.to, at.from, least * size, int(was.Nelems)*size - least*size})
		return nil
	}
	for i := range least {
		if err := c.add(name, span{to: at.to + i*size, from: at.from + i*old}, is.Type, was.Type); err != nil {
			return err
		}
	}
	return nil
}

// addNumber adds a number, whose lowest bytes are first in the memory of these hosts.
func (c *conversion) addNumber(name string, at span, to, from btf.Type) error {
	size, err := btf.Sizeof(to)
	if err != nil {
		return err
	}
	old, err := btf.Sizeof(from)
	if err != nil {
		return err
	}
	switch btf.UnderlyingType(from).(type) {
	case *btf.Int, *btf.Enum:
	default:
		return fmt.Errorf("%s was %v and is %v", name, from, to)
	}
	if size != old && (!counts(to) || !counts(from)) {
		return fmt.Errorf("%s had %d bytes and has %d", name, old, size)
	}
	c.join(span{at.to, at.from, min(size, old), max(0, old-size)})
	return nil
}

// counts tells whether a type is a number whose highest bytes may be 0: one without a
// sign, and not in the order of the wire.
func counts(t btf.Type) bool {
	i, ok := btf.UnderlyingType(t).(*btf.Int)
	return ok && i.Encoding == btf.Unsigned && !strings.HasPrefix(t.TypeName(), "__be")
}

// join adds a span, to the last one if they are together.
func (c *conversion) join(s span) {
	if n := len(c.spans); n > 0 {
		last := &c.spans[n-1]
		if last.rest == 0 && last.to+last.size == s.to && last.from+last.size == s.from {
			last.size, last.rest = last.size+s.size, s.rest
			return
		}
	}
	c.spans = append(c.spans, s)
}

// convert is a value in the new layout.
func (c *conversion) convert(from []byte) ([]byte, error) {
	to := make([]byte, c.size)
	for _, s := range c.spans {
		copy(to[s.to:s.to+s.size], from[s.from:])
		if !zero(from[s.from+s.size : s.from+s.size+s.rest]) {
			return nil, errTooLarge
		}
	}
	return to, nil
}

func zero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}
