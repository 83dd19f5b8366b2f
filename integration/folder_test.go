package integration

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/razor-steering/razor/integration/consultest"
	"github.com/razor-steering/razor/upstreams/consul"
)

// folder follows keys in Consul.
type folder struct {
	*consul.Folder

	tb  testing.TB
	log *syncBuffer

	mu   sync.Mutex
	last consul.Values
}

func followFolder(tb testing.TB, cfg consul.AgentConfig, datacenter string) *folder {
	tb.Helper()
	f := &folder{tb: tb, log: &syncBuffer{}}
	var err error
	if f.Folder, err = consul.NewFolder(cfg, "gateway.consul", "razor/sites/", datacenter, slog.New(slog.NewTextHandler(f.log, nil))); err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.Follow(ctx, func(v consul.Values) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.last = v
		})
	}()
	tb.Cleanup(func() {
		cancel()
		<-done
		f.Close()
	})
	return f
}

// until waits until there are keys with values, and whether why there is nothing new has
// words in it; "" is that there is no such why.
func (f *folder) until(what, why string, want ...string) {
	f.tb.Helper()
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		f.mu.Lock()
		last := f.last
		f.mu.Unlock()
		var got []string
		for _, key := range slices.Sorted(maps.Keys(last.Of)) {
			got = append(got, key+"="+string(last.Of[key]))
		}
		failed := last.Err != nil && why != "" && strings.Contains(last.Err.Error(), why)
		if slices.Equal(got, want) && failed == (why != "") && (last.Err == nil) == (why == "") && (!last.At.IsZero() || why != "") {
			return
		}
		if time.Now().After(end) {
			f.tb.Fatalf("%s: %q, %v, want %q, %s\n%s", what, got, last.Err, want, why, f.log)
		}
	}
}

// putKey writes a key.
func putKey(tb testing.TB, c *consultest.Server, key, value string) {
	tb.Helper()
	if _, err := c.Client.KV().Put(&api.KVPair{Key: key, Value: []byte(value)}, nil); err != nil {
		tb.Fatal(err)
	}
}

// What keys said last stays while Consul does not answer. A Consul that was started again
// without them has none.
func TestFolder(t *testing.T) {
	t.Parallel()
	c := consultest.Start(t)
	f := followFolder(t, consul.AgentConfig{Address: "http://" + c.Addr}, "")
	f.until("nothing", "")
	putKey(t, c, "razor/sites/east", "1")
	putKey(t, c, "razor/sitesnorth", "2")
	f.until("one key", "", "east=1")
	putKey(t, c, "razor/sites/north/a", "")
	putKey(t, c, "razor/sites/east", "3")
	f.until("two, one of them another", "", "east=3", "north/a=")
	if _, err := c.Client.KV().Delete("razor/sites/north/a", nil); err != nil {
		t.Fatal(err)
	}
	f.until("one is deleted", "", "east=3")
	c.Kill()
	f.until("no answer", "connect", "east=3")
	if v, err := f.Read(t.Context()); err == nil {
		t.Errorf("read: %v", v)
	}
	c.Restart()
	f.until("an empty one", "")
	putKey(t, c, "razor/sites/east", "4")
	f.until("one key again", "", "east=4")
	if v, err := f.Read(t.Context()); err != nil || string(v.Of["east"]) != "4" {
		t.Errorf("read: %v, %v", v, err)
	}
	if f.Failures() == 0 || strings.Count(f.log.String(), "consul does not answer") != 1 || strings.Count(f.log.String(), "consul answers again") != 1 {
		t.Errorf("%d failures\n%s", f.Failures(), f.log)
	}
}

// Keys that a token hides are no keys that are gone: what it has no right to is said.
func TestFolderRights(t *testing.T) {
	t.Parallel()
	const root = "c0ffee00-0000-4000-8000-000000000000"
	c := consultest.Start(t, `acl {
  enabled = true
  default_policy = "deny"
  tokens { initial_management = "`+root+`" agent = "`+root+`" default = "`+root+`" }
}`)
	as := &api.WriteOptions{Token: root}
	token := func(name, rules string) string {
		t.Helper()
		if _, _, err := c.Client.ACL().PolicyCreate(&api.ACLPolicy{Name: name, Rules: rules}, as); err != nil {
			t.Fatal(err)
		}
		made, _, err := c.Client.ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLTokenPolicyLink{{Name: name}}}, as)
		if err != nil {
			t.Fatal(err)
		}
		return made.SecretID
	}
	putKey(t, c, "razor/sites/east", "1")
	putKey(t, c, "razor/sites/north", "2")
	const right = `key_prefix "razor/sites/" { policy = "read" }`
	follow := func(name, rules string) *folder {
		return followFolder(t, consul.AgentConfig{Address: "http://" + c.Addr, Token: token(name, rules)}, "")
	}
	follow("all", right).until("with all rights", "", "east=1", "north=2")
	follow("none", `key_prefix "razor/sync/" { policy = "read" }`).until("with none", `the ACL token hides a part of the keys; want key_prefix "razor/sites/" read`)
	follow("part", right+` key "razor/sites/north" { policy = "deny" }`).until("with a part of them", "the ACL token hides a part of the keys")
	unknown := followFolder(t, consul.AgentConfig{Address: "http://" + c.Addr, Token: "1e0e0e0e-0000-4000-8000-000000000000"}, "")
	unknown.until("with no such token", "403")
}

// The keys of another datacenter are asked for there.
func TestFolderOfDatacenter(t *testing.T) {
	t.Parallel()
	centres := consultest.WAN(t, 1, 1)
	one, two := centres[0][0], centres[1][0]
	putKey(t, one, "razor/sites/east", "of dc1")
	putKey(t, two, "razor/sites/east", "of dc2")
	f := followFolder(t, consul.AgentConfig{Address: "http://" + one.Addr}, "dc2")
	f.until("dc2's", "", "east=of dc2")
	two.Kill()
	f.until("dc2 is away", "500", "east=of dc2")
}
