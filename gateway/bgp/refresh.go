package bgp

import (
	"encoding/binary"

	"github.com/razor-steering/razor/steering"
)

// parseRefresh returns the family that the body of a ROUTE-REFRESH asks for
// (RFC 2918 §3). It is false for other families, and for what is no request: the
// marks of RFC 7313 around a refresh, which were not negotiated. Route filters
// behind it (RFC 5291) were not either, and are not read.
func parseRefresh(body []byte) (steering.Family, bool) {
	if len(body) < 4 || body[2] != 0 {
		return 0, false
	}
	return familyOf(binary.BigEndian.Uint16(body), body[3])
}

// newRefresh asks for the routes of a family.
func newRefresh(f steering.Family) message {
	body := binary.BigEndian.AppendUint16(nil, afiOf(f))
	return newMessage(typeRefresh, append(body, 0, safiUnicast))
}
