package upstreams

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// soaRDATA is the wire form of an SOA's RDATA from its text (RFC 1035 §3.3.13):
// MNAME RNAME SERIAL REFRESH RETRY EXPIRE MINIMUM. Final dots may be missing, as
// in the data of PowerDNS; every name is absolute.
func soaRDATA(text string) ([]byte, error) {
	fields := strings.Fields(text)
	if len(fields) != 7 {
		return nil, fmt.Errorf("%d fields", len(fields))
	}
	var out []byte
	for _, name := range fields[:2] {
		wire, err := WireName(trimDot(name))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out = append(out, wire...)
	}
	for _, f := range fields[2:] {
		n, err := strconv.ParseUint(f, 10, 32)
		if err != nil {
			return nil, errors.New(f + " is not a number of 32 bits")
		}
		out = binary.BigEndian.AppendUint32(out, uint32(n))
	}
	return out, nil
}

// soaMinimum is the last field: the TTL of negative answers (RFC 2308 §4).
func soaMinimum(rdata []byte) uint32 {
	return binary.BigEndian.Uint32(rdata[len(rdata)-4:])
}
