package main

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// picture draws the topology: a column for each site, with its clients above it.
func (t *Topology) picture() string {
	var columns [][]string
	above := 0
	for i := range t.Sites {
		s := &t.Sites[i]
		var people []string
		for _, c := range t.Clients {
			if c.Site == s.Name {
				people = append(people, c.Name)
			}
		}
		above = max(above, len(people))
		columns = append(columns, people)
	}
	var boxes [][]string
	for i, people := range columns {
		for len(people) < above {
			people = append([]string{""}, people...)
		}
		boxes = append(boxes, t.Sites[i].box(people))
	}
	return beside(boxes, func(i int) bool { return t.cabled(t.Sites[i].Name, t.Sites[i+1].Name) }, above+2) + t.far()
}

// box is the column of a site.
func (s *Site) box(people []string) (out []string) {
	rows := []string{fmt.Sprintf("%s  AS %d", s.Name, s.AS)}
	add := func(label string, members []string) {
		for i, m := range members {
			if i > 0 {
				label = ""
			}
			rows = append(rows, fmt.Sprintf("%-9s %s", label, m))
		}
	}
	if s.Leaves > 0 {
		what := fmt.Sprintf("%d spines, %d leaves", s.Spines, s.Leaves)
		if s.Exits > 0 {
			what = fmt.Sprintf("%d exits, %d leaves, EVPN", s.Exits, s.Leaves)
		}
		add("routers", []string{what})
	}
	add("gateways", numbered(s.Name+"-gw", s.Gateways))
	add("backends", numbered(s.Name+"-", s.Backends))
	if s.Redis != "" {
		what := s.Name + "-svc  redis " + s.Redis
		if s.DNS {
			what += ", dns"
		}
		add("services", []string{what})
	}
	if s.Consul > 0 {
		add("consul", []string{fmt.Sprintf("%s-consul  servers %d", s.Name, s.Consul)})
	}
	width := 0
	for _, r := range append(rows, people...) {
		width = max(width, utf8.RuneCountInString(r))
	}
	middle := width/2 + 1
	for _, p := range people {
		out = append(out, center(p, width+4))
	}
	stalk := " "
	top := "┌" + strings.Repeat("─", width+2) + "┐"
	if strings.Join(people, "") != "" {
		stalk = "│"
		top = "┌" + strings.Repeat("─", middle) + "┴" + strings.Repeat("─", width+1-middle) + "┐"
	}
	out = append(out, strings.Repeat(" ", middle+1)+stalk+strings.Repeat(" ", width+2-middle), top)
	for _, r := range rows {
		out = append(out, "│ "+pad(r, width)+" │")
	}
	return append(out, "└"+strings.Repeat("─", width+2)+"┘")
}

// numbered are the names of hosts, in rows of four.
func numbered(prefix string, n int) (out []string) {
	var row []string
	for i := range n {
		row = append(row, fmt.Sprint(prefix, i+1))
		if len(row) == 4 || i == n-1 {
			out, row = append(out, strings.Join(row, " ")), nil
		}
	}
	return out
}

// beside sets columns beside each other, with cables between them in a row.
func beside(columns [][]string, cable func(i int) bool, row int) string {
	height := 0
	for _, c := range columns {
		height = max(height, len(c))
	}
	var b strings.Builder
	for y := range height {
		var text strings.Builder
		for i, c := range columns {
			part := strings.Repeat(" ", utf8.RuneCountInString(c[0]))
			if y < len(c) {
				part = c[y]
			}
			gap := "    "
			switch {
			case i == len(columns)-1:
				gap = ""
			case y == row && cable(i):
				gap = "────"
			}
			text.WriteString(part + gap)
		}
		b.WriteString(strings.TrimRight(text.String(), " ") + "\n")
	}
	return b.String()
}

// far names the cables between sites that do not stand beside each other.
func (t *Topology) far() string {
	var out []string
	for _, c := range t.Cables {
		a, b, _ := ends(c)
		near := false
		for i := range t.Sites[1:] {
			x, y := t.Sites[i].Name, t.Sites[i+1].Name
			near = near || a == x && b == y || a == y && b == x
		}
		if !near {
			out = append(out, a+" ── "+b)
		}
	}
	if out == nil {
		return ""
	}
	return "and " + strings.Join(out, ", ") + "\n"
}

func (t *Topology) cabled(a, b string) bool {
	for _, c := range t.Cables {
		x, y, _ := ends(c)
		if x == a && y == b || x == b && y == a {
			return true
		}
	}
	return false
}

func pad(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text)))
}

func center(text string, width int) string {
	return pad(strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text))/2)+text, width)
}
