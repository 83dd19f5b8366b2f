package consultest

import (
	"bytes"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
)

// settings are those of a server that is fast, quiet, and local.
func (s *Server) settings() string {
	var b bytes.Buffer
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	clients := s.host.String()
	if s.Addr6 != "" {
		clients += " ::1"
	}
	say("node_name = %q", s.Node)
	say("datacenter = %q", s.Datacenter)
	say("server = %t", s.kind != agent)
	say("bind_addr = %q", s.host)
	say("client_addr = %q", clients)
	say("log_level = %q", "info")
	say("disable_update_check = true")
	say("session_ttl_min = %q", "1s")
	say("ui_config { enabled = false }")
	say("performance { raft_multiplier = 1 }")
	// More than the open files that the system allows would stop the agent.
	say("limits { http_max_conns_per_client = 4000 }")
	say("telemetry { filter_default = false }")
	wan := -1
	if s.wan != nil {
		wan = s.port + serfWAN
	}
	say("ports { http = %d, server = %d, serf_lan = %d, serf_wan = %d, https = -1, dns = -1, grpc = -1, grpc_tls = -1 }",
		s.port+http, s.port+rpc, s.port+serfLAN, wan)
	if s.kind != development {
		say("data_dir = %q", filepath.Join(s.Dir, "data"))
	}
	if s.kind == member {
		say("bootstrap_expect = %d", len(s.members))
	}
	say(`retry_interval = "100ms"`)
	say(`retry_interval_wan = "100ms"`)
	say("retry_join = [%s]", others(s, s.members, serfLAN))
	say("retry_join_wan = [%s]", others(s, s.wan, serfWAN))
	return b.String()
}

// others are the addresses of those that run already, but s, in HCL.
func others(s *Server, servers []*Server, port int) string {
	var list []string
	for _, o := range servers {
		if o != s && o.host.IsValid() {
			list = append(list, strconv.Quote(o.address(port)))
		}
	}
	return strings.Join(list, ", ")
}

// The ports of a server follow each other.
const (
	http = iota
	rpc
	serfLAN
	serfWAN
)

func (s *Server) address(port int) string {
	return net.JoinHostPort(s.host.String(), strconv.Itoa(s.port+port))
}
