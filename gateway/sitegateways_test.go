package gateway

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/razor-steering/razor/steering/wire"
)

// farAway is what setAway was told last, in words.
type farAway struct {
	mu   sync.Mutex
	said string
}

func (f *farAway) set(away map[netip.Addr]bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var words []string
	for _, a := range slices.SortedFunc(maps.Keys(away), netip.Addr.Compare) {
		words = append(words, strings.TrimSuffix(strings.TrimPrefix(a.String(), "2001:db8:5e:"), ":5203::"))
	}
	f.said = strings.Join(words, " ")
}

// Gateways of other sites that do not answer have no packets, once one of their site has; and
// those that do again have some again.
func TestSiteGatewaysAway(t *testing.T) {
	both := func(c *Config) { c.Sites[0].Gateways = []string{"2001:db8:5e:e001::/64", "2001:db8:5e:e002::/64"} }
	deciding(t, both, func(t *testing.T, r *reporting) {
		far := &farAway{}
		r.setAway = far.set
		answers := func(names string) map[wire.Locator]bool {
			out := map[wire.Locator]bool{}
			for name := range strings.FieldsSeq(names) {
				out[wire.LocatorOf(netip.MustParseAddr("2001:db8:5e:"+name+"::"))] = true
			}
			return out
		}
		asked := 0
		pass := func(d time.Duration, names string, agents, east bool) {
			for n, end := 0, time.Now().Add(d); time.Now().Before(end); n++ {
				if agents {
					r.tell("b1", nil)
				}
				if east && n%10 == 0 {
					r.well("east") // of its first gateway
				}
				due, _ := r.toAsk(time.Now(), r.cut.Load(), r.behind.Load())
				time.Sleep(time.Millisecond)
				for _, host := range due {
					if r.siteGateways[host] == nil {
						continue
					}
					if asked++; answers(names)[host] {
						r.answered(host, time.Now())
					}
				}
				time.Sleep(99 * time.Millisecond)
			}
		}
		want := func(when, away string) {
			t.Helper()
			far.mu.Lock()
			defer far.mu.Unlock()
			if far.said != away {
				t.Errorf("%s: %q are away, want %q", when, far.said, away)
			}
		}
		pass(time.Minute, "", true, true)
		want("none has ever answered, one speaks", "")
		pass(5*time.Second, "e001 e002", true, true)
		want("all answer", "")
		asked = 0
		pass(time.Minute, "e001 e002 e101", true, true)
		if asked < 170 || asked > 183 {
			t.Errorf("%d requests to 3 gateways in a minute", asked)
		}
		pass(500*time.Millisecond, "e001 e101", true, true)
		want("one does not answer any more", "")
		pass(1500*time.Millisecond, "e001 e101", true, true)
		want("nor later", "e002")
		pass(time.Minute, "e001 e002 e101", false, false)
		want("it answers", "")
		r.cut.Store(true)
		pass(time.Minute, "", true, true)
		r.cut.Store(false)
		want("this gateway was cut off", "")
		pass(9*time.Second, "", true, true)
		want("a moment ago", "")
		pass(10*time.Second, "e002 e101", true, true)
		want("one speaks that does not answer", "")
		pass(10*time.Second, "e002 e101", true, false)
		want("it speaks no longer", "e001")
		pass(1500*time.Millisecond, "e001 e002 e101", true, false)
		want("it has answered once or twice", "e001")
		pass(5*time.Second, "", true, false)
		want("nobody answers", "e001 e002 e101")
		pass(1500*time.Millisecond, "", true, true)
		want("one speaks", "e001 e002 e101")
		pass(2*time.Second, "", true, true)
		want("one speaks long enough", "e002 e101")
		pass(5*time.Second, "e001 e002 e101", true, false)
		want("all answer again", "")
		pass(time.Minute, "", false, false)
		want("nobody at all is heard", "")
		pass(10*time.Second, "e001 e002", true, true)
		want("one of the other site is lost", "e101")
		r.behind.Store(true)
		pass(time.Minute, "", true, true)
		r.behind.Store(false)
		want("answers are not read yet", "e101")
		r.config.Sites = r.config.Sites[:1]
		r.reconfigure()
		pass(time.Second, "e001 e002", true, true)
		want("the other site is none any more", "")
	})
}
