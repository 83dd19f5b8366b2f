package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/razor-steering/razor/steering"
)

// aloneAfter is how long a gateway that starts without tables has its VIPs wait for those
// of a mate: until there is a way to it, which others may learn from what is announced
// meanwhile. Where a gateway sent flows before, its mates would not look for them.
const aloneAfter = 15 * time.Second

// meet copies the tables of the mate that decides, or, where this gateway decides and has
// none, of one that has some, before the first packet. While a gateway without tables has
// not met a mate, it has no VIP announced. Then it opens the listener for mates.
func (p *dataplane) meet(c *Config, log *slog.Logger) (err error) {
	alone := !p.HasTables()
	p.site = c.Site
	if p.asked = c.Dataplane.Mates; p.followed != "" {
		p.asked = []string{p.followed}
	} else if !alone {
		p.asked = nil
	}
	met := len(p.asked) == 0 && p.election == nil
	for _, mate := range p.asked {
		if err := p.firstCopy(context.Background(), mate); err != nil {
			log.Warn("no tables of a mate: own ones, until it answers", "mate", mate, "decides", p.followed != "", "err", err)
			continue
		}
		met = true
		break
	}
	if !met && alone {
		p.Await(fmt.Sprintf("tables of mates are awaited for %v", aloneAfter))
	}
	p.listener, err = c.listenForMates()
	return err
}

// firstCopy makes the tables those of a mate, and where this gateway decides, decides
// again.
func (p *dataplane) firstCopy(ctx context.Context, mate string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, firstWait)
	defer cancel()
	if _, err = p.mates.copyOnce(ctx, mate, steering.PlanNumber{}, false); err != nil || p.followed != "" {
		return err
	}
	if p.decider != nil {
		p.decider.begin(p.Decision(), p.site, time.Now())
	}
	return p.configure(nil, time.Now())
}

// await ends the wait for mates: when one has answered, or none has for long enough. The
// one that decides is asked all the time, others here.
func (p *dataplane) await(ctx context.Context, log *slog.Logger) {
	timeout := time.NewTimer(aloneAfter)
	defer timeout.Stop()
	for p.Awaits() {
		if p.followed == "" && len(p.asked) == 0 && p.election.leads() { // there is nobody to ask
			p.Await("")
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-timeout.C:
			log.Warn("no mate has answered: VIPs are announced without its tables", "mates", p.asked)
			p.Await("")
			return
		case <-time.After(retryEvery):
		}
		for _, mate := range p.asked {
			if p.followed == "" && p.firstCopy(ctx, mate) == nil {
				return
			}
		}
	}
}

// meetAgain has a gateway that copies tables, and could not while it was drained, announce
// VIPs once it has those of who decides now, or when that does not answer for long enough.
func (p *dataplane) meetAgain(ctx context.Context, group *errgroup.Group) {
	if p.followed == "" && (p.election == nil || p.election.leads()) {
		return
	}
	p.Await(fmt.Sprintf("tables of mates are awaited for %v", aloneAfter))
	p.mates.hurry()
	group.Go(func() error { p.await(ctx, p.mates.log); return nil })
}
