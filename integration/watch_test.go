package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	operators "github.com/razor-steering/razor/deploy/watch"
	"github.com/razor-steering/razor/integration/consultest"
	"github.com/razor-steering/razor/integration/netlab"
	"github.com/razor-steering/razor/integration/redistest"
)

// watched is the lab of reporters with all other roles, and a Prometheus with the example
// of deploy/, which scrapes them from the router.
type watched struct {
	*reporters

	primary *redistest.Server
	web     http.Client
}

func newWatched(t *testing.T) *watched {
	t.Helper()
	prometheus, err := exec.LookPath("prometheus")
	if err != nil {
		if os.Getenv("RAZOR_TEST_REQUIRE") != "" {
			t.Fatal("prometheus is required here:", err)
		}
		t.Skip("needs prometheus (Debian: prometheus)")
	}
	w := &watched{primary: redistest.Start(t)}
	replica := redistest.Start(t, "--replicaof", w.primary.Host, strconv.Itoa(w.primary.Port))
	c := consultest.Start(t)
	c.Register("web", "web-1", addrPort(1))
	w.reporters = newReporters(t, func(h *hosts) {
		h.tor.Run("ip", "addr", "add", "2001:db8:0:1::55/128", "dev", "lo")
		bridge(t, h.tor, "[2001:db8:0:1::55]:8500", c.Addr)
		const everywhere = "http: {gateway: \"[::]:8055\", agent: \"[::]:8056\"}\n"
		h.edit["gateway"] = []string{
			"# A gateway in front", everywhere + "#", "  allowed:", "  site: west\n  consul: {address: \"http://[2001:db8:0:1::55]:8500\"}\n  allowed:",
			"    sr_block:", "    tables_listen: \"[2001:db8:5e:1::1]:5206\"\n    consul_lock: razor/west/decider\n    sr_block:", "unnumbered: [eth0]", "unnumbered: [eth0]\n    bfd: {interval: 300ms, multiplier: 3}",
		}
		for _, name := range []string{"web1", "web2"} {
			h.edit[name] = append(h.edit[name], "# A backend, the same", everywhere+"#")
		}
	})
	w.tor.Run("ip", "addr", "add", "2001:db8:0:1::53/128", "dev", "lo")
	w.tor.Run("ip", "addr", "add", "2001:db8:0:1::54/128", "dev", "lo")
	bridge(t, w.tor, "127.0.0.1:6379", w.primary.Addr)
	bridge(t, w.tor, "127.0.0.1:6380", replica.Addr)
	bridge(t, w.tor, "127.0.0.1:8500", c.Addr)
	w.fill("2001:db8::53")
	w.role("dns", `
dns: {listen: ["127.0.0.1:53"], zones: [example.org], state_dir: %s}
redis: {address: "127.0.0.1:6380"}
http: {listen: "[2001:db8:0:1::53]:8053"}`)
	w.role("sync", `
sync: {lists: [{app: web.example.org, service: web}]}
dns: {state_dir: %s}
redis: {address: "127.0.0.1:6379"}
http: {sync: "[2001:db8:0:1::54]:8054"}`)
	w.scrape(prometheus)
	w.web = http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return w.tor.Dial(ctx, network, address)
		},
	}}
	t.Cleanup(w.web.CloseIdleConnections)
	return w
}

// bridge has a server that runs beside the lab answer on a node.
func bridge(t *testing.T, n *netlab.Node, at, to string) {
	t.Helper()
	l, err := n.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to)
			if err != nil {
				_ = from.Close()
				continue
			}
			go func() { _, _ = io.Copy(from, server); _ = from.Close() }()
			go func() { _, _ = io.Copy(server, from); _ = server.Close() }()
		}
	}()
}

// fill writes a zone, whose route has an address.
func (w *watched) fill(address string) {
	w.t.Helper()
	ctx := w.t.Context()
	for _, err := range []error{
		w.primary.Client.HSet(ctx, "example.org:CONFIG", "SOA", "ns1.example.org. hostmaster.example.org. 1 3600 600 86400 60", "NS", "ns1.example.org").Err(),
		w.primary.Client.SAdd(ctx, "www.example.org:AAAA", address).Err(),
	} {
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

// role runs a role on the router.
func (w *watched) role(name, config string) {
	w.t.Helper()
	a := &announcer{tb: w.t, node: w.tor, role: name, config: filepath.Join(w.tor.Dir, name+".yaml")}
	if err := os.WriteFile(a.config, fmt.Appendf(nil, config, filepath.Join(w.tor.Dir, name)), 0o600); err != nil {
		w.t.Fatal(err)
	}
	a.start()
}

// scrape starts Prometheus on the router, with the example and a shorter interval.
func (w *watched) scrape(prometheus string) {
	w.t.Helper()
	text, err := os.ReadFile("../deploy/prometheus.yml")
	if err != nil {
		w.t.Fatal(err)
	}
	rules, err := filepath.Abs("../deploy/alerts")
	if err != nil {
		w.t.Fatal(err)
	}
	file := filepath.Join(w.tor.Dir, "prometheus.yml")
	config := strings.NewReplacer("interval: 15s", "interval: 1s", "alerts/*", rules+"/*").Replace(string(text))
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		w.t.Fatal(err)
	}
	w.tor.Start(prometheus, "--config.file="+file, "--storage.tsdb.path="+filepath.Join(w.tor.Dir, "tsdb"), "--web.listen-address=[::1]:9090", "--log.level=warn")
}

// get asks Prometheus for something, and tells whether it had an answer.
func (w *watched) get(path string, into any) bool {
	w.t.Helper()
	answer, err := w.web.Get("http://[::1]:9090/api/v1/" + path)
	if err != nil {
		return false
	}
	defer answer.Body.Close()
	var out struct {
		Status, Error string
		Data          json.RawMessage
	}
	if json.NewDecoder(answer.Body).Decode(&out) != nil {
		return false
	}
	if answer.StatusCode == http.StatusBadRequest {
		w.t.Fatalf("%s: %s", path, out.Error)
	}
	return out.Status == "success" && json.Unmarshal(out.Data, into) == nil
}

// sample is a series of an instant.
type sample struct {
	Metric map[string]string
	Value  [2]any
}

// query are the series that an expression has now, without those that are no number.
func (w *watched) query(expr string) []sample {
	w.t.Helper()
	var out struct{ Result []sample }
	w.get("query?query="+url.QueryEscape(expr), &out)
	return slices.DeleteFunc(out.Result, func(s sample) bool {
		text, _ := s.Value[1].(string)
		v, err := strconv.ParseFloat(text, 64)
		return err != nil || math.IsNaN(v)
	})
}

// live has something happen: queries over UDP and TCP, an edit, another flow.
func (w *watched) live(i int) {
	w.t.Helper()
	w.fill(fmt.Sprintf("2001:db8::%x", 0x100+i))
	for _, args := range [][]string{{"www.example.org", "AAAA"}, {"www.example.org", "AAAA", "+tcp"}, {"nobody.example.org", "A"}} {
		w.tor.Run("dig", append([]string{"@127.0.0.1", "+time=1", "+tries=5"}, args...)...)
	}
	w.flows = append(w.flows, beginFlow(w.t, w.client, i))
	w.goOn("while it is watched")
}

// panel is what Grafana asks for one.
type panel struct {
	Title   string
	Targets []struct{ Expr string }
}

// panels are those of the files, with why there may be no data.
func panels(t *testing.T) (out []panel, empty map[string]string) {
	t.Helper()
	empty = map[string]string{}
	for _, d := range operators.Dashboards() {
		text, err := os.ReadFile("../deploy/dashboards/" + d.Name + ".json")
		if err != nil {
			t.Fatal(err)
		}
		var board struct{ Panels []panel }
		if err := json.Unmarshal(text, &board); err != nil {
			t.Fatalf("%s: %v", d.Name, err)
		}
		for _, p := range board.Panels {
			p.Title = d.Name + ": " + p.Title
			out = append(out, p)
		}
		for _, r := range d.Rows {
			for _, p := range r.Panels {
				empty[d.Name+": "+p.Title] = p.Empty
			}
		}
	}
	return out, empty
}

// Every panel has data of processes that run, every rule speaks of series that there
// are, and nothing is registered that the catalog does not have.
func TestDashboardsHaveData(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	w.lab.Eventually("prometheus scrapes all", func() bool { return len(w.query("up == 1")) == 5 })
	w.begin(40, "web1", "web2")
	round := 0
	all, empty := panels(t)
	if len(all) < 50 {
		t.Fatalf("%d panels", len(all))
	}
	variables := strings.NewReplacer("$job", "razor-.*", "$site", ".*", "$instance", ".*", "$__rate_interval", "1m")
	for _, p := range all {
		for _, q := range p.Targets {
			expr := variables.Replace(q.Expr)
			if empty[p.Title] != "" {
				w.query(expr) // has to be taken
				continue
			}
			w.lab.Eventually(p.Title+" has data: "+expr, func() bool {
				if len(w.query(expr)) > 0 {
					return true
				}
				w.live(round)
				round++
				return false
			})
		}
	}
	w.seriesOfRules()
	w.series()
	if firing := w.query(`ALERTS{alertstate="firing"}`); len(firing) > 0 {
		t.Errorf("alerts fire: %v", firing)
	}
}

// seriesOfRules holds that what rules select is there, labels and all.
func (w *watched) seriesOfRules() {
	w.t.Helper()
	c := operators.Metrics()
	for _, group := range operators.Alerts() {
		for _, a := range group {
			selectors, err := c.Selectors(a.Expr)
			if err != nil {
				w.t.Error(err)
			}
			for _, s := range selectors {
				if a.Unseen == "" && len(w.query(s)) == 0 {
					w.t.Errorf("%s: there is no %s", a.Name, s)
				}
			}
		}
	}
	var rules struct {
		Groups []struct {
			Rules []struct{ Name, Health, LastError string }
		}
	}
	w.lab.Eventually("prometheus tells of its rules", func() bool { return w.get("rules", &rules) && len(rules.Groups) == len(operators.Alerts()) })
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			if r.Health != "ok" {
				w.t.Errorf("rule %s: %s, %s", r.Name, r.Health, r.LastError)
			}
		}
	}
}

// series holds that the catalog has every series that is scraped, with its labels.
func (w *watched) series() {
	w.t.Helper()
	c := operators.Metrics()
	there := w.query(`{__name__=~"razor_.*"}`)
	if len(there) < 300 {
		w.t.Errorf("%d series", len(there))
	}
	for _, s := range there {
		name := s.Metric["__name__"]
		labels, known := c[name]
		for l := range s.Metric {
			if known && !slices.Contains(append([]string{"__name__", "job", "instance", "site"}, labels...), l) {
				w.t.Errorf("%s has a label %s, which the catalog does not have", name, l)
			}
		}
		if !known {
			w.t.Errorf("%s is not in the catalog", name)
			c[name] = nil // said once
		}
	}
}
