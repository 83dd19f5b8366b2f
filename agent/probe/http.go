package probe

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// maxAnswer bounds what is read of an answer, in octets.
const maxAnswer = 64 << 10

// httpProbe asks once and compares the answer. It speaks HTTP/1.1 over a
// connection of its own, which it closes whatever the server would like. It is
// not net/http's client because all of it has to happen in one goroutine, where
// a panic is caught, and within a bound for the whole answer.
type httpProbe struct {
	target  string
	tls     *tls.Config // nil for http
	request []byte
	status  int
	body    []byte // nil where it does not matter
}

func newHTTPProbe(c *Config) *httpProbe {
	host := c.Host
	or(&host, authority(c.Target))
	p := &httpProbe{target: c.Target, status: c.Status, body: []byte(c.Body)}
	p.request = fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: razor\r\nAccept: */*\r\nConnection: close\r\n\r\n", c.Path, host)
	if c.Kind == kindHTTPS {
		name := c.TLSName
		or(&name, hostOf(host))
		p.tls = &tls.Config{ServerName: name, InsecureSkipVerify: c.Insecure}
	}
	return p
}

func (p *httpProbe) measure(ctx context.Context) error { return p.ask(ctx, p.judge) }

// line is the first one of the body.
func (p *httpProbe) line(ctx context.Context) (line string, err error) {
	err = p.ask(ctx, func(r io.Reader) error {
		answer, limited, err := p.accept(r)
		if err != nil {
			return err
		}
		body, err := io.ReadAll(answer.Body)
		line = firstLine(body)
		if err != nil && limited.N > 0 {
			return fmt.Errorf("body: %s", brief(err))
		}
		return nil
	})
	return line, err
}

// ask sends the request, and has the answer read.
func (p *httpProbe) ask(ctx context.Context, read func(io.Reader) error) error {
	conn, err := connect(ctx, "tcp", p.target)
	if err != nil {
		return err
	}
	defer conn.Close()
	if p.tls != nil {
		secure := tls.Client(conn, p.tls)
		// Without a context, which would take a goroutine: conn ends with it.
		if err := secure.Handshake(); err != nil {
			return fmt.Errorf("handshake: %s", brief(err))
		}
		conn = secure
	}
	if _, err := conn.Write(p.request); err != nil {
		return fmt.Errorf("request: %s", brief(err))
	}
	err = read(conn)
	if err != nil && ctx.Err() != nil {
		// What was read until then looks like a whole answer that is wrong.
		return fmt.Errorf("answer: %s", brief(ctx.Err()))
	}
	return err
}

// accept reads the header of the answer, which has to have the status.
func (p *httpProbe) accept(r io.Reader) (*http.Response, *io.LimitedReader, error) {
	limited := &io.LimitedReader{R: r, N: maxAnswer}
	answer, err := final(bufio.NewReader(limited))
	switch {
	case err != nil && limited.N == 0:
		return nil, nil, errors.New("answer: header too long")
	case err != nil:
		return nil, nil, fmt.Errorf("answer: %s", brief(err))
	case answer.StatusCode != p.status:
		return nil, nil, fmt.Errorf("status %d instead of %d", answer.StatusCode, p.status)
	}
	return answer, limited, nil
}

// judge reads the answer as far as it matters.
func (p *httpProbe) judge(r io.Reader) error {
	answer, limited, err := p.accept(r)
	if err != nil || len(p.body) == 0 {
		return err
	}
	// Not closed: that would read on to the end. It has no resources of its own.
	body, err := io.ReadAll(answer.Body)
	switch {
	case bytes.Contains(body, p.body):
		return nil
	case err != nil && limited.N > 0:
		return fmt.Errorf("body: %s", brief(err))
	default:
		return fmt.Errorf("body without %q", p.body)
	}
}

// final is the first answer that is not an interim one (RFC 9110 §15.2).
func final(r *bufio.Reader) (*http.Response, error) {
	for {
		answer, err := http.ReadResponse(r, nil)
		if err != nil || answer.StatusCode >= 200 || answer.StatusCode == http.StatusSwitchingProtocols {
			return answer, err
		}
	}
}
