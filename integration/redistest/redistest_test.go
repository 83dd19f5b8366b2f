package redistest

import (
	"strconv"
	"testing"

	"github.com/redis/go-redis/v9"
)

// A server on the place of another is not taken for ours, and goes elsewhere.
func TestPlaceOfAnother(t *testing.T) {
	t.Parallel()
	a := Start(t)
	s := newServer(t)
	s.Host, s.Port, s.Addr = a.Host, a.Port, a.Addr
	_ = s.Client.Close()
	s.Client = redis.NewClient(&redis.Options{Addr: a.Addr, MaxRetries: -1})
	s.launch(func() []string { return []string{"--port", strconv.Itoa(s.Port), "--bind", s.Host, "--save", ""} })
	if s.Addr == a.Addr || s.Info("process_id") == a.Info("process_id") {
		t.Errorf("both at %s", a.Addr)
	}
}
