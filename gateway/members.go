package gateway

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/razor-steering/razor/gateway/balancer"
	"github.com/razor-steering/razor/steering"
	"github.com/razor-steering/razor/upstreams/consul"
)

// leaveAfter is how long a backend that is in Consul no longer, and whose agent never
// spoke here, keeps its flows, or one that is in its list no longer: as long as a slot
// remembers who had it before.
const leaveAfter = 10 * time.Minute

// wordPause is until it is looked again what agents say of backends that Consul says less
// good of.
const wordPause = time.Second

// member is a backend that Consul, or a list, has or had. It is kept in a file.
type member struct {
	ID      string // of the instance, or the address and port of the endpoint
	Name    string
	Locator string
	Target  int
	Weight  int
	State   balancer.State
	Left    time.Time `json:",omitzero"` // since when it is not there any more; zero while it is
	Drains  time.Time `json:",omitzero"` // since when it drains for that
	Of      string    `json:",omitzero"` // the query of Consul that it answers; "" of an endpoint
}

// agentWord is what is known of a backend's agent here.
type agentWord struct {
	spoke bool // ever
	dead  bool // it is silent, and that is believed
	// silent is that it is, and that no silence of this service is disbelieved: also of a
	// backend that drains by configuration, which silence makes nothing else.
	silent bool
}

// serviceMembers are the backends of a service by their SIDs, as Consul and agents make
// them:
//
//   - What an agent says of its backend itself goes before what Consul says of its health,
//     and that it does not have it: that may be Consul's trouble. Such a backend leaves when
//     its agent is silent, and that is believed.
//   - Of a backend whose agent never spoke here Consul alone is asked: critical is draining,
//     and who is gone drains for leaveAfter, and is dead then.
//   - Maintenance in Consul is an operator's will: draining, whatever is left.
//   - So is another query: who answered the one before, and does not answer this one, is as
//     one that is not in a list any more.
//   - Else a guard holds what would go by Consul's word alone and leave fewer than the floor.
//
// Those of a list in Redis are as the list has them (see listed). Who is not in it any more
// drains by an operator's will, whatever is left, and is dead when its agent is silent, or
// after leaveAfter. What of a mass loss is not obeyed is the lists' matter.
//
// The methods depend on their arguments alone.
type serviceMembers struct {
	config   ConsulServiceConfig
	upstream string // the application whose list has the backends; "" where Consul has
	site     string // of this gateway
	service  string
	block    netip.Prefix
	guard    steering.Guard
	list     map[netip.Addr]member
	bad      map[string]string // why an instance or an endpoint is left out, by ID
	held     string            // why not all that Consul says is obeyed; "" is that it is
}

// spec is what an instance, or an endpoint, says of its backend.
type spec struct {
	member

	health consul.Health // "" of an endpoint
}

// read takes an instance for a backend. Neither spec nor error is for one of another site.
func (m *serviceMembers) read(is consul.Member) (sid netip.Addr, s *spec, err error) {
	if site := m.config.Site; site != "" && is.Meta["site"] != site {
		return sid, nil, nil
	}
	number := func(key string, most, without int) (int, error) {
		text, ok := is.Meta[key]
		if !ok {
			return without, nil
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 || n > most {
			return 0, fmt.Errorf("meta %s %q: want a number from 0 to %d", key, text, most)
		}
		return n, nil
	}
	locator, err := netip.ParsePrefix(is.Meta["locator"])
	if err != nil || !locator.Addr().Is6() || locator.Addr().Is4In6() || locator.Bits() != 64 || locator != locator.Masked() {
		return sid, nil, fmt.Errorf("meta locator %q: want an IPv6 /64", is.Meta["locator"])
	}
	if !m.block.Contains(locator.Addr()) {
		return sid, nil, fmt.Errorf("meta locator %q: outside of gateway.dataplane.sr_block", is.Meta["locator"])
	}
	target, err := number("target", mostTarget, 0)
	if err != nil {
		return sid, nil, err
	}
	weight, err := number("weight", mostWeight, 1)
	if err != nil {
		return sid, nil, err
	}
	sid = balancer.Hunt(locator, uint16(target))
	if text, ok := is.Meta["sid"]; ok {
		if said, err := netip.ParseAddr(text); err != nil || said != sid {
			return sid, nil, fmt.Errorf("meta sid %q: want %v, by its locator and target", text, sid)
		}
	}
	name := is.Node
	if target > 0 {
		name += "/" + strconv.Itoa(target)
	}
	return sid, &spec{member{ID: is.ID, Name: name, Locator: locator.String(), Target: target, Weight: weight}, is.Health}, nil
}

// specs reads all instances. Of two for one backend the healthier one counts.
func (m *serviceMembers) specs(instances []consul.Member) (map[netip.Addr]*spec, map[string]string) {
	out, bad := map[netip.Addr]*spec{}, map[string]string{}
	rank := map[consul.Health]int{consul.Passing: 0, consul.Warning: 1, consul.Critical: 2, consul.Maintenance: 3}
	for _, is := range instances {
		sid, s, err := m.read(is)
		if err != nil {
			bad[is.ID] = err.Error()
			continue
		}
		if s == nil {
			continue
		}
		if was := out[sid]; was != nil {
			first, second := was, s
			if rank[s.health] < rank[was.health] {
				first, second = s, was
			}
			bad[second.ID] = fmt.Sprintf("its SID %v is that of %s too", sid, first.ID)
			s = first
		}
		out[sid] = s
	}
	return out, bad
}

// next is what the list is by what Consul says and agents have said, and when it may be
// another without anything being said; zero for never. It tells whether it is another.
func (m *serviceMembers) next(instances []consul.Member, word func(netip.Addr) agentWord, now time.Time) (changed bool, again time.Time) {
	specs, bad := m.specs(instances)
	return m.settle(specs, bad, word, now)
}

// settle has the list be of those that there are, and of those that are leaving.
func (m *serviceMembers) settle(specs map[netip.Addr]*spec, bad map[string]string, word func(netip.Addr) agentWord, now time.Time) (changed bool, again time.Time) {
	next := map[netip.Addr]member{}
	var lost []netip.Addr // that were to have new flows, and are not by Consul's word alone
	for sid, s := range specs {
		is := s.member
		is.State, is.Of = balancer.Active, m.query()
		switch {
		case s.health == consul.Maintenance:
			is.State = balancer.Draining
		case s.health == consul.Critical && !word(sid).spoke:
			is.State, again = balancer.Draining, now.Add(wordPause) // its agent may speak
		}
		next[sid] = is
	}
	for sid, was := range m.list {
		is, there := next[sid]
		if !there {
			if is, there = m.left(was, bad, word(sid), now); !there {
				continue
			}
			next[sid] = is
			if !is.Left.IsZero() {
				again = now.Add(wordPause) // its agent may be silent
			}
		}
		willed := m.willed(was) || specs[sid] != nil && specs[sid].health == consul.Maintenance
		if was.State == balancer.Active && was.Weight > 0 && is.State != balancer.Active && !willed {
			lost = append(lost, sid)
		}
	}
	m.hold(next, lost, now)
	if m.held != "" {
		again = now.Add(wordPause)
	}
	changed = !maps.Equal(m.list, next)
	m.list, m.bad = next, bad
	return changed, again
}

// query is what Consul is asked for the backends; "" where it is not.
func (m *serviceMembers) query() string {
	if m.upstream != "" {
		return ""
	}
	c := &m.config
	return fmt.Sprintf("%q of %q, tag %q, site %q", c.Service, c.Datacenters, c.Tag, c.Site)
}

// willed tells whether it is an operator's will that a backend is not there any more.
func (m *serviceMembers) willed(was member) bool {
	return m.upstream != "" || was.Of != "" && was.Of != m.query()
}

// left is a backend that nothing is for any more, if it is one still. One whose instance or
// endpoint cannot be used is as before.
func (m *serviceMembers) left(was member, bad map[string]string, word agentWord, now time.Time) (member, bool) {
	if bad[was.ID] != "" {
		return was, true
	}
	now = now.Round(0).UTC() // as it is in the file
	if was.Left.IsZero() {
		was.Left = now
	}
	if word.spoke && (word.dead || word.silent && m.willed(was)) {
		return was, false
	}
	if word.spoke && !m.willed(was) {
		was.State, was.Drains = balancer.Active, time.Time{} // agents say what it is
		return was, true
	}
	if was.State != balancer.Draining || was.Drains.IsZero() {
		was.State, was.Drains = balancer.Draining, now
	}
	return was, now.Sub(was.Drains) < leaveAfter
}

// hold has those of the lost that the guard does not let go be active as before.
func (m *serviceMembers) hold(next map[netip.Addr]member, lost []netip.Addr, now time.Time) {
	active := func(list map[netip.Addr]member) (n int) {
		for _, is := range list {
			if is.State == balancer.Active && is.Weight > 0 {
				n++
			}
		}
		return n
	}
	m.guard.Serves(now, active(m.list))
	wanted := active(next)
	verdict := m.guard.Decide(now, steering.Change{Serving: wanted + len(lost), Wanted: wanted, Losing: len(lost)})
	slices.SortFunc(lost, netip.Addr.Compare)
	m.held = ""
	if verdict.Lose == len(lost) {
		return
	}
	m.held = fmt.Sprintf("%d backends would go by consul's word alone and %d be left, want %d at least", len(lost), wanted, max(1, verdict.Floor))
	for _, sid := range lost[verdict.Lose:] {
		is := next[sid]
		is.State, is.Drains = balancer.Active, time.Time{}
		next[sid] = is
	}
}

// backends are the members as the configuration would have them.
func (m *serviceMembers) backends() []BackendConfig {
	var out []BackendConfig
	for _, is := range m.list {
		weight := is.Weight
		out = append(out, BackendConfig{Name: is.Name, Locator: is.Locator, Target: is.Target, Weight: &weight, State: string(is.State)})
	}
	slices.SortFunc(out, func(a, b BackendConfig) int { return cmp.Or(cmp.Compare(a.Locator, b.Locator), a.Target-b.Target) })
	return out
}
