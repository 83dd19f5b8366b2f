package integration

import (
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/razor-steering/razor/integration/consultest"
)

// BenchmarkConsulToRedis is the time from Consul's knowing of a change of one
// instance (its write has returned) to the list on the Redis primary that has it,
// for services of several sizes, with a thousand lists of a thousand endpoints in
// Redis.
func BenchmarkConsulToRedis(b *testing.B) {
	for _, size := range []int{10, 100, 1000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			r := applications(b, 1000, 1000)
			c := consultest.Cluster(b, 1)[0]
			c.RegisterMany("web", addrPorts(size))
			cfg := syncConfig(c.Addr, "web.example=web")
			cfg.Churn = "1000000"
			s := startSync(b, cfg, r.Addr)
			ctx := b.Context()
			count := func() int { return int(r.Client.SCard(ctx, "web.example:UPSTREAMS").Val()) }
			s.until("the list is full", func() bool { return count() == size })
			node := nodeOf(b, c, "web-0")
			var took []time.Duration
			for i := 0; b.Loop(); i++ {
				status, want := api.HealthCritical, size-1
				if i%2 == 1 {
					status, want = api.HealthPassing, size
				}
				if err := setStatus(c, node, "web-0", status); err != nil {
					b.Fatal(err)
				}
				start := time.Now()
				for count() != want {
					time.Sleep(100 * time.Microsecond) // the processor is the servers' too
				}
				took = append(took, time.Since(start))
				time.Sleep(20 * time.Millisecond)
			}
			reportTimes(b, took)
		})
	}
}
