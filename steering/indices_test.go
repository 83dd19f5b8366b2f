package steering

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestIndices gives and releases indices at random, near the end of what there
// are, and remembers when each was last somebody's.
func TestIndices(t *testing.T) {
	t.Parallel()
	// The last few of a gateway that used up all others.
	const few = 5
	before := map[string]uint16{}
	for i := 1; i <= MaxBackend-few; i++ {
		before[fmt.Sprint("old", i)] = uint16(i)
	}
	checkFew(t, func(t *rapid.T) {
		now := time.Unix(1e9, 0)
		x, err := RestoreIndices(before, now)
		if err != nil {
			t.Fatal(err)
		}
		has := map[string]uint16{}
		left := map[uint16]time.Time{}
		t.Repeat(map[string]func(*rapid.T){
			"get": func(t *rapid.T) {
				key := fmt.Sprint("new", rapid.IntRange(0, 9).Draw(t, "key"))
				index, err := x.Get(key, now)
				if had, ok := has[key]; ok {
					if index != had || err != nil {
						t.Fatalf("%s has %d, then %d (%v)", key, had, index, err)
					}
					return
				}
				if err != nil {
					for i := MaxBackend - few + 1; i <= MaxBackend; i++ {
						at, released := left[uint16(i)]
						if _, used := x.Key(uint16(i)); !used && (!released || now.Sub(at) >= time.Minute) {
							t.Fatalf("%d is free: %v", i, err)
						}
					}
					return
				}
				if index <= MaxBackend-few || index > MaxBackend {
					t.Fatalf("%s has %d", key, index)
				}
				for other, had := range has {
					if had == index {
						t.Fatalf("%s and %s both have %d", key, other, index)
					}
				}
				if at, released := left[index]; released && now.Sub(at) < time.Minute {
					t.Fatalf("%d is given again after %v", index, now.Sub(at))
				}
				has[key] = index
			},
			"release": func(t *rapid.T) {
				key := fmt.Sprint("new", rapid.IntRange(0, 9).Draw(t, "key"))
				x.Release(key, now)
				if index, ok := has[key]; ok {
					left[index] = now
					delete(has, key)
				}
			},
			"wait": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(1, 70).Draw(t, "seconds")) * time.Second)
			},
			"": func(t *rapid.T) {
				if x.Len() != len(before)+len(has) {
					t.Fatalf("%d in use, want %d", x.Len(), len(before)+len(has))
				}
				for i := MaxBackend - few + 1; i <= MaxBackend; i++ {
					if key, ok := x.Key(uint16(i)); ok && has[key] != uint16(i) {
						t.Fatalf("%d is that of %q, which has %d", i, key, has[key])
					}
				}
				for key, index := range has {
					if got, ok := x.Key(index); !ok || got != key {
						t.Fatalf("%d is that of %q, want %q", index, got, key)
					}
				}
			},
		})
	})
}

// Indices that nobody had at the restart may have been somebody's just before.
func TestRestoreIndices(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	x, err := RestoreIndices(map[string]uint16{"a": 2, "b": MaxBackend}, now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x.Get("c", now.Add(59*time.Second)); err == nil ||
		err.Error() != `backend "c": all 32767 indices are in use or were until 1m0s ago` {
		t.Errorf("error %v", err)
	}
	for _, want := range []uint16{1, 3, 4} {
		if got, err := x.Get(fmt.Sprint("new", want), now.Add(time.Minute)); err != nil || got != want {
			t.Errorf("index %d, want %d (%v)", got, want, err)
		}
	}
	if got, err := x.Get("a", now); err != nil || got != 2 {
		t.Errorf("a has index %d, want 2 (%v)", got, err)
	}
	for want, used := range map[string]map[string]uint16{
		`backend "a": index 0 is not within 1 and 32767`:     {"a": 0},
		`backend "a": index 32768 is not within 1 and 32767`: {"a": 32768},
		`backend "b": index 7 is that of "a" too`:            {"a": 7, "b": 7},
	} {
		if _, err := RestoreIndices(used, now); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

func TestIndicesOfNobody(t *testing.T) {
	t.Parallel()
	var x Indices
	x.Release("a", time.Unix(1e9, 0))
	if key, ok := x.Key(1); ok || x.Len() != 0 {
		t.Errorf("%q has an index", key)
	}
	if got, err := x.Get("a", time.Unix(1e9, 0)); err != nil || got != 1 {
		t.Errorf("the first index is %d (%v)", got, err)
	}
}
