package consul

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"
)

// Folder follows the keys of Consul's key-value store that begin with a prefix. Its
// methods are for any goroutine.
type Folder struct {
	client     *api.Client
	http       *http.Client
	prefix     string
	datacenter string
	log        *slog.Logger
	fails      atomic.Uint64
}

// Values is what Consul says of a folder.
type Values struct {
	Of  map[string][]byte // by what is behind the prefix
	At  time.Time         // when it came; zero before the first answer
	Err error             // why there is nothing new; the rest is as before then
}

// NewFolder asks the agent of a section with a key for what begins with a prefix, in a
// datacenter; "" is the agent's own. Nothing is connected to before it is used.
func NewFolder(cfg AgentConfig, section, prefix, datacenter string, log *slog.Logger) (*Folder, error) {
	client, agent, err := newClient(cfg, section)
	if err != nil {
		return nil, err
	}
	return &Folder{client: client, http: agent.http, prefix: prefix, datacenter: datacenter, log: log}, nil
}

// PrefixWant is what is wanted where [PrefixReason] finds something.
const PrefixWant = `one of keys in Consul, such as "razor/sites/"`

// PrefixReason says why a text cannot be the prefix of a folder; "" if it can.
func PrefixReason(prefix string) string {
	switch {
	case prefix == "":
		return "missing"
	case strings.HasPrefix(prefix, "/") || strings.Contains(prefix, "//"):
		return "begins with a slash, or has two together"
	case !strings.HasSuffix(prefix, "/"):
		return "does not end with a slash"
	}
	return ""
}

// Failures is how many queries were not answered.
func (f *Folder) Failures() uint64 { return f.fails.Load() }

// Close ends the connections.
func (f *Folder) Close() { f.http.CloseIdleConnections() }

// Read asks once.
func (f *Folder) Read(ctx context.Context) (Values, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	v, _, err := f.ask(ctx, 0)
	return v, err
}

// Follow tells every answer, and that there is none, until ctx ends; never two at once. An
// index that goes backwards is that of another history, as of a Consul that was restored.
func (f *Folder) Follow(ctx context.Context, told func(Values)) {
	var last Values
	var index uint64
	retry := retryFirst
	for ctx.Err() == nil {
		start := time.Now()
		got, next, err := f.ask(ctx, index)
		wait := askEvery - time.Since(start)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			f.fails.Add(1)
			if last.Err == nil {
				f.log.Warn("consul does not answer, what keys say stays as it is", "prefix", f.prefix, "err", err)
			}
			last.Err = err
			index, wait = 0, retry
			retry = min(2*retry, retryLast)
		default:
			if last.Err != nil {
				f.log.Info("consul answers again", "prefix", f.prefix)
			}
			last, retry = got, retryFirst
			if next < index {
				next = 0
			}
			index = next
		}
		told(last)
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// ask is one query: it waits until the answer is another than that of the index, or answers
// at once for the index 0. What may be old, or only a part, is none.
func (f *Folder) ask(ctx context.Context, index uint64) (Values, uint64, error) {
	timeout := answerTimeout
	if index > 0 {
		timeout += waitTime + waitTime/16
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	q := &api.QueryOptions{Datacenter: f.datacenter, WaitIndex: index, WaitTime: waitTime}
	pairs, meta, err := f.client.KV().List(f.prefix, q.WithContext(ctx))
	right := fmt.Sprintf("key_prefix %q read, or list where enable_key_list_policy is set", f.prefix)
	switch {
	case err != nil:
		return Values{}, 0, explain(err, right)
	case !meta.KnownLeader:
		return Values{}, 0, errors.New("no cluster leader")
	case meta.ResultsFilteredByACLs: // looks like fewer keys
		return Values{}, 0, fmt.Errorf("the ACL token hides a part of the keys; want %s", right)
	}
	v := Values{Of: map[string][]byte{}, At: time.Now()}
	for _, p := range pairs {
		v.Of[strings.TrimPrefix(p.Key, f.prefix)] = p.Value
	}
	return v, max(meta.LastIndex, 1), nil
}
