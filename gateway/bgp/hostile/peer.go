package hostile

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"
)

// Hold is the hold time that the peer proposes, in seconds. Its sessions send
// nothing of their own but answers to KEEPALIVEs, which come three times as often.
const Hold = 9

const (
	noType = 0                      // of no message
	moment = 20 * time.Millisecond  // in which a session on one machine ends
	pause  = 100 * time.Millisecond // between connections that were not wanted
)

// Ended is the end of a session: by a NOTIFICATION, or without one if Code is 0.
type Ended struct {
	Code, Subcode byte
	Data          []byte
	Cause         error // of the connection, if there was no NOTIFICATION
}

func (e *Ended) Error() string {
	if e.Code == 0 {
		return fmt.Sprintf("session ended: %v", e.Cause)
	}
	return fmt.Sprintf("session ended: NOTIFICATION %d/%d % x", e.Code, e.Subcode, e.Data)
}

// Session is a connection to a speaker on which the peer behaved so far. It is for
// one goroutine.
type Session struct {
	conn net.Conn
	r    *bufio.Reader
}

// Reach brings a new connection to state. The deadline of ctx is that of the
// session too. An error is *Ended if the speaker wanted no session.
func Reach(ctx context.Context, conn net.Conn, state State) (*Session, error) {
	s := &Session{conn: conn, r: bufio.NewReaderSize(conn, 1<<16)}
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	if state >= OpenSent {
		if err := s.until(typeOpen); err != nil {
			return nil, err
		}
	}
	if state >= OpenConfirm {
		if err := s.Send(open(Hold, parameter(2, capabilities()))); err != nil {
			return nil, err
		}
		if err := s.until(typeKeepalive); err != nil {
			return nil, err
		}
	}
	if state >= Established {
		return s, s.Send(keepalive())
	}
	return s, nil
}

// Send writes to the speaker.
func (s *Session) Send(b []byte) error {
	if _, err := s.conn.Write(b); err != nil {
		return &Ended{Cause: err}
	}
	return nil
}

// Alive returns nil when two more KEEPALIVEs have come from the speaker, each
// answered with one: it has read what was sent before, and stayed. An error is
// *Ended, or says that nothing came in time.
func (s *Session) Alive() error {
	for range 2 {
		if err := s.until(typeKeepalive); err != nil {
			return err
		}
		if err := s.Send(keepalive()); err != nil {
			return err
		}
	}
	return nil
}

// until reads messages to the first one of a type.
func (s *Session) until(typ byte) error {
	for {
		got, body, err := s.read()
		switch {
		case isTimeout(err):
			return err
		case err != nil:
			return &Ended{Cause: err}
		case got == typeNotification && len(body) >= 2:
			return &Ended{Code: body[0], Subcode: body[1], Data: body[2:]}
		case got == typ:
			return nil
		}
	}
}

func isTimeout(err error) bool {
	t, ok := errors.AsType[net.Error](err)
	return ok && t.Timeout()
}

// read reads one message, of which it looks at the length alone. When it is out of
// time, nothing has been read.
func (s *Session) read() (typ byte, body []byte, err error) {
	header, err := s.r.Peek(headerLen)
	if err != nil {
		return 0, nil, err
	}
	n := int(binary.BigEndian.Uint16(header[16:]))
	if n < headerLen {
		return 0, nil, fmt.Errorf("message of %d octets", n)
	}
	b, err := s.r.Peek(n)
	if err != nil {
		return 0, nil, err
	}
	b = bytes.Clone(b)
	_, err = s.r.Discard(n)
	return b[headerLen-1], b[headerLen:], err
}

// Connect opens a connection to the speaker.
type Connect func(context.Context) (net.Conn, error)

// reach brings a new connection to state. While the speaker wants no session, as
// for some time after one that ended badly, it is asked again.
func reach(ctx context.Context, connect Connect, state State) (*Session, error) {
	for {
		conn, err := connect(ctx)
		if err == nil {
			var s *Session
			if s, err = Reach(ctx, conn, state); err == nil {
				return s, nil
			}
			conn.Close()
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("no session before the end of time: %w", err)
		case <-time.After(pause):
		}
	}
}

// Play sends a case in its state, in a session of its own. Nil says that it was
// outlived; an error is *Ended if the session has ended, or that of reach.
func Play(ctx context.Context, connect Connect, c Case) error {
	s, err := reach(ctx, connect, c.State)
	if err != nil {
		return err
	}
	defer s.conn.Close()
	return s.sendAll([]Case{c})
}

// Culprits sends cases of Established that have to be survived, and returns those
// that end a session nevertheless. Survivors cost nothing but their octets, a
// culprit some sessions.
func Culprits(ctx context.Context, connect Connect, list []Case) ([]Case, error) {
	if len(list) == 0 {
		return nil, nil
	}
	s, err := reach(ctx, connect, Established)
	if err != nil {
		return nil, err
	}
	err = s.sendAll(list)
	s.conn.Close()
	_, ended := errors.AsType[*Ended](err)
	switch {
	case !ended:
		return nil, err
	case len(list) == 1:
		return list, nil
	}
	half := len(list) / 2
	first, err := Culprits(ctx, connect, list[:half])
	if err != nil {
		return nil, err
	}
	second, err := Culprits(ctx, connect, list[half:])
	return append(first, second...), err
}

// sendAll sends the cases one after another.
func (s *Session) sendAll(list []Case) error {
	for _, c := range list {
		if err := s.Send(c.Bytes); err != nil {
			return err
		}
	}
	return s.Alive()
}

// Assault sends cases of Established whatever becomes of the sessions: many on
// one, and the next where that ended. Nil says that the speaker has outlived all,
// as a last session shows.
func Assault(ctx context.Context, connect Connect, list []Case) error {
	for len(list) > 0 {
		s, err := reach(ctx, connect, Established)
		if err != nil {
			return err
		}
		sent := s.sendUntilEnd(list)
		s.conn.Close()
		if sent > 1 && sent < len(list) {
			sent-- // it may not have been read any more
		}
		list = list[sent:]
	}
	s, err := reach(ctx, connect, Established)
	if err != nil {
		return err
	}
	defer s.conn.Close()
	return s.Alive()
}

// sendUntilEnd sends cases until the session ends, and returns how many. It looks
// for the end for a moment after each: when it comes later, a case is lost.
func (s *Session) sendUntilEnd(list []Case) int {
	for i, c := range list {
		if s.Send(c.Bytes) != nil {
			return i + 1
		}
		_ = s.conn.SetReadDeadline(time.Now().Add(moment))
		err := s.until(noType)
		if !isTimeout(err) {
			return i + 1
		}
		if s.Send(keepalive()) != nil {
			return i + 1
		}
	}
	return len(list)
}
