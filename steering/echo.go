package steering

// Echo is what is known of a host by echo requests (RFC 4443 §4.1). Its kernel answers them
// whether its agent runs or not, and they need neither the agent's datagrams nor its key:
// whose agent is silent, and who does not answer either, is gone.
//
// That is believed of a host alone that answered while its agent spoke. Elsewhere something in
// between may let no echoes pass, and it says nothing that they are lost. It is evidence on
// the way that packets of flows take too, as the address is in the host's locator: where the
// host is well and its router is not, nothing arrives there in either case.
//
// The zero value knows nothing. It is not safe for concurrent use.
type Echo struct {
	Known  bool // it answered while its agent spoke
	Silent bool // its agent was silent at the last request
	Lost   int  // requests in a row that were not answered, all in silence or none; at most 3
}

// Answered takes an answer. silent is that the agent is.
func (e *Echo) Answered(silent bool) {
	e.Known, e.Silent, e.Lost = e.Known || !silent, silent, 0
}

// Unanswered takes a request that was not answered, although others were heard meanwhile. An
// agent that speaks while so many are lost as make a host gone has echoes known no longer.
func (e *Echo) Unanswered(silent bool) {
	if e.Silent != silent {
		e.Silent, e.Lost = silent, 0
	}
	e.Lost = min(e.Lost+1, silentFor)
	e.Known = e.Known && (silent || e.Lost < silentFor)
}

// Spoke takes a word of the agent: what was lost in its silence says nothing of the next one.
func (e *Echo) Spoke() {
	if e.Silent {
		e.Silent, e.Lost = false, 0
	}
}

// Gone tells whether the host is, if its agent is still silent: it answers no more for as many
// requests as reports make an agent silent.
func (e *Echo) Gone() bool { return e.Known && e.Silent && e.Lost >= silentFor }
