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
	Role   string    // "master", "slave", "" where the server does not tell
	LinkUp bool      // a replica's link to its primary
	Heard  time.Time // when a replica last heard its primary, or was seen to have lost it; a primary hears itself; zero where that is not known
}

// watch reads INFO replication: another replication id means other data.
func (s *session) watch(ctx context.Context) error {
	text, err := s.replication(ctx)
	switch {
	case isReply(err): // no right to it, or no such INFO
		if isDenied(err) && !s.blind {
			s.blind = true
			s.log.Warn("redis does not say how old its lists are, a replica without its primary is not noticed", "err", err, "needs", "+info in the account's ACL")
		}
		s.setHealth(func(h *Health) { h.Replica = Replica{} })
		return nil
	case err != nil:
		return err
	}
	info := parseInfo(text)
	s.setHealth(func(h *Health) {
		before := h.Replica.Heard
		if before.IsZero() && h.FromDisk && info.silence < 0 {
			before = h.InSync // the lists may be as old as those on disk
		}
		h.Replica = info.replica(before, time.Now())
	})
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

// isDenied tells the reply to a command that the account has no right to.
func isDenied(err error) bool { return isReply(err) && strings.HasPrefix(err.Error(), "NOPERM") }

// isReply tells an error that the server replied with from one of the link.
func isReply(err error) bool { return replyOf(err) != "" }

// replyOf is the reply that an error is, "" where it is none.
func replyOf(err error) string {
	if e, ok := errors.AsType[redis.Error](err); ok {
		return e.Error()
	}
	return ""
}

// replicationInfo is what is read of INFO replication.
type replicationInfo struct {
	role, replid string
	primary      string // host:port that a replica follows; "" of a primary
	linkUp       bool
	silence      time.Duration // since the primary was heard or, while the link is down, since that was noticed; negative: not known
}

// replica is the state of the server, which heard its primary before. A link is
// seen to be down some time after the last that came over it, and a replica that
// was restarted does not know how long it has been without: the older time counts.
func (i replicationInfo) replica(before, now time.Time) Replica {
	out := Replica{Role: i.role, LinkUp: i.linkUp, Heard: now}
	if i.role != "slave" {
		return out
	}
	switch {
	case i.silence > 0:
		out.Heard = now.Add(-i.silence)
	case i.silence < 0 && !i.linkUp:
		out.Heard = before
	}
	if !i.linkUp && !before.IsZero() && before.Before(out.Heard) {
		out.Heard = before
	}
	return out
}

func parseInfo(text string) replicationInfo {
	out := replicationInfo{silence: -1}
	var host, port string
	for line := range strings.Lines(text) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch k {
		case "role":
			out.role = v
		case "master_host":
			host = v
		case "master_port":
			port = v
		case "master_replid":
			out.replid = v
		case "master_link_status":
			out.linkUp = v == "up"
		case "master_last_io_seconds_ago", "master_link_down_since_seconds": // one of them is -1 or not there
			if n, err := strconv.ParseInt(v, 10, 32); err == nil && n >= 0 {
				out.silence = time.Duration(n) * time.Second
			}
		}
	}
	if host != "" {
		out.primary = net.JoinHostPort(host, port)
	}
	return out
}
