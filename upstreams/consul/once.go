package consul

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/razor-steering/razor/steering"
)

// Once asks Consul once for every list and writes to w what makes the lists in
// Redis out of it: a line for each endpoint, then the blast radius. Unless dry it
// is done too, under the lock. complete tells that every list is, or would be,
// what Consul says: nothing is held, and every list could be read and is the
// sync's.
func (s *Sync) Once(ctx context.Context, dry bool, w io.Writer) (complete bool, err error) {
	defer s.writer.Close()
	defer s.agent.http.CloseIdleConnections()
	t := term{number: 1} // of nobody
	if !dry {
		release, err := s.takeLock(ctx)
		if err != nil {
			return false, err
		}
		defer release()
		t, _ = s.lock.held()
	}
	if err := s.ask(ctx); err != nil {
		return false, err
	}
	total := blast{}
	for _, k := range s.keepers {
		if now, ok := s.lock.held(); !dry && (!ok || now != t) {
			return false, errors.New("the lock was lost meanwhile: another sync keeps the lists")
		}
		if err := k.once(ctx, t.number, dry, w, &total); err != nil {
			total.failed++
			fmt.Fprintf(w, "%s: %v\n", k.cfg.App, err)
			if ctx.Err() != nil {
				return false, ctx.Err()
			}
		}
	}
	fmt.Fprintln(w, total.String())
	return total.held == 0 && total.failed == 0, nil
}

// takeLock waits a moment for the lock. The one who has it keeps the lists anyway.
func (s *Sync) takeLock(ctx context.Context) (release func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.lock.run(ctx)
	}()
	release = func() { cancel(); <-done }
	for deadline := time.Now().Add(requestTimeout); time.Now().Before(deadline); {
		if _, ok := s.lock.held(); ok {
			return release, nil
		}
		select {
		case <-ctx.Done():
			release()
			return nil, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	holder, heard := s.lock.state()
	release()
	if !heard {
		return nil, fmt.Errorf("no word from consul of the lock %s", s.lock.key)
	}
	return nil, fmt.Errorf("%s keeps the lists already (it holds the lock %s)", holder, s.lock.key)
}

// ask has every source answer once. What does not answer is said by its list.
func (s *Sync) ask(ctx context.Context) error {
	var g errgroup.Group
	g.SetLimit(2 * askAtOnce) // what waits for its turn
	for _, k := range s.keepers {
		for i, src := range k.sources {
			g.Go(func() error {
				a, err := src.ask(ctx, 0)
				k.mu.Lock()
				k.answers[i], k.failing[i] = a, err
				k.mu.Unlock()
				return nil
			})
		}
	}
	_ = g.Wait()
	return ctx.Err()
}

// once shows what would be done to the list, and does it unless dry.
func (k *keeper) once(ctx context.Context, term uint64, dry bool, w io.Writer, total *blast) error {
	if err := errors.Join(k.failing...); err != nil {
		return err
	}
	wanted, _, err := k.view(time.Time{})
	if err != nil {
		return err
	}
	for _, text := range wanted.left {
		fmt.Fprintf(w, "%s: left out: %s\n", k.cfg.App, text)
	}
	list, err := k.look(ctx, term)
	if err != nil {
		return err
	}
	p, accepted := k.plan(list, wanted)
	p.write(k.cfg.App, w)
	total.add(k.cfg.App, &p)
	if dry {
		return nil
	}
	err = k.publish(ctx, list.Meta, wanted, p, accepted)
	k.term = term
	return err
}

// write writes the plan, if it does anything.
func (p *plan) write(app string, w io.Writer) {
	if len(p.steps)+len(p.held) == 0 {
		return
	}
	fmt.Fprintf(w, "%s: %d -> %d endpoints, consul has %d\n", app, p.before, p.after, p.wants)
	for _, s := range p.steps {
		fmt.Fprintln(w, " ", s)
	}
	for _, s := range p.held {
		fmt.Fprintln(w, "  held by", p.verdict.Hold, s)
	}
	if p.verdict.Hold == steering.HoldFloor || p.verdict.Hold == steering.HoldEmpty {
		fmt.Fprintf(w, "  the floor is %d of %d; razor sync --accept %s lets them go\n", p.verdict.Floor, p.verdict.Baseline, app)
	}
}

// added is the number of steps that add an endpoint.
func (p *plan) added() int {
	n := 0
	for _, s := range p.steps {
		if s.old == "" {
			n++
		}
	}
	return n
}

// blast is how much of all that is served the plans touch.
type blast struct {
	lists, touched, held, failed int
	endpoints, added, taken      int
	worst                        float64 // share that a list loses or has changed
	worstApp                     string
}

func (b *blast) add(app string, p *plan) {
	b.lists++
	b.endpoints += p.before
	b.added += p.added()
	b.taken += p.taken
	if len(p.steps) > 0 {
		b.touched++
	}
	if len(p.held) > 0 {
		b.held++
	}
	if p.before > 0 {
		if share := float64(p.taken) / float64(p.before); share > b.worst {
			b.worst, b.worstApp = share, app
		}
	}
}

// String is the blast radius in a line.
func (b *blast) String() string {
	share := 0.0
	if b.endpoints > 0 {
		share = 100 * float64(b.taken) / float64(b.endpoints)
	}
	out := fmt.Sprintf("blast radius: %d of %d lists; %d endpoints added; %d of %d taken out or changed (%.1f %%)", b.touched, b.lists, b.added, b.taken, b.endpoints, share)
	if b.worstApp != "" {
		out += fmt.Sprintf(", most of %s (%.1f %%)", b.worstApp, 100*b.worst)
	}
	if b.held > 0 {
		out += fmt.Sprintf("; %d held", b.held)
	}
	if b.failed > 0 {
		out += fmt.Sprintf("; %d not read", b.failed)
	}
	return out
}
