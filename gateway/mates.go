package gateway

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/razor-steering/razor/gateway/balancer"
	"github.com/razor-steering/razor/steering"
)

// The gateways of a site have the same tables, so that routers may move flows between
// them: one decides, its mates copy. A copy is fetched over HTTP:
//
//	GET /tables?after=TERM.SEQUENCE&nonce=N
//
// is answered when the tables are others than those of the number, or with 204 after
// a while, with &soon=1 at once. Both sides prove that they have the flow key: the question has the MAC of
// its nonce and number, the answer that of the nonce, its status, and the length and sum
// of its body, so that whoever asks believes those before it reads any of the body.
const (
	tablesPath = "/tables"
	macHeader  = "Razor-Mac"
	sumHeader  = "Razor-Sum" // of the body: SHA-256
	tablesHold = 10 * time.Second
	tablesWait = 5 * time.Second // for the rest of an answer, beyond that
	firstWait  = 3 * time.Second // of a gateway that starts, for its first copy
	retryEvery = time.Second
	mostCopies = 4   // that are made at once
	mostWords  = 200 // bytes of a refusal
)

// mates is the part of a gateway that speaks with its mates.
type mates struct {
	keeper *balancer.Keeper
	client *http.Client
	key    []byte        // of the MACs
	busy   chan struct{} // as many as are answered at once
	hold   time.Duration // until an answer without news
	log    *slog.Logger

	mu     sync.Mutex
	cancel context.CancelFunc // of the question that waits for an answer
}

func newMates(k *balancer.Keeper, flowKey []byte, log *slog.Logger) *mates {
	m := hmac.New(sha256.New, flowKey)
	m.Write([]byte("tables of mates"))
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true}, // and no proxy
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return &mates{keeper: k, client: client, key: m.Sum(nil), busy: make(chan struct{}, mostCopies), hold: tablesHold, log: log}
}

// mac proves parts to somebody with the same key.
func (m *mates) mac(parts ...string) string {
	h := hmac.New(sha256.New, m.key)
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// serve answers mates until ctx ends.
func (m *mates) serve(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+tablesPath, m.tables)
	s := &http.Server{
		Handler: mux, ReadHeaderTimeout: tablesWait, ReadTimeout: tablesWait, WriteTimeout: tablesHold + time.Minute, MaxHeaderBytes: 8 << 10,
		ErrorLog: slog.NewLogLogger(m.log.Handler(), slog.LevelDebug), BaseContext: func(net.Listener) context.Context { return ctx },
	}
	defer context.AfterFunc(ctx, func() { _ = s.Close() })()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (m *mates) tables(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if !hmac.Equal([]byte(r.Header.Get(macHeader)), []byte(m.mac("ask", q.Get("nonce"), q.Get("after")))) {
		http.Error(w, "another flow key", http.StatusForbidden)
		return
	}
	hold := m.hold
	if q.Has("soon") {
		hold = 0
	}
	timeout := time.NewTimer(hold)
	defer timeout.Stop()
	for {
		number, news := m.keeper.Number()
		if number.String() != q.Get("after") {
			break
		}
		select {
		case <-news:
		case <-timeout.C:
			m.tell(w, q.Get("nonce"), http.StatusNoContent, nil)
			return
		case <-r.Context().Done():
			return
		}
	}
	select {
	case m.busy <- struct{}{}:
		defer func() { <-m.busy }()
	default:
		http.Error(w, "too many ask at once", http.StatusServiceUnavailable)
		return
	}
	c, err := m.keeper.Copy()
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	body, err := json.Marshal(c)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	m.tell(w, q.Get("nonce"), http.StatusOK, body)
}

// tell answers a question.
func (m *mates) tell(w http.ResponseWriter, nonce string, status int, body []byte) {
	sum := sha256.Sum256(body)
	w.Header().Set(sumHeader, hex.EncodeToString(sum[:]))
	w.Header().Set(macHeader, m.macOf(nonce, status, int64(len(body)), w.Header().Get(sumHeader)))
	if status != http.StatusNoContent {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	}
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// macOf proves an answer.
func (m *mates) macOf(nonce string, status int, length int64, sum string) string {
	return m.mac("tell", nonce, strconv.Itoa(status), strconv.FormatInt(length, 10), sum)
}

// fetch asks a mate for its tables if they are others than those of a number. Nothing
// new is false.
func (m *mates) fetch(ctx context.Context, mate string, after steering.PlanNumber, soon bool) (c balancer.Copy, ok bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, tablesHold+tablesWait)
	defer cancel()
	m.mu.Lock()
	m.cancel = cancel
	m.mu.Unlock()
	nonce := rand.Text()
	question := "?after=" + after.String() + "&nonce=" + nonce
	if soon {
		question += "&soon=1"
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+mate+tablesPath+question, http.NoBody)
	if err != nil {
		return c, false, err
	}
	r.Header.Set(macHeader, m.mac("ask", nonce, after.String()))
	resp, err := m.client.Do(r)
	if err != nil {
		return c, false, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusNoContent {
		words, _ := io.ReadAll(io.LimitReader(resp.Body, mostWords))
		return c, false, fmt.Errorf("%s: %s", resp.Status, bytes.TrimSpace(words))
	}
	body, err := m.hear(resp, nonce)
	if err != nil || resp.StatusCode == http.StatusNoContent {
		return c, false, err
	}
	if err := json.Unmarshal(body, &c); err != nil {
		return c, false, fmt.Errorf("the answer is no copy: %w", err)
	}
	return c, true, nil
}

// hurry ends the question that waits for an answer, to be asked again.
func (m *mates) hurry() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cancel != nil {
		m.cancel()
	}
}

// hear reads what is proved to be a mate's answer.
func (m *mates) hear(resp *http.Response, nonce string) ([]byte, error) {
	length, sum := max(0, resp.ContentLength), resp.Header.Get(sumHeader)
	if !hmac.Equal([]byte(resp.Header.Get(macHeader)), []byte(m.macOf(nonce, resp.StatusCode, length, sum))) {
		return nil, errors.New("the answer is not of a mate: another flow key")
	}
	if most := m.keeper.MostCopied(); length > most {
		return nil, fmt.Errorf("the copy has %d bytes, and %d are the most that it can have: is max_services of the mate larger?", length, most)
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(resp.Body, body); err != nil {
		return nil, err
	}
	if got := sha256.Sum256(body); hex.EncodeToString(got[:]) != sum {
		return nil, errors.New("the answer is not what the mate said")
	}
	return body, nil
}

// follow has the tables be those of a mate until ctx ends. While it is away they stay
// as they are.
func (m *mates) follow(ctx context.Context, mate string) {
	after, away := m.keeper.Adopted(), false
	for ctx.Err() == nil {
		began := time.Now()
		number, err := m.copyOnce(ctx, mate, after, away)
		if err == nil && (number != after || away || time.Since(began) > retryEvery) {
			if away {
				m.log.Info("the mate that decides is back", "mate", mate)
			}
			if m.keeper.Awaits() { // what it has is known here
				m.keeper.Await("")
			}
			after, away = number, false
			continue
		}
		if err == nil {
			err = errors.New("it answers that there is nothing new, and does not wait for it")
		}
		if ctx.Err() == nil && !away {
			m.log.Warn("no tables of the mate that decides, they stay as they are", "mate", mate, "err", err)
		}
		away = true
		select {
		case <-ctx.Done():
		case <-time.After(retryEvery):
		}
	}
}

// copyOnce takes one copy over, if there is a new one, and returns its number.
func (m *mates) copyOnce(ctx context.Context, mate string, after steering.PlanNumber, soon bool) (steering.PlanNumber, error) {
	c, news, err := m.fetch(ctx, mate, after, soon)
	if err != nil || !news {
		return after, err
	}
	if err := m.keeper.Adopt(c, time.Now()); err != nil {
		return after, err
	}
	m.log.Info("tables copied", "mate", mate, "plan", c.Plan, "services", len(c.Services))
	return c.Plan, nil
}
