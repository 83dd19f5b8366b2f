package upstreams

import (
	"errors"
	"strings"
	"syscall"
)

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

// PortInUse is the reason of a BindDefect where another server has the port.
const PortInUse = "port in use"

// BindDefect says why the address that a setting names cannot be listened on.
func BindDefect(key, addr string, err error) Defect {
	d := Defect{Key: key, Member: addr, Reason: err.Error(), Want: "an address of this host and a free port"}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		d.Reason = errno.Error()
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		d.Reason, d.Want = PortInUse, "a free port, or the other server stopped"
	case errors.Is(err, syscall.EACCES):
		d.Want = "a port above 1023, or the capability CAP_NET_BIND_SERVICE"
	}
	return d
}

// maxPrintable bounds what one operator's value takes of a log line, in octets.
const maxPrintable = 256

// Printable is s for a log line or a terminal: octets outside printable ASCII
// as \DDD (RFC 4343 §2.1), and no longer than a line should be.
func Printable(s string) string {
	cut := len(s) > maxPrintable
	if cut {
		s = s[:maxPrintable]
	}
	out := escaped(s)
	if cut {
		out += "…"
	}
	return out
}

// escaped is s with octets outside printable ASCII as \DDD.
func escaped(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if c < ' ' || c > '~' {
			b.WriteString(octetEscape(c))
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}

func octetEscape(c byte) string {
	return `\` + string([]byte{'0' + c/100, '0' + c/10%10, '0' + c%10})
}
