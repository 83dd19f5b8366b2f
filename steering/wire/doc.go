// Package wire has the datagrams between agents and gateways, and between gateways of
// different sites: their bytes, what shows who sent them, and what is refused. It does no
// input or output, and the time is an argument.
//
// A datagram is one UDP payload of at most [MaxDatagram] bytes, so that it fits the
// smallest path of IPv6 whole (RFC 8200 §5). Numbers are big endian.
//
//	 0  version   1 byte: 1
//	 1  type      1 byte: 1 is pins, 2 is reports, 3 is summaries
//	 2  key       2 bytes: id of the key that it is sealed with
//	 4  sender    8 bytes: locator
//	12  receiver  8 bytes: locator
//	20  sent      8 bytes: milliseconds since 1970, UTC
//	28  sequence  8 bytes
//	36  body      up to 1180 bytes
//	-16 seal      16 bytes: the first half of HMAC-SHA-256 (RFC 2104 §5) of all before
//
// The body of pins is 1 to [MaxPins] of them, and nothing else:
//
//	 0  client    16 bytes: address, IPv4 as ::ffff:a.b.c.d (RFC 4291 §2.5.5.2)
//	16  VIP       16 bytes, of the same family
//	32  port      2 bytes: of the client
//	34  port      2 bytes: of the VIP
//	36  protocol  1 byte: 6 is TCP, 17 is UDP
//	37  spare     1 byte: 0
//	38  target    2 bytes: the owner on the sender; 0 is the host itself, else one of
//	              its containers
//
// The owner of a pin is the sender's locator and a target: an agent can say of itself
// alone that it has a flow.
//
// The body of reports is at least one of them, a target each:
//
//	 0  target    2 bytes: 0 is the host itself, else one of its containers
//	 2  interval  2 bytes: milliseconds until the next one at the latest, 10 to 60000
//	 4  admin     1 byte: 1 is active, 2 draining
//	 5  level     1 byte: 1 to 3
//	 6  services  1 byte: how many follow, at most [MaxServices]
//	 7  spare     1 byte: 0
//	 8  load      8 bytes: IEEE 754 binary64, 0 to 1e15
//	16  capacity  8 bytes: likewise; 0 where the load is not measured
//	24  accepted  8 bytes: likewise; new flows a second
//	32  guests    8 bytes: likewise; those that came by other sites
//	40  flow load 8 bytes: likewise; of one flow on average, 0 is 1
//	48  services, each of
//	     0  VIP       16 bytes, as above; :: is each one of the target
//	    16  port      2 bytes: 0 is any
//	    18  protocol  1 byte: 6 is TCP, 17 is UDP, 0 is any
//	    19  health    1 byte: 0 is unknown, 1 up, 2 down
//
// A report is of the sender's locator, too: an agent can speak of itself alone. It is of
// a state, so that of two the one with the larger sequence number stands, however late it
// came.
//
// The body of summaries is the number of a plan and at least one of them, a service each,
// which stands in the place of what the site said of that service before:
//
//	 0  term      8 bytes: of the plan's number
//	 8  sequence  8 bytes: likewise
//	16  services, each of
//	     0  service   8 bytes: id
//	     8  capacity  8 bytes: IEEE 754 binary64, 0 to 1e15
//	    16  load      8 bytes: likewise
//	    24  state     1 byte: the sum of 1 healthy, 2 drained, 4 loaded
//
// Whose site they are of is what the receiver knows of the sender's locator.
//
// The receiver is named so that a datagram is of no use elsewhere, and so that the
// sequence between two of them has no holes. A sequence begins with the time at which
// its [Sealer] was made, in nanoseconds: one that is made later begins above all that
// the former one can have reached.
//
// # What an Opener holds on to
//
// A datagram is taken once. It is taken when it was sent within [Window] of the
// receiver's clock, and not before the [Opener] was made; for as long as that may be,
// the Opener remembers which sequence numbers of its sender and type it took, the newest
// 64 one by one. A sender is forgotten to make room for another one when all it ever
// said is out of the window, and never before: with so many senders at once a new one is
// refused instead.
//
// Two ways remain to have a datagram taken twice, both for at most the window, and both
// for somebody in the SR domain who can also send from the address of an agent: a
// receiver that starts again, and a sender whose clock was ahead by more than that
// took; and a receiver whose clock leaps ahead and back while it is full of senders. A
// pin that is told again is still true as long as its flow lives, and goes with it; the
// next report ends what an old one said, within its interval.
//
// A sender whose clock is set back may be refused as repeating itself until the window
// after its newest datagram is over, and begins anew then. What is refused for its time or
// its number still says that its sender is there ([Mistimed]); said again by somebody else,
// it keeps the flows of a host that is gone from being reset, and does no more.
package wire
