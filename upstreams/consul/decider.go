package consul

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/hashicorp/consul/api"
)

// deciderLock is that of gateways. Nothing fences what they decide: one is sure to be alone
// for as long as it believes to be. What the lease is shorter than the delay is for servers
// of Consul that do not know yet that they have lost their leader.
var deciderLock = lockKind{
	service: "razor-gateway", lease: 12 * time.Second, delay: 15 * time.Second, leave: time.Second,
	taken:   "this gateway decides",
	lost:    "this gateway decides no longer",
	unknown: "tables stay as they are",
	standby: "another gateway decides",
}

// Decider is a lock in Consul that one of the gateways of a site holds, the one that
// decides. Its value is where the others find it. Its methods but Run are for any goroutine.
type Decider struct {
	lock    *lock
	http    *http.Client
	changed chan struct{} // has an element when the lock was taken or lost
}

// NewDecider makes a lock at a key of Consul's KV store, by the agent of a section with a
// key. No two gateways have the same value. Nothing is connected to before it is used.
func NewDecider(cfg AgentConfig, section, key, value string, log *slog.Logger) (*Decider, error) {
	client, agent, err := newClient(cfg, section)
	if err != nil {
		return nil, err
	}
	d := &Decider{http: agent.http, changed: make(chan struct{}, 1)}
	d.lock = newLock(client, key, value, deciderLock, log, func() {
		select {
		case d.changed <- struct{}{}:
		default:
		}
	})
	return d, nil
}

// Run contends for the lock until ctx ends, and gives it back then.
func (d *Decider) Run(ctx context.Context) error {
	defer d.http.CloseIdleConnections()
	return d.lock.run(ctx)
}

// Changed has an element when the lock was taken or lost. That its lease has ended, or that
// another one has it, is told by Held and Holder alone.
func (d *Decider) Changed() <-chan struct{} { return d.changed }

// Held tells whether this gateway decides now: Consul said so, and nobody else can have
// the lock yet, whatever happened since.
func (d *Decider) Held() bool {
	_, held := d.lock.held()
	return held
}

// Holder is the value of who decides, "" for nobody; false where Consul does not tell.
func (d *Decider) Holder() (value string, heard bool) { return d.lock.state() }

// Look asks Consul once who decides, "" for nobody, without contending.
func (d *Decider) Look(ctx context.Context) (value string, err error) {
	pair, _, err := d.lock.client.KV().Get(d.lock.key, (&api.QueryOptions{}).WithContext(ctx))
	if err != nil || pair == nil || pair.Session == "" {
		return "", err
	}
	return string(pair.Value), nil
}
