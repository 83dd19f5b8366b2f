package bgp

import (
	"bufio"
	"bytes"
	"testing"

	"github.com/razor-steering/razor/gateway/bgp/hostile"
)

// Everything that a session has to outlive does no harm, and what may end one ends
// it by a NOTIFICATION that says why.
func TestHostileCases(t *testing.T) {
	t.Parallel()
	survived, ended := 0, 0
	for _, c := range hostile.Cases() {
		err := judge(c.Bytes)
		if err == nil {
			survived++
			continue
		}
		ended++
		if c.Survives {
			t.Errorf("%s: %v", c.Name, err)
		}
		if verdict(err) == err.Error() {
			t.Errorf("%s: %v is no NOTIFICATION", c.Name, err)
		}
	}
	t.Logf("%d cases do no harm, %d end a session", survived, ended)
}

// judge reads a message as a session does, whatever state that is in.
func judge(b []byte) error {
	m, err := readMessage(bufio.NewReader(bytes.NewReader(b)))
	if err != nil {
		return err
	}
	switch m.typ() {
	case typeOpen:
		_, err = parseOpen(m.body())
	case typeUpdate:
		_, err = surveyUpdate(m.body(), families{true, true}, true)
	case typeNotification:
		return parseNotification(m.body())
	case typeRefresh:
		parseRefresh(m.body())
	}
	return err
}
