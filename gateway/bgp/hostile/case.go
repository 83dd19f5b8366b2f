// Package hostile is a BGP peer that misbehaves, for tests: some thousand messages
// that RFC 4271 does not allow, or that have broken parsers, with what a speaker
// may do about them, and a [Peer] that sends them to any speaker.
//
// The speaker has to expect a peer of [AS], whatever its address. Messages are
// made here from octets alone: a library would not write them.
package hostile

// AS is the number of the peer, ID its BGP identifier.
const (
	AS = 64666
	ID = "192.0.2.66"
)

// State is how far a session has come when a case begins; the names are those of
// the speaker's state machine (RFC 4271 §8.2.2).
type State uint8

const (
	// Connected is a connection on which the peer neither read nor said anything.
	Connected State = iota
	// OpenSent is when the speaker's OPEN has come.
	OpenSent
	// OpenConfirm is when its KEEPALIVE has come too, in answer to the peer's OPEN.
	OpenConfirm
	// Established is when the peer's KEEPALIVE has been sent.
	Established
)

func (s State) String() string {
	return [...]string{"Connected", "OpenSent", "OpenConfirm", "Established"}[s]
}

// Case is something that a peer must not send, or that is rare enough to break what
// reads it.
type Case struct {
	Name  string // unique
	State State  // the one in which it is sent
	Bytes []byte // one message, or what pretends to be one
	// Survives says that the session has to outlive it: RFC 7606 treats it as a
	// withdrawal or discards an attribute, RFC 5492 ignores a capability. Other
	// sessions may end, by a NOTIFICATION; the speaker itself may not.
	Survives bool
}

// Cases returns all cases, always the same ones in the same order.
func Cases() []Case {
	var c cases
	c.headers()
	c.unexpected()
	c.opens()
	c.refreshes()
	c.updates()
	c.attributes()
	c.nested()
	c.families()
	c.mutations()
	return c.list
}

// cases collects them.
type cases struct{ list []Case }

// add adds a case; what the session may do is no word of survives.
func (c *cases) add(state State, name string, b []byte) {
	c.list = append(c.list, Case{Name: state.String() + ": " + name, State: state, Bytes: b})
}

// survivor adds a case that the session has to outlive.
func (c *cases) survivor(state State, name string, b []byte) {
	c.add(state, name, b)
	c.list[len(c.list)-1].Survives = true
}
