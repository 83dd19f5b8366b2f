package browser

import (
	"image/png"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const bad = `<!DOCTYPE html>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body { margin: 0; background: #fff; color: #000; }
@media (prefers-color-scheme: dark) { body { background: #000; color: #555; } }
section { width: 100px; overflow: hidden; }
</style>
<p id="good">clear <b style="color: #bbb">faint</b> <span style="display: none; color: #fff">hidden</span>
<section><i style="display: block; width: 120px">cut</i></section>
<div style="width: 500px">wide</div>
<script>
addEventListener("load", () => { fetch("http://192.0.2.1/"); console.error("said"); nothing.there(); });
</script>`

const good = `<!DOCTYPE html><meta name="viewport" content="width=device-width"><link rel="icon" href="data:,"><p>all is well`

// What is wrong about a page is seen, and nothing about one that is well.
func TestJudge(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("Content-Security-Policy", "connect-src 'self'")
		_, _ = w.Write([]byte(map[bool]string{true: bad, false: good}[r.URL.Path == "/bad"]))
	}))
	defer server.Close()
	b := Start(t, exec.Command)
	phone := Screen{Width: 360, Height: 800}
	p := b.Open(server.URL+"/good", phone)
	if found := slices.Concat(p.TooWide(), p.Faint(), p.Errors()); len(found) > 0 || len(p.Asked()) != 1 {
		t.Errorf("of a good page: %q, it asks for %v", found, p.Asked())
	}

	p = b.Open(server.URL+"/bad", phone)
	for what, found := range map[string][]string{"the page: 500 of 360": p.TooWide(), "cut": p.TooWide(), "B. faint": p.Faint()} {
		if !strings.Contains(strings.Join(found, "\n"), what) {
			t.Errorf("no %s: %q", what, found)
		}
	}
	if found := p.Faint(); len(found) != 1 {
		t.Errorf("faint: %q", found)
	}
	p.Show(Screen{Width: 1280, Height: 800, Dark: true})
	if found := p.TooWide(); len(found) != 1 || !strings.Contains(found[0], "cut") {
		t.Errorf("on a large screen: %q", found)
	}
	if found := p.Faint(); !strings.Contains(strings.Join(found, "\n"), "P. clear") {
		t.Errorf("in the dark: %q", found)
	}
	for _, what := range []string{"said", "nothing is not defined", "192.0.2.1"} {
		has := func(e string) bool { return strings.Contains(e, what) }
		for deadline := time.Now().Add(patience); !slices.ContainsFunc(p.Errors(), has); p.Eval("1", nil) {
			if time.Now().After(deadline) {
				t.Fatalf("no error %s: %q", what, p.Errors())
			}
		}
	}

	file := filepath.Join(t.TempDir(), "page.png")
	p.Picture(file)
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if c, err := png.DecodeConfig(f); err != nil || c.Width != 1280 {
		t.Errorf("%+v, %v", c, err)
	}
}
