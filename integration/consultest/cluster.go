package consultest

import (
	"fmt"
	"testing"

	"github.com/hashicorp/consul/api"
)

// Cluster runs n servers of one datacentre and waits until they have a leader. Each
// keeps its data in its folder.
func Cluster(tb testing.TB, n int, config ...string) []*Server {
	tb.Helper()
	return clusters(tb, []int{n}, config)[0]
}

// WAN runs a cluster of each size, in the datacentres dc1, dc2, …, and waits until
// each answers for each: a query for another datacentre is handed on.
func WAN(tb testing.TB, sizes ...int) [][]*Server {
	tb.Helper()
	out := clusters(tb, sizes, nil)
	for _, s := range out[0][0].wan {
		for _, c := range out {
			s.wait("an answer of "+c[0].Datacenter, func() bool {
				nodes, _, err := s.Client.Catalog().Nodes(&api.QueryOptions{Datacenter: c[0].Datacenter})
				return err == nil && len(nodes) == len(c)
			})
		}
	}
	return out
}

func clusters(tb testing.TB, sizes []int, config []string) [][]*Server {
	tb.Helper()
	var all []*Server
	out := make([][]*Server, len(sizes))
	for dc, size := range sizes {
		for i := range size {
			out[dc] = append(out[dc], newServer(tb, member, fmt.Sprintf("dc%d", dc+1), fmt.Sprintf("server-%d", i+1), config))
		}
		all = append(all, out[dc]...)
	}
	for dc := range out {
		for _, s := range out[dc] {
			s.members = out[dc]
			if len(sizes) > 1 {
				s.wan = all
			}
		}
	}
	for _, s := range all {
		s.launch()
	}
	for _, s := range all {
		s.WaitReady()
		s.wait("the other servers", func() bool {
			peers, err := s.Client.Status().Peers()
			return err == nil && len(peers) == len(s.members)
		})
	}
	return out
}

// Agent runs an agent that is no server and has joined the cluster of s, as on the
// machines of services and edges.
func (s *Server) Agent(name string, config ...string) *Server {
	s.tb.Helper()
	a := newServer(s.tb, agent, s.Datacenter, name, config)
	a.members = s.members
	a.launch()
	a.WaitReady()
	return a
}

// Leader is the server of the cluster that s takes for its leader, which may have
// ended already; nil when s knows none.
func (s *Server) Leader() *Server {
	address, err := s.Client.Status().Leader()
	if err != nil {
		return nil
	}
	for _, m := range s.members {
		if m.address(rpc) == address {
			return m
		}
	}
	return nil
}
