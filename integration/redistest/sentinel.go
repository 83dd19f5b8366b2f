package redistest

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// Sentinel runs a Sentinel that alone decides over a primary, under a name, and
// waits until it knows the primary's replicas.
func Sentinel(tb testing.TB, name string, primary *Server) *Server {
	tb.Helper()
	s := newServer(tb)
	s.launch(func() []string {
		file := filepath.Join(s.Dir, "sentinel.conf") // which it writes to as well
		text := fmt.Sprintf(`port %d
bind %s
dir %s
sentinel announce-ip %[2]s
sentinel monitor %[4]s %s %d 1
sentinel down-after-milliseconds %[4]s 2000
sentinel failover-timeout %[4]s 10000
`, s.Port, s.Host, s.Dir, name, primary.Host, primary.Port)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			tb.Fatal(err)
		}
		return []string{file, "--sentinel"}
	})
	// It looks at its servers every 10 s, and asks for life so rarely that a busy
	// machine seems dead; where it is too old for this, tests take longer.
	_ = s.Client.Do(context.Background(), "SENTINEL", "DEBUG", "ping-period", "200", "info-period", "200", "publish-period", "200").Err()
	s.wait("sentinel to know the replicas", func() bool {
		known, err := s.Client.Do(context.Background(), "SENTINEL", "REPLICAS", name).Slice()
		return err == nil && strconv.Itoa(len(known)) == primary.Info("connected_slaves")
	})
	return s
}

// PrimaryOf is the address of the primary that a Sentinel has under a name.
func (s *Server) PrimaryOf(name string) string {
	s.tb.Helper()
	addr, err := s.Client.Do(context.Background(), "SENTINEL", "GET-MASTER-ADDR-BY-NAME", name).StringSlice()
	if err != nil || len(addr) != 2 {
		s.tb.Fatalf("primary of %s: %v, %v", name, addr, err)
	}
	return net.JoinHostPort(addr[0], addr[1])
}
