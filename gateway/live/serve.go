package live

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

const (
	every       = time.Second             // from one look to the next, while somebody watches
	busy        = 20                      // at least so many times as long as a look takes: 5 % of a CPU
	mostClients = 32                      // of streams
	mostBehind  = 3                       // looks that a client may be behind
	writeLimit  = 5 * time.Second         // of what a client is sent
	fresh       = 1500 * time.Millisecond // what was seen is as it is now
	memory      = 10 * time.Second        // and can be compared with what is now
	firstLook   = 250 * time.Millisecond  // from a first look to a second one
)

// Page serves what a source says. Nobody is asked while nobody watches.
type Page struct {
	events *Events
	source func(now time.Time) Document
	wake   chan struct{} // there is a client
	ended  chan struct{} // Run has

	looking sync.Mutex // held during a look

	mu      sync.Mutex
	last    *look
	clients map[*client]bool
}

// look is what was seen at a moment; it does not change.
type look struct {
	at       time.Time
	document Document
	sections []section
}

// client is who reads a stream.
type client struct{ looks chan *look } // closed when it is too slow

// New makes a page of events and of what source says. source is called by one goroutine
// at a time; the rates that it tells are of the time since it was called before.
func New(events *Events, source func(now time.Time) Document) *Page {
	return &Page{events: events, source: source, wake: make(chan struct{}, 1), ended: make(chan struct{}), clients: map[*client]bool{}}
}

// Register has the pages served.
func (p *Page) Register(handle func(pattern string, h http.Handler)) {
	handle("GET /{$}", http.HandlerFunc(p.page))
	handle("GET /live.json", http.HandlerFunc(p.json))
	handle("GET /live", http.HandlerFunc(p.stream))
}

// Run looks again and again while somebody watches, until ctx ends, and then ends all
// streams.
func (p *Page) Run(ctx context.Context) {
	defer close(p.ended)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for pause := every; ; {
		if !p.watched() {
			select {
			case <-ctx.Done():
				return
			case <-p.wake:
			}
		}
		timer.Reset(pause)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		began := time.Now()
		if l, err := p.look(began); err == nil {
			p.tell(l)
		}
		pause = max(every, busy*time.Since(began))
	}
}

func (p *Page) watched() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.clients) > 0
}

// look asks the source, unless somebody else has since a time.
func (p *Page) look(since time.Time) (*look, error) {
	p.looking.Lock()
	defer p.looking.Unlock()
	if last := p.lastLook(); last != nil && last.at.After(since) {
		return last, nil
	}
	l := &look{at: time.Now()}
	l.document = p.source(l.at)
	l.document.Time, l.document.Events = l.at, p.events.Since(0)
	var err error
	if l.sections, err = render(&l.document); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = l
	return l, nil
}

func (p *Page) lastLook() *look {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

// now is a look whose rates are of the last seconds. Where nobody has looked for longer
// it takes two of them.
func (p *Page) now(ctx context.Context) (*look, error) {
	last := p.lastLook()
	switch {
	case last != nil && time.Since(last.at) < fresh:
		return last, nil
	case last == nil || time.Since(last.at) > memory:
		if _, err := p.look(time.Now()); err != nil {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-p.ended:
			return nil, errEnded
		case <-time.After(firstLook):
		}
	}
	return p.look(time.Now())
}

var errEnded = errors.New("the gateway ends")

// tell gives all clients a look. One that is behind is given up.
func (p *Page) tell(l *look) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.clients {
		select {
		case c.looks <- l:
		default:
			close(c.looks)
			delete(p.clients, c)
		}
	}
}

// join makes a client; nil where there are too many.
func (p *Page) join() *client {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.clients) >= mostClients {
		return nil
	}
	c := &client{make(chan *look, mostBehind)}
	p.clients[c] = true
	select {
	case p.wake <- struct{}{}:
	default:
	}
	return c
}

func (p *Page) leave(c *client) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.clients, c)
}

// answer has the headers of all answers.
func answer(w http.ResponseWriter, kind string) {
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", policy)
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
}

// seen is a look for a request, or the request is answered already.
func (p *Page) seen(w http.ResponseWriter, r *http.Request) *look {
	l, err := p.now(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return nil
	}
	return l
}

func (p *Page) page(w http.ResponseWriter, r *http.Request) {
	l := p.seen(w, r)
	if l == nil {
		return
	}
	answer(w, "text/html; charset=utf-8")
	_ = templates.ExecuteTemplate(w, "page", &l.document) // a client that went away is not our trouble
}

func (p *Page) json(w http.ResponseWriter, r *http.Request) {
	l := p.seen(w, r)
	if l == nil {
		return
	}
	answer(w, "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(&l.document)
}

// stream sends what is seen, a second after the other: documents, or with ?html the
// sections of the page that are others than before.
func (p *Page) stream(w http.ResponseWriter, r *http.Request) {
	c := p.join()
	if c == nil {
		w.Header().Set("Retry-After", "10")
		http.Error(w, fmt.Sprintf("%d clients watch already", mostClients), http.StatusServiceUnavailable)
		return
	}
	defer p.leave(c)
	l := p.seen(w, r)
	if l == nil {
		return
	}
	answer(w, "text/event-stream")
	out := writer{w: w, control: http.NewResponseController(w)}
	_ = out.control.SetReadDeadline(time.Time{}) // that of the request is not that of its end
	send := out.document
	if r.URL.Query().Has("html") {
		send = out.changed
	}
	for sent := (time.Time{}); ; {
		if l.at.After(sent) { // one that came while it was looked may be older
			if send(l) != nil {
				return
			}
			sent = l.at
		}
		var ok bool
		select {
		case l, ok = <-c.looks:
			if !ok {
				return
			}
		case <-r.Context().Done():
			return
		case <-p.ended:
			return
		}
	}
}

// writer writes a stream.
type writer struct {
	w       http.ResponseWriter
	control *http.ResponseController
	sent    map[string]string // sections
	events  uint64            // the last that was sent
}

// document sends a document, with the events that were not sent yet.
func (o *writer) document(l *look) error {
	d := l.document
	for i, e := range d.Events {
		if e.Number <= o.events {
			d.Events = d.Events[:i]
			break
		}
	}
	if len(l.document.Events) > 0 {
		o.events = l.document.Events[0].Number
	}
	return o.write("", &d)
}

// changed sends sections that are others, and the time.
func (o *writer) changed(l *look) error {
	if o.sent == nil {
		o.sent = map[string]string{}
	}
	for _, s := range l.sections {
		if o.sent[s.ID] == s.HTML {
			continue
		}
		o.sent[s.ID] = s.HTML
		if err := o.write("section", s); err != nil {
			return err
		}
	}
	return o.write("tick", l.at)
}

// write sends an event.
func (o *writer) write(name string, data any) error {
	text, err := json.Marshal(data) // in one line
	if err != nil {
		return err
	}
	if err := o.control.SetWriteDeadline(time.Now().Add(writeLimit)); err != nil {
		return err
	}
	if name != "" {
		name = "event: " + name + "\n"
	}
	if _, err := io.WriteString(o.w, name+"data: "+string(text)+"\n\n"); err != nil {
		return err
	}
	return o.control.Flush()
}
