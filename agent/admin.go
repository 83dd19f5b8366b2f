package agent

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/razor-steering/razor/upstreams"
)

// drainFile keeps what an operator drained over restarts, in the state directory.
const drainFile = "drained"

// admin is what an operator wants of this host. It is safe for concurrent use.
type admin struct {
	dir string

	keeping sync.Mutex // held while an operator's word is written, by a disk that may be slow

	mu      sync.Mutex
	byHand  string // why an operator drained it; "" if not
	leaving string // why the process ends; "" if not
}

// why says why there are to be no new flows; "" when there may be.
func (d *admin) why() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.leaving != "" {
		return d.leaving
	}
	return d.byHand
}

func (d *admin) leave(why string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.leaving = why
}

// leaves tells whether the process is about to end.
func (d *admin) leaves() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.leaving != ""
}

// drain takes an operator's word, "" to end a drain. The error is why it is not kept over
// a restart; it counts all the same.
func (d *admin) drain(why string) error {
	d.keeping.Lock()
	defer d.keeping.Unlock()
	d.mu.Lock()
	d.byHand = why
	d.mu.Unlock()
	file := filepath.Join(d.dir, drainFile)
	if why == "" {
		if err := os.Remove(file); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	return upstreams.ReplaceFile(file, []byte(why+"\n"), 0o644)
}

// load reads what an operator drained before.
func (d *admin) load(dir string) error {
	d.dir = dir
	text, err := os.ReadFile(filepath.Join(dir, drainFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if d.byHand = strings.TrimSpace(string(text)); d.byHand == "" {
		d.byHand = drainedByHand
	}
	return nil
}

const drainedByHand = "drained by hand"
