package consul

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/razor-steering/razor/upstreams"
)

// entry is what is read of an instance in /v1/health/service: a third of what
// Consul tells, in the time that matters after a change.
type entry struct {
	Node struct {
		Node            string
		Address         string
		Datacenter      string
		TaggedAddresses map[string]string
		Meta            map[string]string
	}
	Service struct {
		ID              string
		Address         string
		Port            int
		TaggedAddresses map[string]struct {
			Address string
			Port    int
		}
		Meta    map[string]string
		Weights struct{ Passing, Warning int }
	}
	Checks []struct{ CheckID, Name, Status string }
}

// status is the health of an instance: that of its worst check.
type status uint8

const (
	passing status = iota
	warning
	critical
	maintenance // somebody wants it out
	gone        // not registered
)

var statusWords = [...]string{api.HealthPassing, api.HealthWarning, api.HealthCritical, api.HealthMaint, "deregistered"}

func (s status) String() string { return statusWords[s] }

// instance is one registration of a service, as an endpoint.
type instance struct {
	upstreams.Endpoint
	status status
	why    string  // the status in words, with the check that says so
	id     string  // node and service ID
	member *Member // where that is asked for, and not an endpoint
}

// in tells whether the instance belongs into the list.
func (i *instance) in() bool { return i.status <= warning }

// status is the worst of the checks, in words with its name.
func (e *entry) status() (status, string) {
	worst, why := passing, api.HealthPassing
	for _, c := range e.Checks {
		var s status
		switch {
		case c.CheckID == api.NodeMaint || strings.HasPrefix(c.CheckID, api.ServiceMaintPrefix):
			s = maintenance
		case c.Status == api.HealthPassing:
			s = passing
		case c.Status == api.HealthWarning:
			s = warning
		default:
			s = critical
		}
		if s > worst {
			worst, why = s, fmt.Sprintf("%v: %s", s, c.Name)
		}
	}
	return worst, why
}

// instance is the entry as an endpoint. tagged is the name of the tagged address
// to take. The defects are of attributes that are left out; an error takes the
// whole instance out.
func (e *entry) instance(tagged string) (instance, []string, error) {
	out := instance{id: e.Node.Node + "/" + e.Service.ID}
	addr, port, err := e.address(tagged)
	if err != nil {
		return out, nil, err
	}
	if out.Addr, err = endpointAddr(addr, port); err != nil {
		return out, nil, err
	}
	out.status, out.why = e.status()
	out.Weight = e.weight(out.status)
	var left []string
	for _, key := range []string{"sid", "site"} {
		text, ok := e.Service.Meta[key]
		if !ok {
			text, ok = e.Node.Meta[key]
		}
		if !ok || text == "" {
			continue
		}
		if err := out.Set(key + "=" + text); err != nil {
			left = append(left, fmt.Sprintf("meta %s %q: %v", key, text, err))
		}
	}
	return out, left, nil
}

// address is where the instance is reached: the tagged address that is asked for,
// else IPv6 first. The node's address is that of a service without one.
func (e *entry) address(tagged string) (addr string, port int, err error) {
	s := &e.Service
	if tagged != "" {
		if t, ok := s.TaggedAddresses[tagged]; ok {
			return t.Address, t.Port, nil
		}
		if a, ok := e.Node.TaggedAddresses[tagged]; ok {
			return a, s.Port, nil
		}
		return "", 0, fmt.Errorf("no tagged address %q", tagged)
	}
	if t, ok := s.TaggedAddresses["lan_ipv6"]; ok {
		return t.Address, t.Port, nil
	}
	if s.Address != "" {
		return s.Address, s.Port, nil
	}
	if a, ok := e.Node.TaggedAddresses["lan_ipv6"]; ok {
		return a, s.Port, nil
	}
	return e.Node.Address, s.Port, nil
}

func endpointAddr(addr string, port int) (netip.AddrPort, error) {
	a, err := netip.ParseAddr(addr)
	switch {
	case err != nil:
		return netip.AddrPort{}, fmt.Errorf("address %q is not an IP address", addr)
	case a.Zone() != "":
		return netip.AddrPort{}, fmt.Errorf("address %q has a zone identifier", addr)
	case a.IsUnspecified() || a.IsMulticast():
		return netip.AddrPort{}, fmt.Errorf("address %q is nobody's", addr)
	case port < 1 || port > math.MaxUint16:
		return netip.AddrPort{}, errors.New("no port")
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(port)), nil
}

// weight is that of the instance's status. What was registered without weights
// has none at all.
func (e *entry) weight(s status) uint16 {
	w := e.Service.Weights
	switch {
	case w.Passing == 0 && w.Warning == 0:
		return 1
	case s == warning:
		return uint16(min(max(w.Warning, 0), math.MaxUint16))
	}
	return uint16(min(max(w.Passing, 0), math.MaxUint16))
}
