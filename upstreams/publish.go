package upstreams

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/redis/go-redis/v9"
)

// PublishMost is how many members one Publish should change: some milliseconds of
// the server's time.
const PublishMost = 1000

// Published is an upstream list as it stands on the primary.
type Published struct {
	Endpoints map[netip.AddrPort]PublishedEndpoint
	Unusable  []string // members that are no endpoints, or one more for an address
	Meta      Meta
	HasMeta   bool
}

// PublishedEndpoint is an endpoint and the member that it was read from.
type PublishedEndpoint struct {
	Endpoint
	Member string
}

// MemberEdit takes a member out of a set and puts another one in. Either may be
// empty: nothing.
type MemberEdit struct{ Old, New string }

// FencedError is a list whose META is not what the keeper left there: somebody
// else keeps it now. It was not touched.
type FencedError struct {
	App  string
	Want Meta // what the keeper knew
	Got  Meta
}

// Error implements error.
func (e *FencedError) Error() string {
	if e.Got.Source != e.Want.Source {
		return fmt.Sprintf("%s:UPSTREAMS: owned by %q now", e.App, e.Got.Source)
	}
	return fmt.Sprintf("%s:UPSTREAMS: kept by %q in epoch %d now, no longer by %q in %d", e.App, e.Got.Keeper, e.Got.Epoch, e.Want.Keeper, e.Want.Epoch)
}

// UncertainError is a transaction of which it is not known whether it was made: its
// answer is lost.
type UncertainError struct{ Err error }

// Error implements error.
func (e *UncertainError) Error() string { return e.Err.Error() }

// Unwrap is what became of the answer.
func (e *UncertainError) Unwrap() error { return e.Err }

// upstreamKeys are the set and the META of an application.
func upstreamKeys(app string) (set, meta string, err error) {
	wire, err := WireName(trimDot(app))
	if err != nil {
		return "", "", fmt.Errorf("%q: %w", app, err)
	}
	set = keyID{kind: kindUpstream, name: wire}.spelling()
	return set, keyID{kind: kindMeta, name: wire}.spelling(), nil
}

// Published reads the list of an application, empty where there is none.
func (w *Writer) Published(ctx context.Context, app string) (*Published, error) {
	set, metaKey, err := upstreamKeys(app)
	if err != nil {
		return nil, err
	}
	out := &Published{}
	err = w.do(ctx, func(c *redis.Client) error {
		var members *redis.StringSliceCmd
		var hash *redis.MapStringStringCmd
		_, err := c.TxPipelined(ctx, func(p redis.Pipeliner) error {
			members, hash = p.SMembers(ctx, set), p.HGetAll(ctx, metaKey)
			return nil
		})
		if err != nil {
			return err
		}
		out.read(members.Val())
		out.HasMeta = len(hash.Val()) > 0
		out.Meta = new(parser).meta(hash.Val()).Meta
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", set, err)
	}
	return out, nil
}

// read takes the members one by one: each needs its own spelling.
func (l *Published) read(members []string) {
	l.Endpoints = make(map[netip.AddrPort]PublishedEndpoint, len(members))
	slices.Sort(members) // as a snapshot takes the first of two for an address
	for _, m := range members {
		e, ok := new(parser).endpoint(m)
		if _, again := l.Endpoints[e.Addr]; again || !ok {
			l.Unusable = append(l.Unusable, m)
			continue
		}
		l.Endpoints[e.Addr] = PublishedEndpoint{e, m}
	}
}

// Publish changes the list of an application and its META in one transaction, as
// long as META has the keeper, epoch and source of was: else the error is a
// *FencedError. After an *UncertainError it may have been made, after any other
// error it was not.
func (w *Writer) Publish(ctx context.Context, app string, was Meta, edits []MemberEdit, meta Meta) error {
	set, metaKey, err := upstreamKeys(app)
	if err != nil {
		return err
	}
	var add, remove []any
	for _, e := range edits {
		if e.Old != "" {
			remove = append(remove, e.Old)
		}
		if e.New != "" {
			add = append(add, e.New)
		}
	}
	return w.fenced(ctx, fence{app: app, key: metaKey, was: was}, func(p redis.Pipeliner) {
		if len(remove) > 0 {
			p.SRem(ctx, set, remove...)
		}
		if len(add) > 0 {
			p.SAdd(ctx, set, add...)
		}
		fields, gone := meta.after(was)
		p.HSet(ctx, metaKey, fields...)
		if len(gone) > 0 {
			p.HDel(ctx, metaKey, gone...)
		}
	})
}

// fence is the condition of a transaction on META.
type fence struct {
	app, key string
	was      Meta
}

// fenced runs a transaction as long as the fence holds. It is tried again when META
// was written to meanwhile, as by the word of an operator, and is as it should be.
func (w *Writer) fenced(ctx context.Context, f fence, fill func(redis.Pipeliner)) error {
	var err error
	for range 5 {
		err = w.do(ctx, func(c *redis.Client) error {
			return c.Watch(ctx, func(tx *redis.Tx) error {
				hash, err := tx.HGetAll(ctx, f.key).Result()
				if err != nil {
					return err
				}
				got := new(parser).meta(hash).Meta
				if !got.keptAs(f.was) {
					return &FencedError{App: f.app, Want: f.was, Got: got}
				}
				cmds, err := tx.TxPipelined(ctx, func(p redis.Pipeliner) error { fill(p); return nil })
				if isLink(err) {
					return &UncertainError{err}
				}
				for _, c := range cmds { // which command was refused, and why; EXEC only says that one was
					if err != nil && c.Err() != nil {
						return c.Err()
					}
				}
				return err
			}, f.key)
		})
		if !errors.Is(err, redis.TxFailedErr) {
			break
		}
	}
	if _, ok := errors.AsType[*FencedError](err); err != nil && !ok {
		return fmt.Errorf("%s: %w", f.key, err)
	}
	return err
}

// ErrNotHeld is a list of which nothing is held.
var ErrNotHeld = errors.New("nothing of it is held")

// AcceptHeld has the keeper of a list let go of what it holds: as few endpoints
// as its source had when the keeper said so are right.
func (w *Writer) AcceptHeld(ctx context.Context, app string) (Held, error) {
	list, err := w.Published(ctx, app)
	if err != nil {
		return Held{}, err
	}
	if list.Meta.Held == nil || list.Meta.Source != SourceConsul {
		return Held{}, fmt.Errorf("%s:UPSTREAMS: %w", app, ErrNotHeld)
	}
	_, key, _ := upstreamKeys(app)
	err = w.fenced(ctx, fence{app, key, list.Meta}, func(p redis.Pipeliner) {
		p.HSet(ctx, key, "accept", list.Meta.Held.Wanted)
	})
	return *list.Meta.Held, err
}
