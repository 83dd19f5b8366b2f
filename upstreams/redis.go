package upstreams

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

const (
	dialTimeout = 2 * time.Second
	readTimeout = 5 * time.Second // of a whole reply; a stalled server is asked again later
	scanCount   = 1000            // keys a SCAN step looks at
	readBatch   = 512             // keys read in one pipeline, a set counting as setWeight
	setWeight   = 32
)

// newClient is the connection for reading. Nothing is retried behind our back:
// the follower decides what a failure means.
func newClient(cfg Config) (*redis.Client, error) {
	opt, err := options(cfg)
	if err != nil {
		return nil, err
	}
	return redis.NewClient(opt), nil
}

func options(cfg Config) (*redis.Options, error) {
	tlsConfig, err := cfg.tlsConfig()
	if err != nil {
		return nil, err
	}
	network, addr := cfg.endpoint()
	silenceLibrary()
	return &redis.Options{
		Network: network, Addr: addr, Username: cfg.User, Password: cfg.Password,
		TLSConfig: tlsConfig, DialTimeout: dialTimeout, ReadTimeout: readTimeout,
		MaxRetries: -1, DialerRetries: 1, PoolSize: 4, DisableIdentity: true, ContextTimeoutEnabled: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}, nil
}

// silenceLibrary keeps the library from writing to standard error by itself: we
// have its errors.
var silenceLibrary = sync.OnceFunc(func() { redis.SetLogger(silent{}) })

type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

// reader reads keys of the schema from one server.
type reader struct {
	client redis.Cmdable
	// odd has, for a key found under another spelling than by the book (capital
	// letters), these spellings.
	odd map[keyID][]string
}

func newReader(c redis.Cmdable) *reader { return &reader{client: c, odd: map[keyID][]string{}} }

// found is the outcome of reading one key of the schema.
type found struct {
	id      keyID
	tried   []string // the spellings that were read
	key     string   // the one that is used
	exists  bool
	value   *value // nil where nothing usable is there
	defects []Defect
}

// keys lists the whole database.
func (r *reader) keys(ctx context.Context) ([]string, error) {
	var out []string
	var cursor uint64
	for {
		page, next, err := r.client.Scan(ctx, cursor, "", scanCount).Result()
		if err != nil {
			return nil, err
		}
		out = append(out, page...)
		if cursor = next; cursor == 0 {
			// SCAN may give a key twice.
			slices.Sort(out)
			return slices.Compact(out), nil
		}
	}
}

// note remembers an odd spelling.
func (r *reader) note(id keyID, key string) {
	if key != id.spelling() && !slices.Contains(r.odd[id], key) {
		r.odd[id] = append(r.odd[id], key)
		slices.Sort(r.odd[id])
	}
}

// spellings are the keys that may have the values of some.
func (r *reader) spellings(ids []keyID) []string {
	out := make([]string, 0, len(ids))
	for _, id := range ids {
		out = append(append(out, id.spelling()), r.odd[id]...)
	}
	return out
}

// read reads whole keys, in batches that take some milliseconds each. visit is
// called for every key, between after every batch.
func (r *reader) read(ctx context.Context, ids []keyID, visit func(found), between func() error) error {
	for len(ids) > 0 {
		n := batchLen(ids)
		if err := r.readBatch(ctx, ids[:n], visit); err != nil {
			return err
		}
		if ids = ids[n:]; between != nil {
			if err := between(); err != nil {
				return err
			}
		}
	}
	return nil
}

// batchLen is how many of the keys make a batch.
func batchLen(ids []keyID) int {
	weight := 0
	for n, id := range ids {
		if weight++; id.kind.redisType() == "set" {
			weight += setWeight - 1
		}
		if weight >= readBatch {
			return n + 1
		}
	}
	return len(ids)
}

func (r *reader) readBatch(ctx context.Context, batch []keyID, visit func(found)) error {
	var keys []string
	var of []keyID
	for _, id := range batch {
		for _, k := range r.spellings([]keyID{id}) {
			keys, of = append(keys, k), append(of, id)
		}
	}
	raws, err := r.readRaw(ctx, keys, of)
	if err != nil {
		return err
	}
	for i := 0; i < len(of); {
		j := i + 1
		for j < len(of) && of[j] == of[i] {
			j++
		}
		visit(r.choose(of[i], keys[i:j], raws[i:j]))
		i = j
	}
	return nil
}

// choose takes the first spelling that exists; the others are defects.
func (r *reader) choose(id keyID, keys []string, raws []raw) found {
	out := found{id: id, tried: keys, key: keys[0]}
	var odd []string
	for i, key := range keys {
		if !raws[i].exists {
			continue
		}
		if i > 0 {
			odd = append(odd, key)
		}
		if out.exists {
			out.defects = append(out.defects, Defect{Key: key, Reason: "another spelling of " + out.key + ", which is used", Want: "one key a name, in lower case"})
			continue
		}
		out.exists, out.key = true, key
		out.value, out.defects = parseValue(id, key, raws[i])
	}
	if len(odd) == 0 {
		delete(r.odd, id)
	} else {
		r.odd[id] = odd
	}
	return out
}

// readRaw reads keys in one pipeline.
func (r *reader) readRaw(ctx context.Context, keys []string, ids []keyID) ([]raw, error) {
	cmds := make([]redis.Cmder, len(keys))
	// The pipeline's error is that of its first command, which may be a key of
	// a wrong type; each command is looked at below.
	_, _ = r.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, key := range keys {
			switch ids[i].kind.redisType() {
			case "hash":
				cmds[i] = p.HGetAll(ctx, key)
			case "set":
				cmds[i] = p.SMembers(ctx, key)
			default:
				cmds[i] = p.Get(ctx, key)
			}
		}
		return nil
	})
	out := make([]raw, len(keys))
	for i, cmd := range cmds {
		var err error
		if out[i], err = rawOf(cmd); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func rawOf(cmd redis.Cmder) (raw, error) {
	err := cmd.Err()
	switch {
	case errors.Is(err, redis.Nil):
		return raw{}, nil
	case err != nil && strings.HasPrefix(err.Error(), "WRONGTYPE"):
		return raw{exists: true, wrong: true}, nil
	case err != nil && strings.HasPrefix(err.Error(), "NOPERM"):
		return raw{exists: true, denied: true}, nil
	case err != nil:
		return raw{}, err
	}
	switch c := cmd.(type) {
	case *redis.StringSliceCmd:
		return raw{exists: len(c.Val()) > 0, set: c.Val()}, nil
	case *redis.MapStringStringCmd:
		return raw{exists: len(c.Val()) > 0, hash: c.Val()}, nil
	case *redis.StringCmd:
		return raw{exists: true, text: c.Val()}, nil
	}
	return raw{}, errors.New("unexpected reply")
}

// scanned is all of a database that is ours.
type scanned struct {
	values  map[keyID]*value
	exists  map[keyID]bool
	defects map[string][]Defect // by key
}

// scanning is how a scan is done. The zero value reads for every CONFIG that it
// finds.
type scanning struct {
	configured []string           // zones of the configuration, wire form
	apex       func(string) bool  // names that are zones besides, may be nil
	use        func(found) *value // the value to take of what was found, may be nil
	between    func() error       // called every few milliseconds, may be nil
}

// scan reads every key of the schema. Without configured zones every CONFIG
// makes one; sticky names are read where they are in a zone.
func (r *reader) scan(ctx context.Context, how scanning) (*scanned, error) {
	keys, err := r.keys(ctx)
	if err != nil {
		return nil, err
	}
	configured := how.configured
	out := &scanned{values: map[keyID]*value{}, exists: map[keyID]bool{}, defects: map[string][]Defect{}}
	apexes := map[string]bool{}
	for _, z := range configured {
		apexes[z] = true
	}
	var ids []keyID
	var others []string
	for _, key := range keys {
		id, defect := parseKey(key)
		switch {
		case defect != nil:
			out.defects[key] = []Defect{*defect}
		case id.kind == kindConfig && len(configured) == 0:
			apexes[id.name] = true
		}
		switch id.kind {
		case kindForeign, kindSticky:
			others = append(others, key)
		default:
			r.note(id, key)
			ids = append(ids, id)
		}
	}
	for _, key := range others {
		id, slipped := inZone(key, func(name string) bool { return apexes[name] || how.apex != nil && how.apex(name) })
		if slipped != nil {
			out.defects[key] = []Defect{*slipped}
		} else if id.kind == kindSticky {
			r.note(id, key)
			ids = append(ids, id)
		}
	}
	// Two spellings of a key are read as one.
	seen := make(map[keyID]bool, len(ids))
	ids = slices.DeleteFunc(ids, func(id keyID) bool {
		dup := seen[id]
		seen[id] = true
		return dup
	})
	err = r.read(ctx, ids, func(f found) {
		if !f.exists {
			return
		}
		out.exists[f.id] = true
		if how.use != nil {
			f.value = how.use(f)
		}
		if f.value != nil {
			out.values[f.id] = f.value
		}
		if len(f.defects) > 0 {
			out.defects[f.key] = f.defects
		}
	}, how.between)
	return out, err
}

// inZone decides about keys that are ours only if their name is in a zone:
// sticky names, and slips of the pen.
func inZone(key string, apex func(name string) bool) (keyID, *Defect) {
	name, _, colon := strings.Cut(key, ":")
	wire, err := WireName(name)
	if err != nil {
		return keyID{}, nil
	}
	switch {
	case !below(wire, apex):
		return keyID{}, nil
	case colon:
		d := slip(key)
		return keyID{}, &d
	default:
		return keyID{kind: kindSticky, name: wire}, nil
	}
}
