package upstreams

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/razor-steering/razor/steering"
)

// value is what one key says, parsed. It is immutable.
type value struct {
	pool       *steering.Pool     // kindPool
	skip       *steering.SkipList // kindSkip
	config     *config            // kindConfig
	groups     *Groups            // kindGroups
	blackholes []blackholed       // kindBlackhole
	route      string             // kindGeo, kindSticky, kindSubnet: a route in wire form
	edges      []string           // kindEdges: names in wire form, sorted
	state      AdminState         // kindState
	since      time.Time          // kindState: when it began; zero where it does not say
	said       *EdgeSaid          // kindHealth
	list       []Endpoint         // kindUpstream
	meta       *meta              // kindMeta
}

// config is a CONFIG hash.
type config struct {
	soa    []byte // RDATA in wire form; nil where it is missing or bad
	ns     []string
	ttl    uint32
	answer Answer
	count  int // 0 where it is not set
	shard  int // 0 where it is not set or off
	noECS  bool
	floor  *float64 // nil where it is not set
	empty  OnEmpty  // "" where it is not set
	alpn   []string
	port   uint16            // 0 where it is not set
	fields map[string]string // the usable fields as they were written
	bad    []string          // fields of ours that are there and cannot be used
}

const (
	defaultTTL = 60
	maxTTL     = 1<<31 - 1 // RFC 2181 §8
	maxCount   = 255
)

// Answer is how a zone picks addresses from a pool.
type Answer uint8

// The values of ANSWER.
const (
	AnswerRandom    Answer = iota // uniformly at random
	AnswerHash                    // by the client's subnet
	AnswerGroupHash               // group by the client's subnet, member at random
	AnswerGeography               // route by the client's place, member at random
)

var answerWords = [...]string{"random", "consistent_hash", "group_consistent_hash", "geoip"}

// String is the word in Redis.
func (a Answer) String() string { return answerWords[a] }

// raw is a key's content as Redis gave it.
type raw struct {
	exists bool
	wrong  bool // the key is there with another type
	denied bool // the account must not read it
	text   string
	set    []string
	hash   map[string]string
}

// parseValue reads the content of a key. What cannot be used is left out and
// becomes a defect. The result is nil when nothing usable is there.
func parseValue(id keyID, key string, r raw) (*value, []Defect) {
	if r.denied {
		return nil, []Defect{{Key: key, Reason: "the account must not read it", Want: "a key pattern of the account that has it (ACL ~…)"}}
	}
	if r.wrong {
		return nil, []Defect{{Key: key, Reason: "wrong type", Want: "a " + id.kind.redisType()}}
	}
	p := parser{key: key}
	v := &value{}
	ok := false
	switch id.kind {
	case kindPool:
		members := p.members(id.family, r.set)
		v.pool = steering.NewPool(id.family, members)
		if v.pool.Len() < len(members) {
			p.duplicates(id.family, r.set)
		}
		ok = v.pool.Len() > 0
	case kindSkip:
		v.skip = steering.NewSkipList(id.family, p.members(id.family, r.set))
		ok = v.skip.Len() > 0
	case kindBlackhole:
		v.blackholes = p.blackholes(id.family, r.set)
		ok = len(v.blackholes) > 0
	case kindGroups:
		v.groups = p.groups(r.set)
		ok = v.groups != nil
	case kindConfig:
		v.config = p.config(r.hash)
		ok = len(v.config.fields) > 0
	case kindGeo, kindSticky, kindSubnet:
		v.route, ok = p.name(r.text, "the name of a route")
	case kindEdges:
		v.edges = p.edges(r.set)
		ok = len(v.edges) > 0
	case kindState:
		v.state, v.since, ok = p.state(r.text)
	case kindHealth:
		v.said, ok = p.health(r.text)
	case kindUpstream:
		v.list = p.endpoints(r.set)
		ok = len(v.list) > 0
	case kindMeta:
		v.meta = p.meta(r.hash)
		ok = len(v.meta.fields) > 0
	}
	if !ok {
		return nil, p.defects
	}
	return v, p.defects
}

// equal tells whether two values of one key say the same.
func (v *value) equal(w *value) bool {
	switch {
	case v.pool != nil:
		return v.pool.Len() == w.pool.Len() && missing(v, w) == 0
	case v.skip != nil:
		return slices.Equal(slices.Collect(v.skip.Entries()), slices.Collect(w.skip.Entries()))
	case v.config != nil:
		return maps.Equal(v.config.fields, w.config.fields) && slices.Equal(v.config.bad, w.config.bad)
	case v.groups != nil:
		return slices.Equal(v.groups.Names(), w.groups.Names())
	}
	if v.said != nil {
		return v.said.same(w.said) && v.said.At.Equal(w.said.At)
	}
	if v.meta != nil {
		return maps.Equal(v.meta.fields, w.meta.fields)
	}
	return v.route == w.route && v.state == w.state && v.since.Equal(w.since) && slices.Equal(v.edges, w.edges) && slices.Equal(v.list, w.list) &&
		slices.EqualFunc(v.blackholes, w.blackholes, blackholed.same)
}

// keeping is the config with the fields of an older one in the place of some.
// Those that the older one lacks stay as they are.
func (c *config) keeping(old *config, fields ...string) *config {
	merged := maps.Clone(c.fields)
	for _, f := range fields {
		if text, ok := old.fields[f]; ok {
			merged[f] = text
		}
	}
	if len(merged) == len(c.fields) {
		return c
	}
	kept := new(parser).config(merged)
	kept.bad = c.bad
	return kept
}

// parser collects the defects of one key.
type parser struct {
	key     string
	defects []Defect
}

func (p *parser) bad(member, reason, want string) {
	p.defects = append(p.defects, Defect{Key: p.key, Member: member, Reason: reason, Want: want})
}

// memberWant is what would be right in the place of a bad address or prefix.
func memberWant(f steering.Family) string {
	if f == steering.IPv6 {
		return "an IPv6 address or prefix such as 2001:db8::1 or 2001:db8::/64"
	}
	return "an IPv4 address or prefix such as 192.0.2.1 or 192.0.2.0/24"
}

func (p *parser) members(f steering.Family, set []string) []netip.Prefix {
	want := memberWant(f)
	out := make([]netip.Prefix, 0, len(set))
	for _, text := range set {
		m, err := ParseMember(f, text)
		if err != nil {
			p.bad(text, err.Error(), want)
			continue
		}
		out = append(out, m)
	}
	return out
}

// duplicates reports members that are one address in two spellings: SREM of
// one would leave the other.
func (p *parser) duplicates(f steering.Family, set []string) {
	spelled := make(map[netip.Prefix]string, len(set))
	for _, text := range slices.Sorted(slices.Values(set)) {
		m, err := ParseMember(f, text)
		if err != nil {
			continue
		}
		if first, ok := spelled[m]; ok {
			p.bad(text, "the same as "+first, "one spelling of it")
			continue
		}
		spelled[m] = text
	}
}

// AdminState is what an operator wants of an edge.
type AdminState uint8

// The values of STATE.
const (
	Active   AdminState = iota // as without STATE
	Draining                   // no longer answered; what runs there may end
	Drained                    // no longer answered
)

var stateWords = [...]string{"active", "draining", "drained"}

// String is the word in Redis.
func (a AdminState) String() string { return stateWords[a] }

const stateWant = "active, draining or drained, with since= and a time such as 2006-01-02T15:04:05Z behind it"

// state reads a STATE: a word, and behind it since when, which may be missing.
func (p *parser) state(text string) (state AdminState, since time.Time, ok bool) {
	word, attributes := splitWord(text)
	i := slices.Index(stateWords[:], word)
	if i < 0 {
		p.bad(text, "unknown state", stateWant)
		return Active, time.Time{}, false
	}
	p.attributes(text, attributes, stateWant, timeAttribute("since", &since))
	return AdminState(i), since, true
}

// stateText is a STATE as it is written in Redis.
func stateText(state AdminState, since time.Time) string {
	return withTime(state.String(), "since", since)
}

func (p *parser) edges(set []string) []string {
	var out []string
	for _, text := range set {
		if wire, ok := p.name(text, "the name of an edge"); ok {
			out = append(out, wire)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (p *parser) groups(set []string) *Groups {
	var names []string
	for _, text := range set {
		if _, ok := p.name(text, "the name of a group"); ok {
			names = append(names, text)
		}
	}
	if len(names) == 0 {
		return nil
	}
	g := &Groups{Groups: steering.NewGroups(names)}
	for _, text := range g.Names() {
		wire, _ := WireName(trimDot(text))
		g.routes = append(g.routes, wire)
	}
	return g
}

func (p *parser) name(text, want string) (string, bool) {
	wire, err := WireName(trimDot(text))
	if err != nil {
		p.bad(text, err.Error(), want)
		return "", false
	}
	return wire, true
}

// config reads a CONFIG hash: a field that cannot be used counts as missing.
func (p *parser) config(hash map[string]string) *config {
	c := &config{ttl: defaultTTL, fields: map[string]string{}}
	for _, field := range slices.Sorted(maps.Keys(hash)) {
		text := hash[field]
		var ok bool
		switch field {
		case "SOA":
			c.soa, ok = p.soa(text)
		case "NS":
			c.ns, ok = p.nameServers(text)
		case "TTL":
			var n int
			if n, ok = p.number("TTL", text, 0, maxTTL); ok {
				c.ttl = uint32(n)
			}
		case "COUNT":
			c.count, ok = p.number("COUNT", text, 1, maxCount)
		case "ANSWER":
			i := slices.Index(answerWords[:], text)
			if ok = i >= 0; ok {
				c.answer = Answer(i)
			} else {
				p.bad("ANSWER "+text, "unknown", strings.Join(answerWords[:], ", "))
			}
		case "SHARD":
			c.shard, ok = p.number("SHARD", text, 0, maxCount)
		case "ECS":
			if ok = text == "on" || text == "off"; ok {
				c.noECS = text == "off"
			} else {
				p.bad("ECS "+text, "unknown", "on or off")
			}
		case "FLOOR":
			c.floor, ok = p.floor(text)
		case "ON_EMPTY":
			c.empty, ok = p.onEmpty(text)
		case "ALPN":
			c.alpn, ok = p.alpn(text)
		case "PORT":
			var n int
			n, ok = p.number("PORT", text, 1, 65535)
			c.port = uint16(n)
		default:
			p.bad(field, "unknown field", "SOA, NS, TTL, ANSWER, COUNT, SHARD, ECS, FLOOR, ON_EMPTY, ALPN or PORT")
			continue
		}
		if ok {
			c.fields[field] = text
		} else {
			c.bad = append(c.bad, field)
		}
	}
	return c
}

func (p *parser) number(field, text string, from, to int) (int, bool) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n < uint64(from) || n > uint64(to) {
		p.bad(field+" "+text, "not a usable number", fmt.Sprintf("%d to %d", from, to))
		return 0, false
	}
	return int(n), true
}

func (p *parser) nameServers(text string) ([]string, bool) {
	var out []string
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		wire, err := WireName(trimDot(part))
		if err != nil {
			p.bad("NS "+part, err.Error(), "names separated by commas")
			continue
		}
		if !slices.Contains(out, wire) {
			out = append(out, wire)
		}
	}
	return out, len(out) > 0
}

func (p *parser) soa(text string) ([]byte, bool) {
	rdata, err := soaRDATA(text)
	if err != nil {
		p.bad("SOA "+text, err.Error(), "ns1.example.org. hostmaster.example.org. SERIAL REFRESH RETRY EXPIRE MINIMUM")
		return nil, false
	}
	return rdata, true
}
