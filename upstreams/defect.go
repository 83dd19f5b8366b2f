package upstreams

import "strings"

// Defect is one thing that an operator wrote and that cannot be used as it
// stands. It is left out alone: whatever is beside it keeps its meaning.
//
// In Redis Key is the key and Member the set member, hash field or value; in
// the configuration file Key is the path of the setting ("dns.listen[0]") and
// Member its value. Member is empty where the whole key is meant.
type Defect struct {
	Key    string `json:"key"`
	Member string `json:"member,omitempty"`
	Reason string `json:"reason"` // what is wrong
	Want   string `json:"want"`   // what would be right
}

// String is the defect on one line: key, member, reason, what would be right.
// Control characters are escaped.
func (d Defect) String() string {
	var b strings.Builder
	b.WriteString(Printable(d.Key))
	b.WriteString(": ")
	if d.Member != "" {
		b.WriteString(`"` + Printable(d.Member) + `": `)
	}
	b.WriteString(Printable(d.Reason))
	if d.Want != "" {
		b.WriteString("; want " + d.Want)
	}
	return b.String()
}

// Error makes a defect an error, so that a role can return from Run what the
// reader of the configuration can point at.
func (d Defect) Error() string { return d.String() }

// maxPrintable bounds what one operator's value takes of a log line, in octets.
const maxPrintable = 256

// Printable is s for a log line or a terminal: octets outside printable ASCII
// as \DDD (RFC 4343 §2.1), and no longer than a line should be.
func Printable(s string) string {
	cut := len(s) > maxPrintable
	if cut {
		s = s[:maxPrintable]
	}
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if c < ' ' || c > '~' {
			b.WriteString(octetEscape(c))
			continue
		}
		b.WriteByte(c)
	}
	if cut {
		b.WriteString("…")
	}
	return b.String()
}

func octetEscape(c byte) string {
	return `\` + string([]byte{'0' + c/100, '0' + c/10%10, '0' + c%10})
}
