package consultest

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"

	"github.com/hashicorp/consul/api"
)

// Register registers an instance of a service at the agent s, with a check that
// passes until Warn or Fail (a TTL check with an hour to live).
func (s *Server) Register(service, id string, addr netip.AddrPort, options ...func(*api.AgentServiceRegistration)) {
	s.tb.Helper()
	r := &api.AgentServiceRegistration{
		Name: service, ID: id, Address: addr.Addr().String(), Port: int(addr.Port()),
		Check: &api.AgentServiceCheck{TTL: "1h", Status: api.HealthPassing},
	}
	for _, o := range options {
		o(r)
	}
	s.must(s.Client.Agent().ServiceRegister(r))
}

// Pass makes the check of an instance passing.
func (s *Server) Pass(id string) { s.tb.Helper(); s.update(id, api.HealthPassing) }

// Warn makes it warning.
func (s *Server) Warn(id string) { s.tb.Helper(); s.update(id, api.HealthWarning) }

// Fail makes it critical.
func (s *Server) Fail(id string) { s.tb.Helper(); s.update(id, api.HealthCritical) }

func (s *Server) update(id, status string) {
	s.tb.Helper()
	s.must(s.Client.Agent().UpdateTTL("service:"+id, "", status))
}

// Deregister takes an instance away.
func (s *Server) Deregister(id string) {
	s.tb.Helper()
	s.must(s.Client.Agent().ServiceDeregister(id))
}

// RegisterMany writes an instance of a service for each address into the catalogue,
// without an agent. The i-th has the ID "service-i". Each has a check that passes,
// and so has its node.
func (s *Server) RegisterMany(service string, addrs []netip.AddrPort) {
	s.tb.Helper()
	// A write takes Consul longer the more services its node has.
	h := fnv.New32()
	_, _ = h.Write([]byte(service))
	rack := h.Sum32() % 20

	var ops api.TxnOps
	for i, addr := range addrs {
		ip, node, id := addr.Addr().String(), fmt.Sprintf("node-%d-%d", rack, i), fmt.Sprintf("%s-%d", service, i)
		if !s.nodes[node] {
			s.nodes[node] = true
			ops = append(ops,
				&api.TxnOp{Node: &api.NodeTxnOp{Verb: api.NodeSet, Node: api.Node{Node: node, Address: ip}}},
				passing(api.HealthCheck{Node: node, CheckID: "alive", Name: "Agent alive"}))
		}
		ops = append(ops,
			&api.TxnOp{Service: &api.ServiceTxnOp{Verb: api.ServiceSet, Node: node, Service: api.AgentService{
				ID: id, Service: service, Address: ip, Port: int(addr.Port()),
			}}},
			passing(api.HealthCheck{Node: node, CheckID: "service:" + id, Name: "Service check", ServiceID: id, ServiceName: service}))
	}
	for some := range slices.Chunk(ops, 128) { // Consul's limit
		ok, answer, _, err := s.Client.Txn().Txn(some, nil)
		s.must(err)
		if !ok {
			s.tb.Fatalf("transaction: %v", answer.Errors)
		}
	}
}

func passing(c api.HealthCheck) *api.TxnOp {
	c.Status = api.HealthPassing
	return &api.TxnOp{Check: &api.CheckTxnOp{Verb: api.CheckSet, Check: c}}
}

func (s *Server) must(err error) {
	s.tb.Helper()
	if err != nil {
		s.tb.Fatalf("%v\n%s", err, s.log())
	}
}
