package integration

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/razor-steering/razor/integration/redistest"
)

// rounds is how often a test of random events goes round: a few times in every
// run, many times in the long one.
func rounds(few, many int) int {
	if os.Getenv("RAZOR_LONG") != "" {
		return many
	}
	return few
}

// Random faults, one after another, on a primary and its replica. Queries are
// asked all the while, none is without addresses, and after each fault the lists
// are what the primary says.
func TestRandomFaults(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("RAZOR_SEED"); text != "" {
		seed, _ = strconv.ParseUint(text, 10, 64)
	}
	t.Logf("RAZOR_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	primary := redistest.Start(t)
	fill(primary)
	replica := primary.Replica()
	n := faultServer(t, replica)
	p := n.probe(route(0), route(1))
	pause := func() { time.Sleep(time.Duration(random.IntN(300)) * time.Millisecond) }
	events := []struct {
		name string
		do   func()
	}{
		{"primary killed, comes back empty", func() { primary.Kill(); pause(); primary.Restart() }},
		{"replica killed", func() { replica.Kill(); pause(); replica.Restart() }},
		{"both killed", func() { replica.Kill(); primary.Kill(); pause(); primary.Restart(); replica.Restart() }},
		{"replica stopped", func() { replica.Stop(); pause(); replica.Continue() }},
		{"primary stopped", func() { primary.Stop(); pause(); primary.Continue() }},
		{"flushed", func() { primary.Do("FLUSHALL") }},
		{"swapped and back", func() { primary.Do("SWAPDB 0 1"); pause(); primary.Do("SWAPDB 0 1") }},
		{"clients killed", func() { replica.Do("CLIENT KILL TYPE normal SKIPME yes") }},
		{"edits", func() {
			for i := range 50 {
				primary.Do(fmt.Sprintf("SREM %s:A 198.18.0.%d", route(random.IntN(routes)), i))
				primary.Do(fmt.Sprintf("SADD %s:A 192.0.2.%d", route(random.IntN(routes)), i))
			}
			for i := 2; i < routes; i++ {
				primary.Do("DEL " + route(i) + ":A " + route(i) + ":AAAA")
			}
		}},
		{"replica cut off and joined again", func() {
			replica.Do("REPLICAOF NO ONE")
			pause()
			replica.Do(fmt.Sprintf("REPLICAOF %s %d", primary.Host, primary.Port))
		}},
	}
	for round := range rounds(3, 100) {
		e := events[random.IntN(len(events))]
		e.do()
		pause()
		fill(primary)
		for i := range 50 {
			for j := range routes {
				primary.Do(fmt.Sprintf("SREM %s:A 192.0.2.%d", route(j), i))
			}
		}
		mark := fmt.Sprintf("203.0.113.%d", round%200+1)
		primary.Do("DEL mark.z.example:A")
		primary.Do("SADD mark.z.example:A " + mark)
		n.eventually("mark.z.example", "A", "NOERROR "+mark)
		n.until(fmt.Sprintf("round %d, %s: all members are there and no others", round, e.name), func() bool {
			return n.metric("razor_upstreams_members") == routes*20+1 && n.metric("razor_upstreams_hold") == 0
		})
	}
	n.unharmed(p)
}
