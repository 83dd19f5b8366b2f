package browser

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"
)

// Page is a tab of a browser.
type Page struct {
	browser *Browser
	session string

	// Of the browser's lock.
	asked  []string
	errors []string
}

// Open opens a page on a screen, and returns when it is loaded.
func (b *Browser) Open(address string, screen Screen) *Page {
	b.tb.Helper()
	var made struct{ TargetID, SessionID string }
	b.call("", "Target.createTarget", map[string]any{"url": "about:blank"}, &made)
	b.call("", "Target.attachToTarget", map[string]any{"targetId": made.TargetID, "flatten": true}, &made)
	p := &Page{browser: b, session: made.SessionID}
	b.mu.Lock()
	b.pages[p.session] = p
	b.mu.Unlock()
	for _, domain := range []string{"Page", "Runtime", "Network", "Log"} {
		p.call(domain+".enable", nil, nil)
	}
	p.Show(screen)
	var went struct{ ErrorText string }
	p.call("Page.navigate", map[string]any{"url": address}, &went)
	if went.ErrorText != "" {
		b.tb.Fatalf("%s: %s", address, went.ErrorText)
	}
	p.Eventually(address+" is loaded", `document.readyState === "complete" && location.href !== "about:blank"`, nil)
	return p
}

func (p *Page) call(method string, params map[string]any, result any) {
	p.browser.tb.Helper()
	p.browser.call(p.session, method, params, result)
}

// Screen is what a page is looked at with. One of less than 600 pixels is a phone's.
type Screen struct {
	Width, Height int
	Dark          bool
}

// String is a name for it.
func (s Screen) String() string {
	return fmt.Sprintf("%d-%s", s.Width, map[bool]string{false: "light", true: "dark"}[s.Dark])
}

// Show puts the page on a screen.
func (p *Page) Show(s Screen) {
	p.browser.tb.Helper()
	p.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": s.Width, "height": s.Height, "deviceScaleFactor": 1, "mobile": s.Width < 600}, nil)
	p.call("Emulation.setScrollbarsHidden", map[string]any{"hidden": true}, nil)
	p.call("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{
		{"name": "prefers-color-scheme", "value": map[bool]string{false: "light", true: "dark"}[s.Dark]},
	}}, nil)
}

// Eval has the page work out an expression of JavaScript, or a promise of one. into may be
// nil.
func (p *Page) Eval(expression string, into any) {
	p.browser.tb.Helper()
	var out struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails *struct {
			Text      string
			Exception struct{ Description string }
		}
	}
	p.call("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true, "awaitPromise": true}, &out)
	if e := out.ExceptionDetails; e != nil {
		p.browser.tb.Fatalf("%s: %s %s", expression, e.Text, e.Exception.Description)
	}
	if into == nil {
		return
	}
	if err := json.Unmarshal(out.Result.Value, into); err != nil {
		p.browser.tb.Fatalf("%s is %s: %v", expression, out.Result.Value, err)
	}
}

// Eventually waits until an expression, or a promise of one, is true, and fails the test
// after a minute. Between two looks it calls meanwhile, which may be nil.
func (p *Page) Eventually(what, expression string, meanwhile func()) {
	p.browser.tb.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		var is bool
		if p.Eval("Promise.resolve("+expression+").then((is) => !!is)", &is); is {
			return
		}
		if time.Now().After(deadline) {
			var text string
			p.Eval("document.body.innerText", &text)
			p.browser.tb.Fatalf("never: %s\n%s", what, text)
		}
		if meanwhile != nil {
			meanwhile()
		}
	}
}

// note takes an event of the protocol.
func (p *Page) note(method string, params json.RawMessage) {
	var of struct {
		Type             string
		Request          struct{ URL string }
		Entry            struct{ Level, Source, Text, URL string }
		ExceptionDetails struct {
			Text      string
			Exception struct{ Description string }
		}
	}
	_ = json.Unmarshal(params, &of) // of other events other members
	p.browser.mu.Lock()
	defer p.browser.mu.Unlock()
	switch {
	case method == "Network.requestWillBeSent":
		p.asked = append(p.asked, of.Request.URL)
	case method == "Runtime.exceptionThrown":
		p.errors = append(p.errors, of.ExceptionDetails.Text+" "+of.ExceptionDetails.Exception.Description)
	case method == "Runtime.consoleAPICalled" && (of.Type == "error" || of.Type == "assert"):
		p.errors = append(p.errors, "console: "+string(params))
	case method == "Log.entryAdded" && of.Entry.Level == "error" && of.Entry.Source != "network":
		p.errors = append(p.errors, of.Entry.Source+": "+of.Entry.Text+" "+of.Entry.URL)
	}
}

// Asked are the addresses that the page asked for, in their order.
func (p *Page) Asked() []string {
	p.browser.mu.Lock()
	defer p.browser.mu.Unlock()
	return slices.Clone(p.asked)
}

// Errors are those of its scripts, and what its policy refused. That a server does not
// answer is none.
func (p *Page) Errors() []string {
	p.browser.mu.Lock()
	defer p.browser.mu.Unlock()
	return slices.Clone(p.errors)
}

// Picture writes the whole page into a file (PNG).
func (p *Page) Picture(file string) {
	p.browser.tb.Helper()
	var size struct{ Width, Height float64 }
	p.Eval(`({width: document.documentElement.clientWidth, height: document.documentElement.scrollHeight})`, &size)
	var out struct{ Data string }
	p.call("Page.captureScreenshot", map[string]any{
		"format": "png", "captureBeyondViewport": true, "clip": map[string]any{"x": 0, "y": 0, "width": size.Width, "height": size.Height, "scale": 1},
	}, &out)
	data, err := base64.StdEncoding.DecodeString(out.Data)
	if err == nil {
		err = os.WriteFile(file, data, 0o600)
	}
	if err != nil {
		p.browser.tb.Fatal(err)
	}
}
