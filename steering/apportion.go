package steering

import "container/heap"

// apportion divides TableSlots among weights, of which there are at most as many
// and all above 0, by Webster's method (Balinski and Young, Fair Representation,
// 1982) with a first slot for everyone: slots are given one by one to the weight
// with the largest weight / (2 × its slots + 1), at a tie to the first.
//
// The order in which the slots of two weights come does not depend on the others.
// So when a weight leaves, no other one loses a slot, and when one grows, all
// slots that move go to it: with largest remainders or by turns, others would
// swap slots on the side.
//
// A share is off by half a slot, and where n weights are rounded to the same side
// by up to n in TableSlots of itself.
func apportion(weights []uint32) []uint32 {
	if len(weights) == 0 {
		return nil
	}
	var total uint64
	for _, w := range weights {
		total += uint64(w)
	}
	// What rounding gives is what the method gives for some number of slots.
	slots := make([]uint32, len(weights))
	left := TableSlots
	for i, w := range weights {
		slots[i] = uint32(max(1, (2*TableSlots*uint64(w)+total)/(2*total)))
		left -= int(slots[i])
	}
	q := &turns{weights: weights, slots: slots, give: left > 0}
	for i := range weights {
		if q.give || slots[i] > 1 {
			q.order = append(q.order, i)
		}
	}
	heap.Init(q)
	for ; left > 0; left-- {
		slots[q.order[0]]++
		heap.Fix(q, 0)
	}
	for ; left < 0; left++ {
		slots[q.order[0]]--
		if slots[q.order[0]] > 1 {
			heap.Fix(q, 0)
		} else {
			heap.Pop(q) // the first slot stays
		}
	}
	return slots
}

// turns is a heap of weights: the one that gets the next slot is the first, or the
// one that got the last.
type turns struct {
	weights, slots []uint32
	order          []int
	give           bool
}

func (q *turns) Len() int      { return len(q.order) }
func (q *turns) Swap(a, b int) { q.order[a], q.order[b] = q.order[b], q.order[a] }
func (q *turns) Push(any)      {}

func (q *turns) Pop() any {
	q.order = q.order[:len(q.order)-1]
	return nil
}

func (q *turns) Less(a, b int) bool {
	i, j := q.order[a], q.order[b]
	if q.give {
		return q.before(i, q.slots[i]+1, j, q.slots[j]+1)
	}
	return q.before(j, q.slots[j], i, q.slots[i])
}

// before tells whether slot m of weight i, its first being 1, comes before slot n
// of weight j. No first slots are compared.
func (q *turns) before(i int, m uint32, j int, n uint32) bool {
	a := uint64(q.weights[i]) * uint64(2*n-1)
	b := uint64(q.weights[j]) * uint64(2*m-1)
	return a > b || a == b && i < j
}
