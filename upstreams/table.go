package upstreams

import (
	"hash/maphash"
	"iter"
	"maps"
	"reflect"
)

// shardCount divides a table so that an edit copies one shard, not all names:
// a thousandth of a million sticky names.
const shardCount = 1024

var shardSeed = maphash.MakeSeed()

// table is an immutable map of names in wire form. Changes are made by an edit,
// which leaves the table as it is and shares what it does not touch.
type table[V any] struct {
	shards *[shardCount]map[string]V
}

// get looks a name up without allocating.
func (t table[V]) get(name []byte) (V, bool) {
	if t.shards == nil {
		var zero V
		return zero, false
	}
	v, ok := t.shards[maphash.Bytes(shardSeed, name)%shardCount][string(name)]
	return v, ok
}

func (t table[V]) getString(name string) (V, bool) {
	if t.shards == nil {
		var zero V
		return zero, false
	}
	v, ok := t.shards[maphash.String(shardSeed, name)%shardCount][name]
	return v, ok
}

// all visits every name, in no order.
func (t table[V]) all() iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		if t.shards == nil {
			return
		}
		for _, shard := range t.shards {
			for k, v := range shard {
				if !yield(k, v) {
					return
				}
			}
		}
	}
}

// touchedSince visits the names of the shards that another table does not share,
// each once.
func (t table[V]) touchedSince(old table[V]) iter.Seq[string] {
	return func(yield func(string) bool) {
		if t.shards == old.shards {
			return
		}
		for i := range shardCount {
			now, was := t.shard(i), old.shard(i)
			if reflect.ValueOf(now).Pointer() == reflect.ValueOf(was).Pointer() {
				continue
			}
			for name := range now {
				if !yield(name) {
					return
				}
			}
			for name := range was {
				if _, ok := now[name]; !ok && !yield(name) {
					return
				}
			}
		}
	}
}

func (t table[V]) shard(i int) map[string]V {
	if t.shards == nil {
		return nil
	}
	return t.shards[i]
}

// tableEdit is a table in the making.
type tableEdit[V any] struct {
	table[V]
	own [shardCount]bool // shards that are no longer shared
}

func (t table[V]) edit() *tableEdit[V] {
	e := &tableEdit[V]{}
	e.shards = new([shardCount]map[string]V)
	if t.shards != nil {
		*e.shards = *t.shards
	}
	return e
}

func (e *tableEdit[V]) owned(name string) map[string]V {
	i := maphash.String(shardSeed, name) % shardCount
	if !e.own[i] {
		e.own[i] = true
		if e.shards[i] = maps.Clone(e.shards[i]); e.shards[i] == nil {
			e.shards[i] = map[string]V{}
		}
	}
	return e.shards[i]
}

func (e *tableEdit[V]) set(name string, v V) { e.owned(name)[name] = v }

func (e *tableEdit[V]) remove(name string) { delete(e.owned(name), name) }

// done is the finished table; the edit must not be used after it.
func (e *tableEdit[V]) done() table[V] { return e.table }
