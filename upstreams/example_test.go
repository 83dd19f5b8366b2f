package upstreams_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/razor-steering/razor/upstreams"
)

// A role follows the lists of applications: it is told of every change, and looks
// at what differs from what it knows.
func Example_subscription() {
	store, err := upstreams.StartEmbedded("127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()
	operator := redis.NewClient(&redis.Options{Addr: store.Addr()})
	defer operator.Close()

	f, err := upstreams.NewFollower(upstreams.Config{Address: store.Addr()}, upstreams.Options{}, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	operator.SAdd(ctx, "shop:UPSTREAMS", "192.0.2.1:80", "192.0.2.2:80")
	var wg sync.WaitGroup
	wg.Go(func() { _ = f.Run(ctx) })
	defer wg.Wait()
	defer cancel()

	var last *upstreams.Snapshot
	for changes := 0; changes < 2; {
		select {
		case <-f.Changed(last):
		case <-ctx.Done():
			return
		}
		s := f.Snapshot()
		for app, u := range s.UpstreamsSince(last) {
			changes++
			if u == nil {
				fmt.Println(upstreams.NameText(app), "is gone")
				continue
			}
			fmt.Println(upstreams.NameText(app), u.Endpoints)
			operator.Del(ctx, "shop:UPSTREAMS")
		}
		last = s
	}
	// Output:
	// shop [192.0.2.1:80 192.0.2.2:80]
	// shop is gone
}
