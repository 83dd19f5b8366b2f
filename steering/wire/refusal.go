package wire

// Refusal is why a datagram was not taken. It is an error, and a small number to count
// by: the array that has a place for each has the length [Refusals].
type Refusal uint8

// What is refused, in the order in which it is looked for. What stands before Forged
// is said of bytes that anybody may have sent.
const (
	Malformed  Refusal = iota // not the length or the layout of a datagram, or of its body
	Version                   // another layout
	UnknownKey                // sealed with a key that is not in the file
	Forged                    // the seal does not fit
	UnknownType
	Misdirected // for another receiver
	Impostor    // from an address that is not in the sender's locator
	Stale       // sent before the window, or before the receiver started
	Early       // sent after the window
	Crowded     // a further sender, and none that may be forgotten
	Repeated    // taken already, or too far behind to tell
	SenderLimit // more than one sender may send
	TotalLimit  // more than all senders may send
	Refusals    // their number
)

var refusals = [Refusals]struct{ label, text string }{
	Malformed:   {"malformed", "malformed datagram"},
	Version:     {"version", "datagram of another version"},
	UnknownKey:  {"unknown_key", "sealed with an unknown key"},
	Forged:      {"forged", "the seal does not fit the datagram"},
	UnknownType: {"unknown_type", "datagram of an unknown type"},
	Misdirected: {"misdirected", "for another receiver"},
	Impostor:    {"impostor", "the source address is not in the sender's locator"},
	Stale:       {"stale", "sent too long ago"},
	Early:       {"early", "sent in the future"},
	Crowded:     {"crowded", "too many senders"},
	Repeated:    {"repeated", "taken already"},
	SenderLimit: {"sender_limit", "too many datagrams of this sender"},
	TotalLimit:  {"total_limit", "too many datagrams"},
}

// Error says it to people.
func (r Refusal) Error() string { return refusals[r].text }

// Label is the value of a metric's label.
func (r Refusal) Label() string { return refusals[r].label }
