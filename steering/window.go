package steering

import (
	"fmt"
	"math/bits"
	"strings"
)

// MaxWindow bounds a window: it is a word.
const MaxWindow = 64

// window is the last measurements, as Varnish has them (vcl-probe(7)): it is up while at
// least a number of them passed, and down once so many failed that this cannot be, whatever
// those before were. As long as there are fewer measurements than its size, it may be
// neither. Its size 0 is no window.
type window struct {
	size, threshold int
	filled          int    // measurements in it, with those that count as passed at the start
	passes          uint64 // 1 is a measurement that passed; the lowest is the newest
}

// newWindow has initial measurements that passed.
func newWindow(size, threshold, initial int) window {
	w := window{size: min(size, MaxWindow), threshold: threshold}
	for range min(initial, w.size) {
		w.add(true)
	}
	return w
}

func (w *window) add(passed bool) {
	w.passes <<= 1
	if passed {
		w.passes |= 1
	}
	w.passes &= 1<<w.size - 1
	w.filled = min(w.filled+1, w.size)
}

// clear forgets all measurements.
func (w *window) clear() { w.filled, w.passes = 0, 0 }

func (w *window) good() int  { return bits.OnesCount64(w.passes) }
func (w *window) up() bool   { return w.good() >= w.threshold }
func (w *window) down() bool { return w.filled-w.good() > w.size-w.threshold }

// count is how many passed of how many.
func (w *window) count() string { return fmt.Sprintf("%d/%d", w.good(), w.size) }

// String is the count and the measurements, the newest last: "5/8 .++-++-+", where a dot
// is one that there was not yet.
func (w *window) String() string {
	var b strings.Builder
	b.WriteString(w.count() + " ")
	for i := w.size - 1; i >= 0; i-- {
		switch {
		case i >= w.filled:
			b.WriteByte('.')
		case w.passes>>i&1 == 1:
			b.WriteByte('+')
		default:
			b.WriteByte('-')
		}
	}
	return b.String()
}
