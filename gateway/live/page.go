package live

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // the parts of the page
	"encoding/base64"
	"html/template"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

var (
	//go:embed page.html
	pageText string
	//go:embed style.css
	styleText string
	//go:embed script.js
	scriptText string
)

// policy lets the page do nothing but what its own style and script do, and ask nobody
// but who served it.
var policy = "default-src 'none'; style-src " + hashed(styleText) + "; script-src " + hashed(scriptText) +
	"; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

func hashed(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// sections are the parts of the page that change, each a template, in their order.
var sections = []string{"head", "figures", "services", "sites", "peers", "announcements", "probes", "events"}

var templates = template.Must(template.New("").Funcs(template.FuncMap{
	"number": number, "percent": percent, "clock": clock, "stamp": stamp, "bar": bar, "stack": stack, "colour": colour, "tone": tone,
	"style": func() template.CSS { return template.CSS(styleText) }, "script": func() template.JS { return template.JS(scriptText) },
}).Parse(pageText))

// section is a part of the page as it is now.
type section struct {
	ID   string `json:"id"`
	HTML string `json:"html"`
}

// render has all sections of a document.
func render(d *Document) ([]section, error) {
	out := make([]section, 0, len(sections))
	for _, id := range sections {
		var b bytes.Buffer
		if err := templates.ExecuteTemplate(&b, id, d); err != nil {
			return nil, err
		}
		out = append(out, section{id, b.String()})
	}
	return out, nil
}

// number is one with three digits, and a letter for thousands.
func number(v float64) string {
	unit := 0
	for ; math.Abs(v) >= 999.5 && unit < 4; unit++ {
		v /= 1000
	}
	digits := 0
	if unit > 0 || v != math.Trunc(v) {
		digits = max(0, 2-int(math.Log10(max(1, math.Abs(v)))))
	}
	text := strconv.FormatFloat(v, 'f', digits, 64)
	if strings.Contains(text, ".") {
		text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	}
	return text + []string{"", "\u202fk", "\u202fM", "\u202fG", "\u202fT"}[unit] // a narrow space
}

// percent is a share; a small one is not none.
func percent(share float64) string {
	switch p := 100 * share; {
	case p > 0 && p < 0.1:
		return "<0.1 %"
	case p >= 99.95 || p == 0:
		return strconv.FormatFloat(p, 'f', 0, 64) + " %"
	default:
		return strconv.FormatFloat(p, 'f', 1, 64) + " %"
	}
}

func clock(t time.Time) string { return t.UTC().Format(time.TimeOnly) }
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// bar is the length of a share, 0 to 100.
func bar(share float64) float64 { return math.Round(1000*min(1, max(0, share))) / 10 }

// part is one of a row of shares: where it begins, how long it is, and its colour.
type part struct {
	X, Width float64
	Colour   int
	Title    string
}

// colours are those of parts, in style.css.
const colours = 8

// colour is that of a backend, by its place in the table. All other sites have one.
func colour(place int, site bool) int {
	if site {
		return colours
	}
	return place % colours
}

// stack is the shares of new flows side by side.
func stack(backends []Backend) (out []part) {
	x := 0.0
	for i, b := range backends {
		width := bar(b.Share)
		if width == 0 {
			continue
		}
		out = append(out, part{x, width, colour(i, b.Site), b.Name + " " + percent(b.Share)})
		x += width
	}
	return out
}

// Tone is whether a backend is well, in a word of style.css.
func (b *Backend) Tone() string {
	if b.State == "active" && b.Health != "" && b.Health != "up" {
		return "doubt" // its agent is not believed
	}
	return tone(b.State)
}

// tone is whether something is well, in a word of style.css.
func tone(word string) string {
	switch {
	case slices.Contains([]string{"active", "announced", "up", "in service", "normal"}, word):
		return "good"
	case slices.Contains([]string{"dead", "withdrawn", "down", "silent", "critical", "drained"}, word):
		return "bad"
	case slices.Contains([]string{"draining", "lowered", "leaving", "warning", "warn", "unknown"}, word):
		return "doubt"
	}
	return "plain"
}
