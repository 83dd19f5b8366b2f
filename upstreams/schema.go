package upstreams

import (
	"strings"

	"github.com/razor-steering/razor/steering"
)

// kind is what a key is for.
type kind uint8

const (
	kindForeign   kind = iota // not a key of ours
	kindConfig                // <name>:CONFIG, hash
	kindPool                  // <route>:A, <route>:AAAA, set
	kindSkip                  // <zone>:A:SKIPLIST, <zone>:AAAA:SKIPLIST, set
	kindBlackhole             // <zone>:A:BLACKHOLE, <zone>:AAAA:BLACKHOLE, set
	kindGroups                // <route>:GROUPS, set
	kindGeo                   // geoip:<continent>[:<country>[:<subdivision>]], string
	kindSticky                // <name>, string
	kindEdges                 // <route>:EDGES, set
	kindState                 // <edge>:STATE, string
	kindHealth                // <edge>:HEALTH, string
	kindSubnet                // prefix:<cidr>, string
	kindUpstream              // <app>:UPSTREAMS, set
	kindMeta                  // <app>:UPSTREAMS:META, hash
)

// redisType is the type that a key of the kind has in Redis.
func (k kind) redisType() string {
	switch k {
	case kindConfig, kindMeta:
		return "hash"
	case kindPool, kindSkip, kindBlackhole, kindGroups, kindEdges, kindUpstream:
		return "set"
	default:
		return "string"
	}
}

// keyID is a key as the schema understands it: two spellings of one name are
// the same key.
type keyID struct {
	kind   kind
	family steering.Family // of pools, skip lists and blackholes
	name   string          // wire form; of geoip the place, "eu:lt", of prefix the prefix
}

// A suffix is what stands behind the first colon of a key.
type suffixKind struct {
	kind   kind
	family steering.Family
}

// suffixes is the schema: the words behind a name.
var suffixes = map[string]suffixKind{
	"CONFIG":         {kind: kindConfig},
	"A":              {kindPool, steering.IPv4},
	"AAAA":           {kindPool, steering.IPv6},
	"A:SKIPLIST":     {kindSkip, steering.IPv4},
	"AAAA:SKIPLIST":  {kindSkip, steering.IPv6},
	"GROUPS":         {kind: kindGroups},
	"A:BLACKHOLE":    {kindBlackhole, steering.IPv4},
	"AAAA:BLACKHOLE": {kindBlackhole, steering.IPv6},
	"EDGES":          {kind: kindEdges},
	"STATE":          {kind: kindState},
	"HEALTH":         {kind: kindHealth},
	"UPSTREAMS":      {kind: kindUpstream},
	"UPSTREAMS:META": {kind: kindMeta},
}

const (
	geoPrefix    = "geoip:"
	subnetPrefix = "prefix:"
)

// parseKey says which key of the schema a key in Redis is. A defect is
// returned for a key that has the form of ours and a part that cannot be used;
// its kind is then foreign. An unknown suffix behind a name is foreign without
// a defect: only who knows the zones can tell a slip from another's key.
func parseKey(key string) (keyID, *Defect) {
	if place, ok := strings.CutPrefix(key, geoPrefix); ok {
		return parseGeoKey(key, place)
	}
	if cidr, ok := strings.CutPrefix(key, subnetPrefix); ok {
		return parseSubnetKey(key, cidr)
	}
	name, suffix, colon := strings.Cut(key, ":")
	s := suffixKind{kind: kindSticky}
	if colon {
		s = suffixes[suffix]
	}
	if s.kind == kindForeign {
		return keyID{}, nil
	}
	wire, err := WireName(name)
	switch {
	case err == nil:
		return keyID{kind: s.kind, family: s.family, name: wire}, nil
	case s.kind == kindSticky:
		return keyID{}, nil // any string key of another program
	default:
		return keyID{}, &Defect{Key: key, Reason: err.Error(), Want: "a name in lower case without the final dot before :" + suffix}
	}
}

func parseGeoKey(key, place string) (keyID, *Defect) {
	place = strings.ToLower(place)
	parts := strings.Split(place, ":")
	ok := len(parts) <= 3
	for _, p := range parts {
		ok = ok && p != "" && strings.Trim(p, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
	}
	if !ok {
		return keyID{}, &Defect{Key: key, Reason: "not a place", Want: "geoip:<continent>[:<country>[:<state>]], such as geoip:eu:lt"}
	}
	return keyID{kind: kindGeo, name: place}, nil
}

func parseSubnetKey(key, cidr string) (keyID, *Defect) {
	f := steering.IPv4
	if strings.Contains(cidr, ":") {
		f = steering.IPv6
	}
	p, err := ParseMember(f, cidr)
	if err != nil {
		return keyID{}, &Defect{Key: key, Reason: err.Error(), Want: "prefix:<prefix>, such as prefix:192.0.2.0/24 or prefix:2001:db8::/32"}
	}
	return keyID{kind: kindSubnet, family: f, name: p.String()}, nil
}

// spelling is how the key is written by the book. A colon in the name is escaped,
// as the suffix begins at the first one.
func (id keyID) spelling() string {
	switch id.kind {
	case kindGeo:
		return geoPrefix + id.name
	case kindSubnet:
		return subnetPrefix + id.name
	}
	name := strings.ReplaceAll(NameText(id.name), ":", octetEscape(':'))
	for suffix, s := range suffixes {
		if s.kind == id.kind && s.family == id.family {
			return name + ":" + suffix
		}
	}
	return name
}

// slip is the defect of a key with an unknown suffix behind a name of a zone.
func slip(key string) Defect {
	_, suffix, _ := strings.Cut(key, ":")
	want := "one of CONFIG, A, AAAA, A:SKIPLIST, AAAA:SKIPLIST, A:BLACKHOLE, AAAA:BLACKHOLE, GROUPS, EDGES, STATE, HEALTH behind the name"
	if _, ok := suffixes[strings.ToUpper(suffix)]; ok {
		want = strings.ToUpper(suffix) + " in upper case"
	}
	return Defect{Key: key, Member: suffix, Reason: "unknown kind of key", Want: want}
}
