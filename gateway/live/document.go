package live

import "time"

// Document is a gateway at a moment. Rates are per second since the document before.
type Document struct {
	Name          string         `json:"name"`
	Site          string         `json:"site,omitempty"`
	Identity      string         `json:"identity"`
	Time          time.Time      `json:"time"`
	Started       time.Time      `json:"started"`
	Stage         string         `json:"stage"`             // in service, leaving, drained
	Why           string         `json:"why,omitempty"`     // of another stage than in service
	Plan          string         `json:"plan,omitempty"`    // number of what the tables are
	Decides       bool           `json:"decides"`           // this gateway does
	Follows       string         `json:"follows,omitempty"` // else the mate that decides; "" where nobody is known to
	Mates         []string       `json:"mates,omitempty"`
	Edge          *Edge          `json:"edge,omitempty"`    // nil where nameservers are told nothing
	Remarks       []string       `json:"remarks,omitempty"` // what is wrong beside
	Figures       []Figure       `json:"figures,omitempty"` // of the dataplane
	Services      []Service      `json:"services"`
	Sites         []Site         `json:"sites"` // others
	Peers         []Peer         `json:"peers"`
	Announcements []Announcement `json:"announcements"`
	Probes        []Probe        `json:"probes"`
	Events        []Event        `json:"events"` // in a stream only those since the document before
}

// Edge is what nameservers are told of the edge.
type Edge struct {
	Health string    `json:"health"` // up, down, draining; not told yet
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since,omitzero"`
}

// Figure is a number and what it is of.
type Figure struct {
	Key   string  `json:"key"`
	Title string  `json:"title"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`           // "/s", "bit/s" or nothing
	Note  string  `json:"note,omitempty"` // what it is made of
	Bad   bool    `json:"bad,omitempty"`  // it should be 0 and is not
}

// Service is one that is balanced.
type Service struct {
	Name     string    `json:"name"`
	VIPs     []VIP     `json:"vips"`
	Backends []Backend `json:"backends"`
	Doubt    string    `json:"doubt,omitempty"` // why its agents are not believed everything
	// Decided is what the sites get of the new flows of clients here, this one first; none
	// where that is configured. Nowhere is what no site has room for.
	Decided []Share `json:"decided,omitempty"`
	Nowhere float64 `json:"nowhere,omitempty"`
	Reason  string  `json:"reason,omitempty"` // of the decision
}

// Twice tells whether several backends have a name, as those of one node in Consul may.
func (s *Service) Twice(name string) bool {
	n := 0
	for _, b := range s.Backends {
		if b.Name == name {
			n++
		}
	}
	return n > 1
}

// Share is what a site gets of new flows.
type Share struct {
	Site   string  `json:"site"`
	Share  float64 `json:"share"`
	Room   float64 `json:"room"` // the most that its load allows
	Reason string  `json:"reason,omitempty"`
}

// Traffic is what goes somewhere, per second.
type Traffic struct {
	New     float64 `json:"new"`     // flows of TCP that begin: SYNs, those sent again too
	Old     float64 `json:"old"`     // flows with another packet in a second
	Packets float64 `json:"packets"` // of both
}

// Add adds other traffic.
func (t *Traffic) Add(more Traffic) {
	t.New, t.Old, t.Packets = t.New+more.New, t.Old+more.Old, t.Packets+more.Packets
}

// VIP is an address of a service, and what comes in for it.
type VIP struct {
	Traffic

	VIP  string  `json:"vip"`
	Bits float64 `json:"bits"` // per second
}

// Backend is who gets new flows of a service: a backend, or another site. Its traffic is
// that of all its services for which it was the first choice here.
type Backend struct {
	Traffic

	Name   string  `json:"name"`
	SID    string  `json:"sid,omitempty"`
	Site   bool    `json:"site,omitempty"` // another site
	State  string  `json:"state"`          // active, draining, dead
	Health string  `json:"health,omitempty"`
	Level  string  `json:"level,omitempty"`
	Load   float64 `json:"load"`   // share of the capacity; below 0 it is not known
	Weight uint32  `json:"weight"` // its share of the configuration
	Share  float64 `json:"share"`  // of new flows
	Taken  float64 `json:"taken"`  // new flows per second, of all its services, as its agent says
	Guests float64 `json:"guests"` // those of them that came by gateways of other sites
	Why    string  `json:"why,omitempty"`
}

// Site is another site.
type Site struct {
	Name    string  `json:"name"`
	Entries []Entry `json:"entries"`
	Pinned  Traffic `json:"pinned"` // to its backends, of flows with pins
}

// Entry is a gateway of another site.
type Entry struct {
	Traffic

	SID string `json:"sid"`
	Why string `json:"why,omitempty"` // it cannot be reached
}

// All is what goes to a site.
func (s *Site) All() Traffic {
	sum := s.Pinned
	for _, e := range s.Entries {
		sum.Add(e.Traffic)
	}
	return sum
}

// Peer is a BGP neighbour.
type Peer struct {
	Name      string         `json:"name"`
	Address   string         `json:"address,omitempty"`
	AS        uint32         `json:"as,omitempty"`
	State     string         `json:"state"`
	Up        bool           `json:"up"`
	Since     time.Time      `json:"since"`
	Announced map[string]int `json:"announced"` // prefixes by family
	BFD       string         `json:"bfd,omitempty"`
	LastError string         `json:"last_error,omitempty"`
	ErrorAt   time.Time      `json:"last_error_at,omitzero"`
}

// Announcement is a prefix, and what becomes of it.
type Announcement struct {
	Prefix   string    `json:"prefix"`
	Set      string    `json:"set"`
	Presence string    `json:"presence"` // announced, lowered, withdrawn
	Reason   string    `json:"reason"`
	Since    time.Time `json:"since"`
}

// Probe is the damped result of one.
type Probe struct {
	Name   string    `json:"name"`
	Health string    `json:"health"`
	Since  time.Time `json:"since"`
	Reason string    `json:"reason,omitempty"`
	Good   string    `json:"good,omitempty"` // the window: 6/8 ++-+++-+, the newest last
}
