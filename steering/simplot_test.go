package steering

import (
	"bytes"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

var updatePlots = flag.Bool("update", false, "write the plots of the simulations to testdata/plots")

// A plot has panels below each other, with a line for each site over the time:
//
//	load of the backends that work, with the limit
//	share of new flows that go to other sites
//
// and the sites by number, each in the colour of its line.
const (
	plotWidth, panelHeight   = 720.0, 190.0
	plotLeft, plotTop        = 46.0, 34.0
	plotRight, panelDistance = 24.0, 36.0
	legendHeight             = 20.0
	plotPoints               = 1800 // of all lines of a panel
)

// checkPlot holds the file of a simulation's plot to what it is now.
func (w *world) checkPlot(t *testing.T, name, title string) {
	t.Helper()
	got := w.plot(title)
	file := filepath.Join("testdata", "plots", name+".svg")
	if *updatePlots {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	// Where numbers are multiplied and added in one step, flows are others.
	if runtime.GOARCH == "amd64" && !bytes.Equal(got, want) {
		t.Errorf("%s is not the plot of this simulation: go test ./steering -run Simulation -update", file)
	}
}

// plot is the picture of a simulation, as SVG.
func (w *world) plot(title string) []byte {
	var b bytes.Buffer
	height := plotTop + 2*(panelHeight+panelDistance) + legendHeight
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" font-family="sans-serif" font-size="11">`+"\n", plotWidth, height)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="white"/><text x="%.0f" y="16" font-size="13">%s</text>`+"\n", plotLeft, title)
	var loads, spilled [][]float64
	top := 1.0
	for _, tr := range w.every {
		loads, spilled = append(loads, thin(tr.load, len(w.every))), append(spilled, thin(tr.spilled, len(w.every)))
		_, most := extremes(loads[len(loads)-1])
		top = max(top, math.Ceil(most*5)/5)
	}
	w.panel(&b, plotTop, "load in parts of the capacity; dashed: limit", loads, top, 0.9)
	w.panel(&b, plotTop+panelHeight+panelDistance, "share of the new flows that goes to other sites", spilled, 1, 0)
	legend(&b, height-legendHeight, len(w.every))
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// thin is the means of a trace over as many pieces as a plot has points for each of
// some lines.
func thin(v []float64, lines int) []float64 {
	points := max(36, min(plotPoints/lines, 180))
	n := (len(v) + points - 1) / points
	var out []float64
	for i := 0; i < len(v); i += n {
		out = append(out, mean(v[i:min(i+n, len(v))]))
	}
	return out
}

func (w *world) panel(b *bytes.Buffer, y float64, title string, lines [][]float64, top, limit float64) {
	width := plotWidth - plotLeft - plotRight
	at := func(v float64) float64 { return y + panelHeight - v/top*panelHeight }
	fmt.Fprintf(b, `<text x="%.0f" y="%.0f" fill="#555">%s</text>`+"\n", plotLeft, y-4, title)
	for i := range 5 {
		v := top * float64(i) / 4
		fmt.Fprintf(b, `<path d="M%.0f %.1fh%.0f" stroke="#ddd"/><text x="%.0f" y="%.1f" text-anchor="end">%.0f %%</text>`+"\n", plotLeft, at(v), width, plotLeft-4, at(v)+4, 100*v)
	}
	for i := range 7 {
		minutes := math.Round(10*w.now/60*float64(i)/6) / 10
		fmt.Fprintf(b, `<text x="%.0f" y="%.0f" text-anchor="middle">%v min</text>`+"\n", plotLeft+width*float64(i)/6, y+panelHeight+14, minutes)
	}
	for i, line := range lines {
		var points strings.Builder
		for j, v := range line {
			fmt.Fprintf(&points, "%.1f,%.1f ", plotLeft+width*float64(j)/float64(len(line)-1), at(v))
		}
		fmt.Fprintf(b, `<polyline fill="none" stroke="%s" stroke-width="%d" points="%s"/>`+"\n", colour(i, len(lines)), lineWidth(i), strings.TrimSpace(points.String()))
	}
	if limit > 0 {
		fmt.Fprintf(b, `<path d="M%.0f %.1fh%.0f" stroke="black" stroke-dasharray="5 4"/>`+"\n", plotLeft, at(limit), width)
	}
}

// legend is a row of the numbers of sites, each above a piece of its line.
func legend(b *bytes.Buffer, y float64, sites int) {
	const label = 36.0
	each := min(32, (plotWidth-plotLeft-plotRight-label)/float64(sites))
	fmt.Fprintf(b, `<text x="%.0f" y="%.0f" fill="#555">sites</text>`+"\n", plotLeft, y+8)
	for i := range sites {
		x, c := plotLeft+label+each*float64(i), colour(i, sites)
		fmt.Fprintf(b, `<text x="%.1f" y="%.0f" font-size="9" text-anchor="middle" fill="%s">%d</text>`, x+each/2, y+6, c, i)
		fmt.Fprintf(b, `<path d="M%.1f %.0fh%.1f" stroke="%s" stroke-width="%d"/>`+"\n", x+2, y+11, each-4, c, 2*lineWidth(i))
	}
}

func colour(i, of int) string { return fmt.Sprintf("hsl(%d,65%%,42%%)", i*360/of) }

// lineWidth makes the first site, which most stories are about, stand out.
func lineWidth(i int) int {
	if i == 0 {
		return 2
	}
	return 1
}
