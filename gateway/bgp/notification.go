package bgp

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Error codes of NOTIFICATIONs (RFC 4271 §4.5, RFC 7313 §5, RFC 9687 §3).
const (
	codeHeader = 1 + iota
	codeOpen
	codeUpdate
	codeHoldTimer
	codeFSM
	codeCease
	codeRefresh
	codeSendHoldTimer
)

// Subcodes of codeHeader (RFC 4271 §6.1).
const (
	headerNotSynchronized = 1 + iota
	headerBadLength
	headerBadType
)

// Subcodes of codeOpen (RFC 4271 §6.2, RFC 5492 §5).
const (
	openUnspecific = iota
	openBadVersion
	openBadAS
	openBadIdentifier
	openBadParameter
	_
	openBadHoldTime
	openBadCapability
)

// Subcodes of codeUpdate (RFC 4271 §6.3) for what ends a session.
const (
	updateMalformedList  = 1
	updateUnrecognized   = 2
	updateOptional       = 9
	updateInvalidNetwork = 10
)

// Subcodes of codeFSM: the state in which a message was not expected (RFC 6608).
const (
	fsmOpenSent = 1 + iota
	fsmOpenConfirm
	fsmEstablished
)

// Subcodes of codeCease (RFC 4486, RFC 8538, RFC 9384).
const (
	ceaseMaxPrefixes = 1 + iota
	ceaseShutdown
	ceaseDeconfigured
	ceaseReset
	ceaseRejected
	ceaseConfiguration
	ceaseCollision
	ceaseResources
	ceaseHardReset
	ceaseBFDDown
)

// codeNames and subcodeNames are the codes in words.
var (
	codeNames = [...]string{
		codeHeader:        "message header error",
		codeOpen:          "OPEN message error",
		codeUpdate:        "UPDATE message error",
		codeHoldTimer:     "hold timer expired",
		codeFSM:           "finite state machine error",
		codeCease:         "Cease",
		codeRefresh:       "ROUTE-REFRESH message error",
		codeSendHoldTimer: "send hold timer expired",
	}
	subcodeNames = [...][]string{
		codeHeader: {
			headerNotSynchronized: "connection not synchronized",
			headerBadLength:       "bad message length",
			headerBadType:         "bad message type",
		},
		codeOpen: {
			openBadVersion:    "unsupported version number",
			openBadAS:         "bad peer AS",
			openBadIdentifier: "bad BGP identifier",
			openBadParameter:  "unsupported optional parameter",
			5:                 "authentication failure",
			openBadHoldTime:   "unacceptable hold time",
			openBadCapability: "unsupported capability",
			11:                "role mismatch",
		},
		codeUpdate: {
			updateMalformedList:  "malformed attribute list",
			updateUnrecognized:   "unrecognized well-known attribute",
			3:                    "missing well-known attribute",
			4:                    "attribute flags error",
			5:                    "attribute length error",
			6:                    "invalid ORIGIN attribute",
			7:                    "AS routing loop",
			8:                    "invalid NEXT_HOP attribute",
			updateOptional:       "optional attribute error",
			updateInvalidNetwork: "invalid network field",
			11:                   "malformed AS_PATH",
		},
		codeFSM: {
			fsmOpenSent:    "unexpected message in OpenSent",
			fsmOpenConfirm: "unexpected message in OpenConfirm",
			fsmEstablished: "unexpected message in Established",
		},
		codeCease: {
			ceaseMaxPrefixes:   "maximum number of prefixes reached",
			ceaseShutdown:      "administrative shutdown",
			ceaseDeconfigured:  "peer de-configured",
			ceaseReset:         "administrative reset",
			ceaseRejected:      "connection rejected",
			ceaseConfiguration: "other configuration change",
			ceaseCollision:     "connection collision resolution",
			ceaseResources:     "out of resources",
			ceaseHardReset:     "hard reset",
			ceaseBFDDown:       "BFD down",
		},
		codeRefresh:       {1: "invalid message length"},
		codeSendHoldTimer: nil,
	}
)

// notification is why a session ends: as an error of ours that the peer is to be
// told, or as the peer told it.
type notification struct {
	code, subcode uint8
	data          []byte
}

// cease is the end of a session by will. Of the text, which goes to the peer's
// log with a shutdown and a reset only (RFC 9003 §2), there are at most 255
// octets.
func cease(subcode uint8, text string) *notification {
	n := &notification{code: codeCease, subcode: subcode}
	if n.hasText() && text != "" {
		text = strings.ToValidUTF8(text, "?")
		for len(text) > 255 {
			_, size := utf8.DecodeLastRuneInString(text)
			text = text[:len(text)-size]
		}
		n.data = append([]byte{byte(len(text))}, text...)
	}
	return n
}

// refusal tells whether the next session would end in the same way, so that it
// should not begin at once (RFC 4486 §4).
func (n *notification) refusal() bool {
	switch n.code {
	case codeHoldTimer, codeSendHoldTimer:
		return false
	case codeCease:
		return slices.Contains([]uint8{ceaseMaxPrefixes, ceaseDeconfigured, ceaseRejected, ceaseResources}, n.subcode)
	}
	return true
}

// parseNotification reads the body of a peer's NOTIFICATION, whatever is in it.
func parseNotification(body []byte) *notification {
	if len(body) < 2 {
		return &notification{}
	}
	return &notification{code: body[0], subcode: body[1], data: append([]byte(nil), body[2:]...)}
}

// encode returns n as a message, with as much of its data as fits.
func (n *notification) encode() message {
	const room = maxMessage - headerLen - 2
	data := n.data[:min(len(n.data), room)]
	return newMessage(typeNotification, append([]byte{n.code, n.subcode}, data...))
}

// Error says n in words, with what may be said of its data in a log: printable,
// and little.
func (n *notification) Error() string {
	s := n.name()
	switch {
	case n.hasText() && len(n.data) > 0:
		return s + ": " + n.text()
	case n.code == codeCease && n.subcode == ceaseHardReset && len(n.data) >= 2:
		return s + ": " + (&notification{code: n.data[0], subcode: n.data[1]}).name() // RFC 8538 §3.1
	case len(n.data) > 0:
		const shown = 16
		return fmt.Sprintf("%s: data %x", s, n.data[:min(len(n.data), shown)])
	}
	return s
}

// name says the codes in words, or as they are.
func (n *notification) name() string {
	if int(n.code) >= len(codeNames) || codeNames[n.code] == "" {
		return fmt.Sprintf("NOTIFICATION %d/%d", n.code, n.subcode)
	}
	s := codeNames[n.code]
	if names := subcodeNames[n.code]; int(n.subcode) < len(names) && names[n.subcode] != "" {
		return s + ": " + names[n.subcode]
	}
	if n.subcode != 0 {
		return fmt.Sprintf("%s: subcode %d", s, n.subcode)
	}
	return s
}

// hasText tells whether the data is a text for people.
func (n *notification) hasText() bool {
	return n.code == codeCease && (n.subcode == ceaseShutdown || n.subcode == ceaseReset)
}

// text is the text for people, made harmless. One that is longer than what came
// ends where that does.
func (n *notification) text() string {
	b := n.data[1:]
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, string(b[:min(len(b), int(n.data[0]))]))
}
