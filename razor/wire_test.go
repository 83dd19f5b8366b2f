package razor

import (
	"encoding/binary"
	"strings"

	"github.com/miekg/dns"
)

// Messages of the tests are written as what is on the wire, piece by piece, so
// that also those can be said that no library would make.

// testID is the id of every message made here.
const testID = 0x1234

// The flags of a header (RFC 1035 §4.1.1).
const (
	bitQR = 1 << 15
	bitAA = 1 << 10
	bitTC = 1 << 9
	bitRD = 1 << 8
	bitRA = 1 << 7
	bitZ  = 1 << 6
	bitAD = 1 << 5
	bitCD = 1 << 4
)

// u16 is numbers of 16 bits in network order.
func u16(numbers ...int) string {
	var b []byte
	for _, n := range numbers {
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	}
	return string(b)
}

func opcode(n int) int { return n << 11 }

func header(flags, qd, an, ns, ar int) string { return u16(testID, flags, qd, an, ns, ar) }

// label is one label, without what ends a name.
func label(s string) string { return string([]byte{byte(len(s))}) + s }

// labels is a name in wire form.
func labels(ls ...string) string {
	var b strings.Builder
	for _, l := range ls {
		b.WriteString(label(l))
	}
	return b.String() + "\x00"
}

// name is labels of a name with dots and without escapes; "." is the root.
func name(text string) string {
	if text == "." {
		return "\x00"
	}
	return labels(strings.Split(text, ".")...)
}

// pointer is a compression pointer.
func pointer(to int) string { return u16(0xc000 | to) }

func question(n string, qtype uint16, qclass int) string { return n + u16(int(qtype), qclass) }

func resource(owner string, rrtype uint16, class int, rdata string) string {
	return owner + u16(int(rrtype), class, 0, 0, len(rdata)) + rdata
}

// opt is an OPT record (RFC 6891 §6.1.2).
func opt(size, version, flags int, options ...string) string {
	rdata := strings.Join(options, "")
	return "\x00" + u16(typeOPT, size) + string([]byte{0, byte(version)}) + u16(flags, len(rdata)) + rdata
}

func option(code int, data string) string { return u16(code, len(data)) + data }

// ecs is a client subnet as an option.
func ecs(family, source, scope int, octets string) string {
	return option(dns.EDNS0SUBNET, ecsData(family, source, scope, octets))
}

func ecsData(family, source, scope int, octets string) string {
	return u16(family) + string([]byte{byte(source), byte(scope)}) + octets
}

// plain is the query that most resolvers sent before EDNS.
func plain(n string, qtype uint16) string {
	return header(bitRD, 1, 0, 0, 0) + question(n, qtype, dns.ClassINET)
}

// extended is a query with an OPT record.
func extended(n string, qtype uint16, opt string) string {
	return header(0, 1, 0, 0, 1) + question(n, qtype, dns.ClassINET) + opt
}

// nameOf is a name of exactly so many octets, up to 255, made of labels as long
// as can be.
func nameOf(octets int) string {
	var b strings.Builder
	for left := octets - 1; left > 0; {
		n := min(left-1, maxLabel)
		if left-1-n == 1 { // one octet cannot be a label
			n--
		}
		b.WriteString(label(strings.Repeat("n", n)))
		left -= n + 1
	}
	return b.String() + "\x00"
}

// presentation is the text of a name in wire form, as the library has it.
func presentation(wire []byte) string {
	s, _, err := dns.UnpackDomainName(wire, 0)
	if err != nil {
		return err.Error()
	}
	return s
}
