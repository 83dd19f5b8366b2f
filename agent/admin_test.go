package agent

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A disk that is slow, here one that waits for a reader, does not keep the word of an
// operator from those who are told, nor their reports from anybody.
func TestDrainOnASlowDisk(t *testing.T) {
	t.Parallel()
	d := admin{dir: t.TempDir()}
	next := filepath.Join(d.dir, drainFile+".new")
	if err := unix.Mkfifo(next, 0o600); err != nil {
		t.Fatal(err)
	}
	kept := make(chan error)
	go func() { kept <- d.drain("cables") }()
	for deadline := time.Now().Add(10 * time.Second); d.why() != "cables"; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nobody hears of the drain")
		}
	}
	reader, err := os.Open(next)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if err := <-kept; err == nil {
		t.Error("kept in a pipe")
	}
}
