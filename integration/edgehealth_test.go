package integration

import (
	"strings"
	"testing"

	"github.com/razor-steering/razor/integration/redistest"
	"github.com/razor-steering/razor/upstreams"
)

// A gateway's account need write nothing but the health of its own edge, which goes to
// the primary, wherever that is.
func TestRightToTellHealth(t *testing.T) {
	t.Parallel()
	primary := redistest.Start(t)
	replica := primary.Replica()
	for _, s := range []*redistest.Server{primary, replica} {
		s.DoArgs("ACL", "SETUSER", "west", "on", ">secret", "~*", "+@read", "+@connection", "+info", "+client|tracking", "(+set ~west:HEALTH)")
	}
	w := upstreams.NewWriter(upstreams.Config{Address: replica.Addr, User: "west", Password: "secret"})
	defer w.Close()
	said := upstreams.EdgeSaid{Health: upstreams.EdgeDown, Reason: "no session\nis up"}
	if err := w.SayHealth(t.Context(), "West.", said); err != nil {
		t.Fatal(err)
	}
	if got := primary.Do("GET west:HEALTH"); got != "down reason=no session is up" {
		t.Errorf("%q", got)
	}
	err := w.SayHealth(t.Context(), "east", said)
	if err == nil || !strings.HasPrefix(err.Error(), "east:HEALTH: redis.user: NOPERM ") || !strings.HasSuffix(err.Error(), "(+set ~east:HEALTH)") {
		t.Error(err)
	}
}
