package balancer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

const (
	// traceLease is for how long the program goes on to trace when it hears nothing of
	// who reads.
	traceLease = 2 * time.Second
	// traceRenew is how often it hears.
	traceRenew = traceLease / 4
)

// TraceFilter is which packets are traced.
type TraceFilter struct {
	Client  netip.Prefix // zero is all
	VIP     VIP          // of this, or inside of it; zero is all
	Reasons []string     // any of these became of it (see [TraceReasons]); none is all
	Every   uint32       // one of so many is looked at; 0 is each
}

// TraceDropped stands for all reasons that end a packet, in a [TraceFilter].
const TraceDropped = "dropped"

// TraceReasons are the words for what becomes of packets.
func TraceReasons() []string { return slices.Clone(reasons[:]) }

// Tracer reads what the program does with packets, from the maps that it has pinned: the
// process that filled them need not run. There is one at a time. When it is gone, also by
// kill -9, the program stops within [traceLease].
type Tracer struct {
	dir    *os.File // locked
	maps   map[string]*ebpf.Map
	host   *array[bpfHost]
	reader *ringbuf.Reader
	wanted bpfTrace
	names  map[netip.Addr]string // of backends and sites, by their SIDs
	vips   map[uint32]VIP        // by their numbers
}

// OpenTracer begins to trace at the balancer that has its pins in a directory. names are
// those of backends, and of sites, by their SIDs; who has none there is called by its SID.
func OpenTracer(pins string, f TraceFilter, names map[netip.Addr]string) (_ *Tracer, err error) {
	t := &Tracer{names: names, maps: map[string]*ebpf.Map{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.Close())
		}
	}()
	dir, err := traceable(pins)
	if err != nil {
		return nil, err
	}
	if err := t.lock(dir); err != nil {
		return nil, err
	}
	for _, name := range []string{bpfMapBackends, bpfMapCpuTraces, bpfMapRecords, bpfMapServices, bpfMapSettings, bpfMapSites, bpfMapTraces, bpfMapVips} {
		if t.maps[name], err = ebpf.LoadPinnedMap(filepath.Join(dir, name), nil); err != nil {
			return nil, err
		}
	}
	if err := t.learnVIPs(); err != nil {
		return nil, err
	}
	if t.wanted, err = t.filter(f); err != nil {
		return nil, err
	}
	if t.host, err = newArray[bpfHost](t.maps[bpfMapSettings]); err != nil {
		return nil, err
	}
	if t.reader, err = ringbuf.NewReader(t.maps[bpfMapRecords]); err != nil {
		return nil, fmt.Errorf("records: %w", err)
	}
	return t, t.start()
}

// traceable is the directory of the maps that the balancer uses, among its pins.
func traceable(pins string) (string, error) {
	dirs, err := earlier(pins)
	if err != nil {
		return "", err
	}
	if len(dirs) == 0 {
		return "", fmt.Errorf("no balancer has its maps in %s: it is not running here, or with other pins", pins)
	}
	if !strings.HasPrefix(filepath.Base(dirs[0]), fmt.Sprintf("balancer-%d-", layout)) {
		return "", fmt.Errorf("the balancer that has its maps in %s is of another version", dirs[0])
	}
	return dirs[0], nil
}

// lock has this be the only tracer: the kernel unlocks what a process leaves behind.
func (t *Tracer) lock(dir string) (err error) {
	if t.dir, err = os.Open(dir); err != nil {
		return err
	}
	// A process that is about to become another program has a copy for a moment.
	for end := time.Now().Add(lockPatience); ; time.Sleep(lockPatience / 20) {
		err = unix.Flock(int(t.dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(end) {
			break
		}
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		return errors.New("somebody traces already, one at a time can")
	}
	return err
}

// filter is what the program is told.
func (t *Tracer) filter(f TraceFilter) (w bpfTrace, err error) {
	w.Every, w.Session = max(f.Every, 1), rand.Uint32()
	if f.Client.IsValid() {
		w.Client.Bytes, w.ClientMask.Bytes = masked(f.Client)
	}
	if v := f.VIP; v != (VIP{}) {
		if !t.has(v) {
			return w, fmt.Errorf("vip %s: none of this balancer, which has %s", v, t.vipList())
		}
		w.Vip.Bytes, w.VipMask.Bytes = masked(v.Prefix)
		w.Port, w.Protocol = bigEndian(v.Port), v.Protocol
	}
	for _, word := range f.Reasons {
		bits := bitsOf(word)
		if bits == 0 {
			return w, fmt.Errorf("reason %q: unknown, want %s or %s", word, strings.Join(TraceReasons(), ", "), TraceDropped)
		}
		w.Reasons |= bits
	}
	if len(f.Reasons) == 0 {
		w.Reasons = 1<<len(reasons) - 1
	}
	return w, nil
}

// bitsOf are the reasons that a word stands for.
func bitsOf(word string) (bits uint32) {
	for i, r := range reasons {
		if r == word || word == TraceDropped && bpfReason(i).drop() {
			bits |= 1 << i
		}
	}
	return bits
}

// masked is a prefix as the program compares it.
func masked(p netip.Prefix) (address, mask [16]byte) {
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	for i := range bits {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return p.Masked().Addr().As16(), mask
}

// has tells whether some packets of a VIP are ours.
func (t *Tracer) has(v VIP) bool {
	for _, of := range t.vips {
		if of.Prefix.Overlaps(v.Prefix) && (of.Port == v.Port || of.Port == 0 || v.Port == 0) &&
			(of.Protocol == v.Protocol || of.Protocol == 0 || v.Protocol == 0) {
			return true
		}
	}
	return false
}

func (t *Tracer) vipList() string {
	var list []string
	for _, v := range t.vips {
		list = append(list, v.String())
	}
	if len(list) == 0 {
		return "none"
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

// learnVIPs reads which VIPs there are.
func (t *Tracer) learnVIPs() error {
	keys, err := all[bpfVipKey, bpfVip](t.maps[bpfMapVips])
	if err != nil {
		return err
	}
	t.vips = map[uint32]VIP{}
	for k, v := range keys {
		if v.Flags&vipAside == 0 {
			t.vips[uint32(v.Number)] = k.vip()
		}
	}
	return nil
}

// start forgets what an earlier tracer left, and has the program begin.
func (t *Tracer) start() error {
	if err := t.maps[bpfMapCpuTraces].Put(uint32(0), make([]bpfCpuTrace, ebpf.MustPossibleCPU())); err != nil {
		return fmt.Errorf("trace: %w", err)
	}
	return t.renew()
}

// renew has the program go on.
func (t *Tracer) renew() error {
	at, err := os.Stat(t.dir.Name())
	if err == nil {
		var is fs.FileInfo
		if is, err = t.dir.Stat(); err == nil && !os.SameFile(at, is) {
			err = fs.ErrNotExist
		}
	}
	if err != nil {
		return fmt.Errorf("the balancer was taken away: %w", err)
	}
	if err := t.learnVIPs(); err != nil {
		return err
	}
	t.wanted.Until = uint64(monotonic() + traceLease)
	if err := t.maps[bpfMapTraces].Put(uint32(0), t.wanted); err != nil {
		return fmt.Errorf("trace: %w", err)
	}
	atomic.StoreUint32(&t.host.at(0).Traced, 1)
	return nil
}

// monotonic is the clock of the program.
func monotonic() time.Duration {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // cannot fail: the clock and the memory are there
	return time.Duration(now.Nano())
}

// Run calls each with every record, until that returns false or an error, or ctx ends.
// What there is of records at the end is read before it returns.
func (t *Tracer) Run(ctx context.Context, each func(*TraceRecord) (more bool, err error)) error {
	defer context.AfterFunc(ctx, func() { _ = t.reader.Flush() })()
	due := time.Now().Add(traceRenew)
	var raw ringbuf.Record
	for {
		if now := time.Now(); ctx.Err() == nil && !now.Before(due) {
			if err := t.renew(); err != nil {
				return err
			}
			due = now.Add(traceRenew)
		}
		t.reader.SetDeadline(due)
		switch err := t.reader.ReadInto(&raw); {
		case errors.Is(err, os.ErrDeadlineExceeded):
			continue
		case errors.Is(err, ringbuf.ErrFlushed):
			return nil
		case err != nil:
			return err
		}
		r, ok := t.decode(raw.RawSample)
		if !ok {
			continue // an earlier tracer's
		}
		if more, err := each(r); err != nil || !more {
			return err
		}
	}
}

// TraceLosses are how many packets there are no records of, beside those that were not
// wanted.
type TraceLosses struct {
	Unseen  uint64 // they came when enough were looked at; some may not have been wanted
	Limited uint64 // there were records of too many
	Full    uint64 // the records were not read fast enough
}

// Losses are those of this tracer until now.
func (t *Tracer) Losses() (l TraceLosses, err error) {
	var of []bpfCpuTrace
	if err := t.maps[bpfMapCpuTraces].Lookup(uint32(0), &of); err != nil {
		return l, fmt.Errorf("trace: %w", err)
	}
	for i := range of {
		l.Unseen += of[i].Unseen
		l.Limited += of[i].Limited
		l.Full += of[i].Lost
	}
	return l, nil
}

// Close ends the trace.
func (t *Tracer) Close() error {
	if t.host != nil {
		atomic.StoreUint32(&t.host.at(0).Traced, 0)
	}
	err := t.host.close()
	if t.reader != nil {
		err = errors.Join(err, t.reader.Close())
	}
	for _, m := range t.maps {
		err = errors.Join(err, m.Close())
	}
	if t.dir != nil {
		err = errors.Join(err, unlock(t.dir))
	}
	return err
}
