package upstreams

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// Limits of what is read in the Redis serialization protocol, so that a broken
// peer or file costs a bounded amount of memory.
const (
	maxBulk  = 512 << 20 // octets, as Redis' own proto-max-bulk-len
	maxItems = 1 << 28
	maxDepth = 8
)

var errRESP = errors.New("not the Redis protocol")

// respError is an error reply.
type respError string

func (e respError) Error() string { return string(e) }

// RedisError makes it a redis.Error, as the replies that the library reads.
func (respError) RedisError() {}

// respPush is an out-of-band message of RESP3.
type respPush []any

// readRESP reads one value: string, int64, nil, []any, respPush, map entries as
// a flat []any, or respError.
func readRESP(r *bufio.Reader) (any, error) { return readRESPDepth(r, 0) }

func readRESPDepth(r *bufio.Reader, depth int) (any, error) {
	line, err := respLine(r)
	if err != nil {
		return nil, err
	}
	if len(line) == 0 || depth > maxDepth {
		return nil, errRESP
	}
	rest := string(line[1:])
	switch line[0] {
	case '+', ',', '(':
		return rest, nil
	case '-':
		return respError(rest), nil
	case ':':
		return strconv.ParseInt(rest, 10, 64)
	case '_':
		return nil, nil
	case '#':
		return rest == "t", nil
	case '$', '=', '!':
		return respBulk(r, rest)
	case '*', '~':
		return respItems(r, rest, 1, depth)
	case '%':
		return respItems(r, rest, 2, depth)
	case '>':
		items, err := respItems(r, rest, 1, depth)
		list, _ := items.([]any)
		return respPush(list), err
	default:
		return nil, fmt.Errorf("%w: type %q", errRESP, line[0])
	}
}

// respLine reads up to CRLF; longer than the buffer is an error.
func respLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		if errors.Is(err, bufio.ErrBufferFull) {
			return nil, errRESP
		}
		return nil, err
	}
	if len(line) < 2 || line[len(line)-2] != '\r' {
		return nil, errRESP
	}
	return line[:len(line)-2], nil
}

func respLength(s string, limit int) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < -1 || n > limit {
		return 0, fmt.Errorf("%w: length %q", errRESP, s)
	}
	return n, nil
}

func respBulk(r *bufio.Reader, length string) (any, error) {
	n, err := respLength(length, maxBulk)
	if err != nil || n < 0 {
		return nil, err
	}
	// A false length must not cost its memory before the octets are there.
	buf := make([]byte, 0, min(n+2, 64<<10))
	for len(buf) < n+2 {
		chunk := min(n+2-len(buf), 64<<10)
		at := len(buf)
		buf = append(buf, make([]byte, chunk)...)
		if _, err := io.ReadFull(r, buf[at:]); err != nil {
			return nil, err
		}
	}
	if buf[n] != '\r' || buf[n+1] != '\n' {
		return nil, errRESP
	}
	return string(buf[:n]), nil
}

func respItems(r *bufio.Reader, length string, per, depth int) (any, error) {
	n, err := respLength(length, maxItems)
	if err != nil || n < 0 {
		return nil, err
	}
	out := make([]any, 0, min(n*per, 1024))
	for range n * per {
		v, err := readRESPDepth(r, depth+1)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

// appendCommand writes a command as clients send it, an array of bulk strings.
func appendCommand(dst []byte, args ...string) []byte {
	dst = fmt.Appendf(dst, "*%d\r\n", len(args))
	for _, a := range args {
		dst = fmt.Appendf(dst, "$%d\r\n%s\r\n", len(a), a)
	}
	return dst
}
