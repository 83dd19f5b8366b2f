package upstreams

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// words are what a value says, one word for each member, field or text.
func (v *value) words() []string {
	switch {
	case v == nil:
		return nil
	case v.pool != nil:
		return memberTexts(v.pool.Members(), v.pool.Len())
	case v.skip != nil:
		return memberTexts(v.skip.Entries(), v.skip.Len())
	case v.blackholes != nil:
		return blackholeTexts(v.blackholes)
	case v.groups != nil:
		return v.groups.Names()
	case v.config != nil:
		return fieldWords(v.config.fields)
	case v.meta != nil:
		return fieldWords(v.meta.fields)
	case v.said != nil:
		return []string{v.said.words()}
	case v.route != "":
		return []string{NameText(v.route)}
	case v.edges != nil:
		out := make([]string, len(v.edges))
		for i, e := range v.edges {
			out[i] = NameText(e)
		}
		return out
	case v.list != nil:
		out := make([]string, len(v.list))
		for i, e := range v.list {
			out[i] = e.String()
		}
		return out
	}
	return []string{stateText(v.state, v.since)}
}

func fieldWords(fields map[string]string) []string {
	var out []string
	for _, f := range slices.Sorted(maps.Keys(fields)) {
		out = append(out, f+" "+fields[f])
	}
	return out
}

// diff is what makes the new value of a key out of the old one, a line each:
// "- key member" and "+ key member". Either may be nil.
func diff(id keyID, old, v *value) []string {
	was, is := old.words(), v.words()
	had, has := set(was), set(is)
	var out []string
	for _, w := range was {
		if !has[w] {
			out = append(out, "- "+id.spelling()+" "+w)
		}
	}
	for _, w := range is {
		if !had[w] {
			out = append(out, "+ "+id.spelling()+" "+w)
		}
	}
	return out
}

func set(words []string) map[string]bool {
	out := make(map[string]bool, len(words))
	for _, w := range words {
		out[w] = true
	}
	return out
}

// diffAll is diff for all keys, in the order of their spelling.
func diffAll(old, values map[keyID]*value) []string {
	ids := slices.Collect(maps.Keys(old))
	for id := range values {
		if old[id] == nil {
			ids = append(ids, id)
		}
	}
	type key struct {
		spelling string
		id       keyID
	}
	keys := make([]key, len(ids))
	for i, id := range ids {
		keys[i] = key{id.spelling(), id}
	}
	slices.SortFunc(keys, func(a, b key) int {
		if a.spelling < b.spelling {
			return -1
		}
		return 1
	})
	var out []string
	for _, k := range keys {
		out = append(out, diff(k.id, old[k.id], values[k.id])...)
	}
	return out
}

// DiffLive writes what makes the lists in Redis out of those in a snapshot file,
// or in the state directory that it is in, and tells whether there is anything.
func DiffLive(ctx context.Context, cfg Config, zones []string, file string, w io.Writer) (bool, error) {
	if info, err := os.Stat(file); err == nil && info.IsDir() {
		file = filepath.Join(file, SnapshotFile)
	}
	old, err := loadFile(file)
	if err != nil {
		return false, err
	}
	got, err := scanLive(ctx, cfg, zones)
	if err != nil {
		return false, err
	}
	lines := diffAll(old, got.values)
	for _, l := range lines {
		if _, err := fmt.Fprintln(w, escaped(l)); err != nil {
			return true, err
		}
	}
	return len(lines) > 0, nil
}

// WatchLive writes the changes of the lists as they come, until ctx ends. What
// Redis has at the start is not written.
func WatchLive(ctx context.Context, cfg Config, zones []string, log *slog.Logger, w io.Writer) error {
	f, err := NewFollower(cfg, Options{Zones: zones}, log, nil)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	f.changed = func(id keyID, old, v *value) {
		if f.Snapshot() == nil {
			return // of the start
		}
		for _, line := range diff(id, old, v) {
			if _, err := fmt.Fprintln(w, escaped(line)); err != nil {
				cancel(err)
			}
		}
	}
	if err := f.Run(ctx); err != nil {
		return err
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause // nobody reads any more
	}
	return nil
}
