package integration

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/razor-steering/razor/integration/consultest"
	"github.com/razor-steering/razor/integration/redistest"
	"github.com/razor-steering/razor/upstreams"
	"github.com/razor-steering/razor/upstreams/consul"
)

// TestSyncTooManyQueries: Consul refuses everybody at an address that has too many
// connections, so that the sync does not begin.
func TestSyncTooManyQueries(t *testing.T) {
	t.Parallel()
	c := consultest.Start(t, "limits { http_max_conns_per_client = 200 }")
	var lists []string
	for i := range 300 {
		lists = append(lists, fmt.Sprintf("app%d.example=web", i))
	}
	s := newSync(t, syncConfig(c.Addr, lists...), upstreams.Config{Address: freeAddr(t)})
	err := s.Run(t.Context(), s.report)
	want := `sync.lists: "300 queries": consul takes 200 connections of one client; want https in sync.consul.address, or limits.http_max_conns_per_client = 600 in the configuration of consul`
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// TestSyncManyLists: as many queries as lists wait, and a change is seen in its
// list alone.
func TestSyncManyLists(t *testing.T) {
	t.Parallel()
	c, r := consultest.Start(t), redistest.Start(t)
	var lists []string
	for i := range 300 {
		lists = append(lists, fmt.Sprintf("app%d.example=web-%d", i, i))
	}
	s := startSync(t, syncConfig(c.Addr, lists...), r.Addr)
	for i := range 300 {
		c.RegisterMany(fmt.Sprint("web-", i), addrPorts(2))
	}
	s.until("all lists are full", func() bool { return s.metric(`razor_sync_changes_total{action="add"}`) == "600" })
	c.Register("web-7", "more", addrPort(9))
	s.has(r, "app7.example", "[2001:db8::1]:80", "[2001:db8::2]:80", "[2001:db8::9]:80")
	s.until("one more endpoint was added, and no other", func() bool { return s.metric(`razor_sync_changes_total{action="add"}`) == "601" })
}

// TestSyncManyListsOverHTTPS: over https more queries wait than Consul takes
// connections.
func TestSyncManyListsOverHTTPS(t *testing.T) {
	t.Parallel()
	cert, key := certificate(t, "127.0.0.1")
	port := redistest.FreePort(t)
	c, r := consultest.Start(t, "limits { http_max_conns_per_client = 200 }", fmt.Sprintf("ports { https = %d }\ntls { defaults { cert_file = %q key_file = %q } }", port, cert, key)), redistest.Start(t)
	var lists []string
	for i := range 300 {
		lists = append(lists, fmt.Sprintf("app%d.example=web", i))
	}
	host, _, _ := net.SplitHostPort(c.Addr)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("unused, as there are no ACLs\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := syncConfig(c.Addr, lists...)
	cfg.Consul = consul.AgentConfig{
		Address: fmt.Sprintf("https://%s:%d", host, port), TokenFile: token,
		TLS: &upstreams.TLSConfig{CA: cert, ServerName: "127.0.0.1"},
	}
	c.Register("web", "web-1", addrPort(1))
	s := startSync(t, cfg, r.Addr)
	full := func(n int) func() bool {
		return func() bool { return s.metric(`razor_sync_changes_total{action="add"}`) == fmt.Sprint(n) }
	}
	s.until("all lists are full", full(300))
	c.Register("web", "web-2", addrPort(2))
	s.until("all have the change", full(600))
}

// TestSyncOverSocket: the agent behind a Unix socket.
func TestSyncOverSocket(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "consul.sock")
	link, r := socketTo(t, socket, consultest.Start(t)), redistest.Start(t)
	cfg := syncConfig("", "web.example=web")
	cfg.Consul.Address = "unix://" + socket
	link.Register("web", "web-1", addrPort(1))
	s := startSync(t, cfg, r.Addr)
	s.has(r, "web.example", "[2001:db8::1]:80")
}

// socketTo passes a Unix socket on to a server.
func socketTo(t *testing.T, socket string, c *consultest.Server) *consultest.Server {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", c.Addr)
			if err != nil {
				client.Close()
				continue
			}
			go func() { _, _ = io.Copy(client, server); client.Close() }()
			go func() { _, _ = io.Copy(server, client); server.Close() }()
		}
	}()
	return c
}

// TestSyncACL: what a token must not see is not taken for gone, and a token that
// must not register a check holds the lock all the same.
func TestSyncACL(t *testing.T) {
	t.Parallel()
	const root = "c0ffee00-0000-4000-8000-000000000000"
	c, r := consultest.Start(t, `acl {
  enabled = true
  default_policy = "deny"
  policy_ttl = "1ms"
  token_ttl = "1ms"
  tokens { initial_management = "`+root+`" agent = "`+root+`" default = "`+root+`" }
}`), redistest.Start(t)
	config := api.DefaultNonPooledConfig()
	config.Address, config.Token = c.Addr, root
	client, err := api.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	token := func(name, rules string) (accessor, secret string) {
		if _, _, err := client.ACL().PolicyCreate(&api.ACLPolicy{Name: name, Rules: rules}, nil); err != nil {
			t.Fatal(err)
		}
		out, _, err := client.ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLTokenPolicyLink{{Name: name}}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return out.AccessorID, out.SecretID
	}
	const rules = `key "razor/sync" { policy = "write" } session_prefix "" { policy = "write" } node_prefix "" { policy = "read" }`
	_, secret := token("sync", rules+` service "web" { policy = "read" }`)
	c.Client = client
	c.Register("web", "web-1", addrPort(1))
	c.Register("web", "web-2", addrPort(2))
	cfg := syncConfig(c.Addr, "web.example=web")
	cfg.Consul.Token = secret
	s := startSync(t, cfg, r.Addr)
	s.has(r, "web.example", "[2001:db8::1]:80", "[2001:db8::2]:80")
	if !strings.Contains(s.log.String(), "must not register a check") {
		t.Errorf("not said that a check is missing:\n%s", s.log)
	}
	if _, _, err := client.ACL().PolicyUpdate(policyOf(t, client, "sync", rules), nil); err != nil {
		t.Fatal(err)
	}
	s.stop()
	s = startSync(t, cfg, r.Addr)
	s.until("what is hidden is said", func() bool { return strings.Contains(s.log.String(), "the ACL token hides a part of the instances") })
	s.has(r, "web.example", "[2001:db8::1]:80", "[2001:db8::2]:80")
}

func policyOf(tb testing.TB, client *api.Client, name, rules string) *api.ACLPolicy {
	tb.Helper()
	p, _, err := client.ACL().PolicyReadByName(name, nil)
	if err != nil {
		tb.Fatal(err)
	}
	p.Rules = rules
	return p
}
