package main

import (
	"context"
	"fmt"
	"html/template"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// httpDNS and httpAgent are where a nameserver and an agent have their metrics, on their
// host.
const (
	httpDNS   = "[::1]:8053"
	httpAgent = "[::1]:8056"
)

// door is a port of 127.0.0.1 that leads to a page on a host.
type door struct {
	host    *host
	address string // of 127.0.0.1
}

// doors has the machine's own browser reach the pages of gateways: ports of 127.0.0.1 from
// that one on, the first for all of them, then one each. It returns when they listen.
func (l *lab) doors(first int) error {
	all := net.JoinHostPort("127.0.0.1", strconv.Itoa(first))
	var gateways []door
	for _, s := range l.sites {
		for _, g := range s.gateways {
			first++
			d, err := l.door(g, httpAddress, first, "http://"+all)
			if err != nil {
				return fmt.Errorf("-http: %w", err)
			}
			gateways = append(gateways, d)
		}
	}
	pages := http.NewServeMux()
	pages.Handle("GET /{$}", l.page(gateways))
	pages.Handle("GET /live", l.overview(gateways))
	if err := l.serve(all, pages); err != nil {
		return fmt.Errorf("-http: %w", err)
	}
	l.together = all
	fmt.Fprintf(l.out, "%-10s http://%s/\n", "all", all)
	for _, d := range gateways {
		fmt.Fprintf(l.out, "%-10s http://%s/\n", d.host.name, d.address)
	}
	fmt.Fprintln(l.out)
	return nil
}

// door leads to an address on a host, from a port, or from any one where that is 0. Pages of
// an origin may read what comes from there; "" is none.
func (l *lab) door(h *host, to string, port int, origin string) (door, error) {
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: to})
			r.Out.Header.Del("Origin")
		},
		ModifyResponse: func(r *http.Response) error {
			if origin != "" {
				r.Header.Set("Access-Control-Allow-Origin", origin)
			}
			return nil
		},
		Transport:     &http.Transport{DialContext: h.node.Dial, DisableKeepAlives: true, ResponseHeaderTimeout: 30 * time.Second},
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0), // a host that dies ends what it was saying
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			if origin != "" {
				w.Header().Set("Access-Control-Allow-Origin", origin)
			}
			http.Error(w, h.name+" does not answer: "+err.Error(), http.StatusBadGateway)
		},
	}
	d, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return door{}, err
	}
	l.serveAt(d, proxy)
	return door{h, d.Addr().String()}, nil
}

func (l *lab) serve(address string, h http.Handler) error {
	d, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	l.serveAt(d, h)
	return nil
}

// serveAt serves until the lab ends.
func (l *lab) serveAt(d net.Listener, h http.Handler) {
	server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return l.ctx }}
	var open sync.WaitGroup
	open.Go(func() { _ = server.Serve(d) })
	l.Cleanup(func() {
		_ = server.Close()
		open.Wait()
	})
}

var (
	pageStyle  = regexp.MustCompile(`(?s)<style>(.*?)</style>`)
	pageScript = regexp.MustCompile(`(?s)<script>(.*?)</script>`)
)

// labPage is the page of all gateways: the script of theirs, with the overview and each of
// them as a source.
var labPage = template.Must(template.New("").Parse(`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{.Name}} · razor lab</title>
<style>{{.Style}}</style>
</head>
<body>
<main data-source="live?html"><div data-section="overview"></div></main>
{{range .Gateways}}<main data-source="http://{{.}}/live?html">
<div data-section="head"></div>
<div data-section="figures"></div>
<div class="columns">
<div class="column">
<div data-section="services"></div>
<div data-section="sites"></div>
<div data-section="events"></div>
</div>
<div class="column">
<div data-section="peers"></div>
<div data-section="announcements"></div>
<div data-section="probes"></div>
</div>
</div>
</main>
{{end}}<script>{{.Script}}</script>
</body>
</html>
`))

// page is one page for all gateways. Style, script and policy are those of the first one
// that answers; browsers have few connections to one origin, so each keeps its own.
func (l *lab) page(gateways []door) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, policy, err := pageOf(r.Context(), gateways)
		style, script := pageStyle.FindStringSubmatch(text), pageScript.FindStringSubmatch(text)
		if err != nil || style == nil || script == nil {
			http.Error(w, fmt.Sprint("no gateway answers: ", err), http.StatusBadGateway)
			return
		}
		addresses := called(gateways, func(d door) string { return d.address })
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", strings.ReplaceAll(policy, "connect-src 'self'", "connect-src 'self' http://"+strings.Join(addresses, " http://")))
		_ = labPage.Execute(w, map[string]any{
			"Name": l.topology.Name, "Gateways": addresses,
			"Style": template.CSS(style[1]), "Script": template.JS(script[1]), // of razor itself
		})
	})
}

// pageOf is the page of the first gateway that answers, and its policy.
func pageOf(ctx context.Context, gateways []door) (text, policy string, err error) {
	for _, g := range gateways {
		var r *http.Request
		if r, err = http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.address+"/", nil); err != nil {
			return "", "", err
		}
		var answer *http.Response
		if answer, err = http.DefaultClient.Do(r); err != nil {
			continue
		}
		var body []byte
		body, err = io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if err == nil && answer.StatusCode == http.StatusOK {
			return string(body), answer.Header.Get("Content-Security-Policy"), nil
		}
	}
	return "", "", err
}
