package consul

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
)

const (
	waitTime   = time.Minute           // of a blocking query; Consul adds up to a sixteenth
	askEvery   = 10 * time.Millisecond // at most, of one service: it may change all the time
	retryFirst = 50 * time.Millisecond
	retryLast  = 5 * time.Second
)

// answer is what Consul says of a service in one datacenter.
type answer struct {
	instances []instance
	left      []string // what cannot be used, with the reason
	index     uint64
	at        time.Time
}

// source is a service in one datacenter.
type source struct {
	agent      *agent
	service    string
	tag        string
	datacenter string // the agent's own when empty
	read       func(*entry) parsed
	asking     chan struct{} // has an element for each query to the datacenter that does not wait

	seen map[uint64]parsed // entries of the last answer, by hash

	mu     sync.Mutex
	cancel context.CancelFunc // of the query that is waiting
	anew   bool               // it was cancelled for another one
}

// again has the next answer come at once. The present one may be old: of a
// datacenter that answers no longer, or of before a time that Consul was away.
func (s *source) again() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.anew = true
	if s.cancel != nil {
		s.cancel()
	}
}

// begin is the context of the next query, and whether that is not to wait.
func (s *source) begin(ctx context.Context) (query context.Context, anew bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	query, s.cancel = context.WithCancel(ctx)
	anew, s.anew = s.anew, false
	return query, anew
}

// interrupted tells whether the query was cancelled by again.
func (s *source) interrupted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cancel()
	s.cancel = nil
	return s.anew
}

// String names the source in logs.
func (s *source) String() string {
	if s.datacenter == "" {
		return s.service
	}
	return s.service + " in " + s.datacenter
}

// ask is one query: it waits until the answer is another than that of the index,
// or answers at once for the index 0.
func (s *source) ask(ctx context.Context, index uint64) (answer, error) {
	timeout := answerTimeout
	if index > 0 {
		timeout += waitTime + waitTime/16
	} else {
		// At a start all sources ask at once.
		select {
		case <-ctx.Done():
			return answer{}, ctx.Err()
		case s.asking <- struct{}{}:
			defer func() { <-s.asking }()
		}
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	body, header, err := s.agent.health(ctx, s.service, s.query(index))
	if err != nil {
		return answer{}, explain(err, "service:read, node:read")
	}
	defer bodies.Put(body)
	// What a server without a leader knows is old. An agent that streams does not
	// tell: it says false, with a leader too.
	if header.Get("X-Consul-KnownLeader") == "false" && header.Get("X-Consul-Query-Backend") != "streaming" {
		return answer{}, errors.New("no cluster leader")
	}
	if header.Get("X-Consul-Results-Filtered-By-ACLs") == "true" { // looks like fewer instances
		return answer{}, errors.New("the ACL token hides a part of the instances; want service:read and node:read")
	}
	out, seen, err := parse(body.Bytes(), s.seen, s.read)
	if err != nil {
		return answer{}, err
	}
	out.index, err = indexOf(header)
	out.at, s.seen = time.Now(), seen
	return out, err
}

func (s *source) query(index uint64) url.Values {
	q := url.Values{}
	if s.datacenter != "" {
		q.Set("dc", s.datacenter)
	}
	if s.tag != "" {
		q.Set("filter", strconv.Quote(s.tag)+" in Service.Tags")
	}
	if index > 0 {
		q.Set("index", strconv.FormatUint(index, 10))
		q.Set("wait", waitTime.String())
	}
	return q
}

// explain adds what would be right to errors of the client that do not say it, such as
// which rights the token wants.
func explain(err error, rights string) error {
	if e, ok := errors.AsType[api.StatusError](err); ok {
		switch e.Code {
		case http.StatusForbidden:
			return fmt.Errorf("%w; want an ACL token with %s", err, rights)
		case http.StatusTooManyRequests:
			return fmt.Errorf("%w; want a larger limits.http_max_conns_per_client in the agent's configuration, or its https address", err)
		}
	}
	return err
}

// follow tells every answer, and every error, until ctx ends. An index that goes
// backwards is that of another history: what was waited for may never come.
func (s *source) follow(ctx context.Context, answered func(answer), failed func(error)) {
	var index uint64
	retry := retryFirst
	for ctx.Err() == nil {
		start := time.Now()
		query, anew := s.begin(ctx)
		if anew {
			index = 0
		}
		got, err := s.ask(query, index)
		wait := askEvery - time.Since(start)
		switch interrupted := s.interrupted(); {
		case ctx.Err() != nil:
			return
		case err != nil && interrupted:
			continue
		case err != nil:
			failed(err)
			index, wait = 0, retry
			retry = min(2*retry, retryLast)
		default:
			retry = retryFirst
			answered(got)
			if next := max(got.index, 1); next < index {
				index = 0
			} else {
				index = next
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}
