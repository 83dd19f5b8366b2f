package gateway

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A gateway that has copied the tables of who decides at its start asks it for what is new,
// not for the same again and again.
func TestElectionFollowsAfterTheFirstCopy(t *testing.T) {
	t.Parallel()
	var said logged
	log := slog.New(slog.NewTextHandler(&said, nil))
	decider, mate := aMate(t, "a flow key", slog.New(slog.DiscardHandler)), aMate(t, "a flow key", log)
	decider.has(t, "web")
	mate.keeper.Follow()
	mate.has(t, "web")
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		decider.tables(w, r)
	}))
	defer server.Close()
	at := server.Listener.Addr().String()
	p := &dataplane{Keeper: mate.keeper, mates: mate, followed: at}
	if err := p.firstCopy(t.Context(), at); err != nil {
		t.Fatal(err)
	}
	stop := (&election{log: log}).follow(t.Context(), p, at)
	for asked.Load() < 2 {
		time.Sleep(time.Millisecond)
	}
	decider.has(t, "web") // is new
	number, _ := decider.keeper.Number()
	for end := time.Now().Add(30 * time.Second); !strings.Contains(said.String(), "plan="+number.String()); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never copied: %s", said.String())
		}
	}
	stop()
	if strings.Contains(said.String(), "no tables") {
		t.Error(said.String())
	}
}
