package upstreams

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Replica is what the server says of its replication.
type Replica struct {
	Role     string        // "master", "slave", "" where the server does not tell
	LinkUp   bool          // a replica's link to its primary
	LastData time.Duration // since a replica heard its primary
}

// watch reads INFO replication: another replication id means other data.
func (s *session) watch(ctx context.Context) error {
	text, err := s.replication(ctx)
	if err != nil {
		if isReply(err) {
			return nil // the server has no such INFO
		}
		return err
	}
	info := parseInfo(text)
	s.setHealth(func(h *Health) { h.Replica = info.replica })
	changed := s.replid != "" && info.replid != "" && s.replid != info.replid
	s.replid = info.replid
	if changed && s.reached {
		return s.wholesale(ctx, "other replication id")
	}
	return nil
}

func (s *session) replication(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, silenceLimit)
	defer cancel()
	return s.reader.client.Info(ctx, "replication").Result()
}

// isReply tells an error that the server replied with from one of the link.
func isReply(err error) bool {
	var e redis.Error
	return errors.As(err, &e)
}

type replicationInfo struct {
	replid  string
	replica Replica
	primary string // host:port that a replica follows; "" of a primary
}

func parseInfo(text string) replicationInfo {
	var out replicationInfo
	var host, port string
	for line := range strings.Lines(text) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch k {
		case "role":
			out.replica.Role = v
		case "master_host":
			host = v
		case "master_port":
			port = v
		case "master_replid":
			out.replid = v
		case "master_link_status":
			out.replica.LinkUp = v == "up"
		case "master_last_io_seconds_ago":
			if n, err := strconv.Atoi(v); err == nil && n >= 0 {
				out.replica.LastData = time.Duration(n) * time.Second
			}
		}
	}
	if host != "" {
		out.primary = net.JoinHostPort(host, port)
	}
	return out
}
