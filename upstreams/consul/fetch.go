package consul

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"

	"github.com/hashicorp/consul/api"
)

// agent is where health is asked for.
//
// The library is not asked: decoding the answer for a thousand instances, of which
// one has changed, would take as long as Consul needs to make it. Here only those
// entries are decoded whose octets are not those of the last answer.
type agent struct {
	http  *http.Client
	base  string // scheme and host
	token string
}

// entriesSeed makes the hashes by which entries are known again.
var entriesSeed = maphash.MakeSeed()

// parsed is one entry of an answer: an instance, or why there is none.
type parsed struct {
	instance instance
	left     []string
	usable   bool
}

// bodies are buffers for answers, which are some hundred octets to some megabytes.
var bodies = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// health is one query for the instances of a service. It waits for an answer with
// another index than query has.
func (a *agent) health(ctx context.Context, service string, query url.Values) (*bytes.Buffer, http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.base+"/v1/health/service/"+url.PathEscape(service)+"?"+query.Encode(), nil)
	if err != nil {
		return nil, nil, err
	}
	if a.token != "" {
		req.Header.Set("X-Consul-Token", a.token)
	}
	resp, err := a.http.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return nil, nil, api.StatusError{Code: resp.StatusCode, Body: string(bytes.TrimSpace(text))}
	}
	body := bodies.Get().(*bytes.Buffer)
	body.Reset()
	_, err = body.ReadFrom(resp.Body)
	return body, resp.Header, err
}

// indexOf is the index of an answer.
func indexOf(h http.Header) (uint64, error) {
	index, err := strconv.ParseUint(h.Get("X-Consul-Index"), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("X-Consul-Index %q: not a number", h.Get("X-Consul-Index"))
	}
	return index, nil
}

// parse reads the entries of an answer by read. Those that are as in the last one, by
// their hash, are taken from there; the new memory is returned.
func parse(body []byte, last map[uint64]parsed, read func(*entry) parsed) (out answer, seen map[uint64]parsed, err error) {
	seen = make(map[uint64]parsed, len(last))
	out.instances = make([]instance, 0, len(last))
	err = elements(body, func(text []byte) error {
		hash := maphash.Bytes(entriesSeed, text)
		p, known := last[hash]
		if !known {
			var e entry
			if err := json.Unmarshal(text, &e); err != nil {
				return fmt.Errorf("instance %d of the answer: %w", len(seen)+1, err)
			}
			p = read(&e)
		}
		seen[hash] = p
		out.left = append(out.left, p.left...)
		if p.usable {
			out.instances = append(out.instances, p.instance)
		}
		return nil
	})
	return out, seen, err
}

// endpoints reads entries as endpoints, with the tagged address to take.
func endpoints(tagged string) func(*entry) parsed {
	return func(e *entry) parsed { return e.parse(tagged) }
}

// parse is the entry as it is kept.
func (e *entry) parse(tagged string) parsed {
	is, reasons, err := e.instance(tagged)
	if err != nil {
		reasons = append(reasons, err.Error())
	}
	p := parsed{instance: is, usable: err == nil}
	for _, r := range reasons {
		p.left = append(p.left, is.id+": "+r)
	}
	return p
}

var errNotArray = errors.New("answer is not a JSON array")

// elements visits the text of every element of a JSON array. That each is JSON is
// left to who reads it.
func elements(data []byte, visit func([]byte) error) error {
	data = trim(data)
	if bytes.Equal(data, []byte("null")) {
		return nil
	}
	if len(data) < 2 || data[0] != '[' || data[len(data)-1] != ']' {
		return errNotArray
	}
	data = trim(data[1 : len(data)-1])
	for len(data) > 0 {
		n := element(data)
		if n <= 0 {
			return errNotArray
		}
		if err := visit(trim(data[:n])); err != nil {
			return err
		}
		if n == len(data) {
			return nil
		}
		data = data[n+1:] // behind the comma
		if len(trim(data)) == 0 {
			return errNotArray
		}
	}
	return nil
}

// trim takes what JSON takes for white space (RFC 8259 §2) from both ends.
func trim(data []byte) []byte { return bytes.Trim(data, " \t\n\r") }

// element is the length of the first element: up to the comma outside of all
// brackets and strings, or the end. It is -1 where brackets or quotes do not match.
func element(data []byte) int {
	depth := 0
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '"':
			n := quoted(data[i+1:])
			if n < 0 {
				return -1
			}
			i += n
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth < 0 {
				return -1
			}
		case ',':
			if depth == 0 {
				return i
			}
		}
	}
	if depth != 0 {
		return -1
	}
	return len(data)
}

// quoted is the length of the rest of a string with its closing quote, or -1.
func quoted(data []byte) int {
	for from := 0; ; {
		n := bytes.IndexByte(data[from:], '"')
		if n < 0 {
			return -1
		}
		end := from + n
		escapes := 0
		for end-escapes > 0 && data[end-escapes-1] == '\\' {
			escapes++
		}
		if escapes%2 == 0 {
			return end + 1
		}
		from = end + 1
	}
}
