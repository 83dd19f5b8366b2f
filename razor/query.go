package razor

import "encoding/binary"

// Lengths and codes of the wire format (RFC 1035 §4.1, RFC 6891 §6.1).
const (
	headerLen = 12
	rrFixed   = 10 // type, class, TTL, RDLENGTH
	maxName   = 255
	maxLabel  = 63
	// maxPointers is more than a name of 255 octets has use for. A chain of
	// pointers to pointers adds nothing to a name but work.
	maxPointers = maxName/2 - 1

	typeOPT = 41

	flagQR = 1 << 15
	flagRD = 1 << 8

	optDO  = 1 << 15
	ednsOK = 0 // the EDNS version that is understood
)

// verdict is what to do with a message.
type verdict uint8

const (
	verdictAnswer  verdict = iota
	verdictDrop            // say nothing: no query, or a reply (no loops of replies)
	verdictFormErr         // RFC 1035 §4.1.1 rcode 1
	verdictNotImp          // another opcode than QUERY
	verdictBadVers         // another EDNS version (RFC 6891 §6.1.3)
)

// query is a message as a client sent it. It is the only place where messages
// are parsed: what it takes has been checked to its last octet. It is reused;
// name and lower hold until the next parse.
type query struct {
	id     uint16
	opcode uint8
	rd     bool

	asked  bool // there is a well-formed question
	name   []byte
	lower  []byte // the name in lower case
	qtype  uint16
	qclass uint16

	edns    bool
	version uint8
	udpSize uint16 // octets that the client takes over UDP
	do      bool
	hasECS  bool
	ecs     clientSubnet

	nameBuf  [maxName]byte
	lowerBuf [maxName]byte
}

// parse reads a message. Work is bounded by its length: a compression pointer
// has to point strictly backwards, and a name ends at 255 octets and may not have
// more pointers than that needs (RFC 9267).
func (q *query) parse(msg []byte) verdict {
	if len(msg) < headerLen {
		return verdictDrop
	}
	flags := binary.BigEndian.Uint16(msg[2:])
	if flags&flagQR != 0 {
		return verdictDrop
	}
	q.id = binary.BigEndian.Uint16(msg)
	q.opcode = uint8(flags >> 11 & 0xf)
	q.rd = flags&flagRD != 0
	q.asked, q.edns, q.version, q.udpSize, q.do, q.hasECS = false, false, 0, 0, false, false
	if q.opcode != 0 {
		return verdictNotImp
	}
	if binary.BigEndian.Uint16(msg[4:]) != 1 { // RFC 9619
		return verdictFormErr
	}
	off, ok := q.question(msg)
	if !ok || !q.records(msg, off) {
		return verdictFormErr
	}
	if q.edns && q.version != ednsOK {
		return verdictBadVers
	}
	return verdictAnswer
}

// question reads the one question; its name must not be compressed, as there is
// nothing before it to point at.
func (q *query) question(msg []byte) (off int, ok bool) {
	off = headerLen
	n := 0
	for {
		if off >= len(msg) {
			return 0, false
		}
		l := int(msg[off])
		if l > maxLabel || off+1+l > len(msg) || n+1+l > maxName {
			return 0, false
		}
		n += 1 + l
		off += 1 + l
		if l == 0 {
			break
		}
	}
	if off+4 > len(msg) {
		return 0, false
	}
	q.name, q.lower = q.nameBuf[:n], q.lowerBuf[:n]
	copy(q.name, msg[headerLen:])
	for i, c := range q.name { // a label's length is below 'A'
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		q.lower[i] = c
	}
	q.qtype = binary.BigEndian.Uint16(msg[off:])
	q.qclass = binary.BigEndian.Uint16(msg[off+2:])
	q.asked = true
	return off + 4, true
}

// records walks the other sections. All that the header counts must be there,
// and nothing behind it; OPT once, in the additional section, at the root.
func (q *query) records(msg []byte, off int) bool {
	const answers, authority, additional = 6, 8, 10
	for _, section := range []int{answers, authority, additional} {
		for range binary.BigEndian.Uint16(msg[section:]) {
			start := off
			off = skipName(msg, off)
			if off < 0 || off+rrFixed > len(msg) {
				return false
			}
			rr := msg[off:]
			off += rrFixed + int(binary.BigEndian.Uint16(rr[8:]))
			if off > len(msg) {
				return false
			}
			if binary.BigEndian.Uint16(rr) != typeOPT {
				continue
			}
			if section != additional || q.edns || msg[start] != 0 {
				return false
			}
			if !q.opt(rr[:rrFixed], rr[rrFixed:rrFixed+int(binary.BigEndian.Uint16(rr[8:]))]) {
				return false
			}
		}
	}
	return off == len(msg)
}

// skipName returns the offset behind a name, which may be compressed, or -1.
func skipName(msg []byte, off int) int {
	end := -1 // behind the first pointer
	total := 0
	pointers := 0
	limit := len(msg) // a pointer has to point before this
	for {
		if off >= len(msg) {
			return -1
		}
		l := int(msg[off])
		switch {
		case l >= 0xc0:
			if off+2 > len(msg) {
				return -1
			}
			if end < 0 {
				end = off + 2
				limit = off
			}
			to := int(binary.BigEndian.Uint16(msg[off:]) & 0x3fff)
			if pointers++; to >= limit || to < headerLen || pointers > maxPointers {
				return -1
			}
			off, limit = to, to
			continue
		case l > maxLabel:
			return -1
		}
		off += 1 + l
		if total += 1 + l; total > maxName {
			return -1
		}
		if l == 0 {
			if end < 0 {
				end = off
			}
			return end
		}
	}
}

// opt reads the OPT record and its options; unknown ones are stepped over
// (RFC 6891 §6.1.2).
func (q *query) opt(fixed, rdata []byte) bool {
	q.edns = true
	q.udpSize = binary.BigEndian.Uint16(fixed[2:])
	q.version = fixed[5]
	q.do = binary.BigEndian.Uint16(fixed[6:])&optDO != 0
	if q.version != ednsOK {
		return true // its options may look otherwise
	}
	for len(rdata) > 0 {
		if len(rdata) < 4 {
			return false
		}
		code, n := binary.BigEndian.Uint16(rdata), int(binary.BigEndian.Uint16(rdata[2:]))
		if len(rdata) < 4+n {
			return false
		}
		data := rdata[4 : 4+n]
		rdata = rdata[4+n:]
		if code != codeECS {
			continue
		}
		if q.hasECS || !q.ecs.parse(data) {
			return false
		}
		q.hasECS = true
	}
	return true
}
