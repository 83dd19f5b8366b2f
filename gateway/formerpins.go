package gateway

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/razor-steering/razor/gateway/balancer"
	"github.com/razor-steering/razor/upstreams"
)

// pinsFile has, in the state directory, where the pins of the dataplane are: what is
// pinned goes on when the configuration tells of it no longer.
const pinsFile = "dataplane-pins"

// notePins writes where the pins are.
func notePins(stateDir, pins string) error {
	return upstreams.ReplaceFile(filepath.Join(stateDir, pinsFile), []byte(pins+"\n"), 0o600)
}

// forgetPins says that there are none.
func forgetPins(stateDir string) error {
	err := os.Remove(filepath.Join(stateDir, pinsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// removeFormer takes a dataplane off the host that an earlier gateway with this state
// directory had, and that this one has not, or has elsewhere. Where another process has
// it now, or it cannot be taken off, the note of it stays for the next time.
func removeFormer(c *Config, log *slog.Logger) error {
	text, err := os.ReadFile(filepath.Join(c.StateDir, pinsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	pins := strings.TrimSpace(string(text))
	if c.Dataplane.used() && pins == c.Dataplane.Pins {
		return nil
	}
	if err := balancer.RemovePinned(pins); err != nil {
		return err
	}
	log.Info("former dataplane taken off", "pins", pins)
	return forgetPins(c.StateDir)
}
