package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// line is a command of a script.
type line struct {
	file   string
	number int
	text   string
}

// script is the lines of a text that begins on a line of a file. Empty ones, and those
// that begin with #, are remarks.
func script(file string, from int, text string) (out []line) {
	for i, s := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		out = append(out, line{file, from + i, strings.TrimSpace(s)})
	}
	return out
}

// words splits a command at spaces; quotes (") keep them.
func words(text string) ([]string, error) {
	var out []string
	for i, part := range strings.Split(text, `"`) {
		if i%2 == 1 {
			out = append(out, part)
			continue
		}
		out = append(out, strings.Fields(part)...)
	}
	if strings.Count(text, `"`)%2 == 1 {
		return nil, errors.New(`a " without its end`)
	}
	return out, nil
}

// checkScript says what is wrong about commands that can be told before they are run.
func checkScript(lines []line) error {
	var all []error
	for _, c := range lines {
		if err := c.check(); err != nil {
			all = append(all, fmt.Errorf("%s:%d: %w", c.file, c.number, err))
		}
	}
	return errors.Join(all...)
}

func (c *line) check() error {
	w, err := words(c.text)
	if err != nil || c.remark() {
		return err
	}
	for _, v := range verbs() {
		if v.name != w[0] {
			continue
		}
		if v.name == "expect" {
			_, err = parseExpectation(w[1:])
		}
		return err
	}
	return fmt.Errorf("no command %q", w[0])
}

func (c *line) remark() bool { return c.text == "" || strings.HasPrefix(c.text, "#") }

// play runs a script, and shows each line with the time that it took.
func (l *lab) play(lines []line, out io.Writer) error {
	began := time.Now()
	for _, c := range lines {
		if c.remark() {
			fmt.Fprintln(out, c.text)
			continue
		}
		w, err := words(c.text)
		if err == nil {
			from := time.Now()
			err = l.run(w)
			fmt.Fprintf(out, "%-64s %5.1f s\n", c.text, time.Since(from).Seconds())
		}
		if err != nil {
			l.tellWhy(out)
			return fmt.Errorf("%s:%d: %w", c.file, c.number, err)
		}
	}
	if err := l.sound(); err != nil {
		return err
	}
	l.showOutages()
	fmt.Fprintf(out, "all as expected, after %.1f s\n", time.Since(began).Seconds())
	return nil
}

// sound says which program gave up, or was not written well.
func (l *lab) sound() error {
	var all []error
	for _, h := range l.hosts() {
		files, _ := filepath.Glob(h.file("*.log"))
		for _, file := range files {
			text, err := os.ReadFile(file)
			all = append(all, err)
			for _, bad := range []string{"DATA RACE", "panic: ", "fatal error: "} {
				if i := strings.Index(string(text), bad); i >= 0 {
					all = append(all, fmt.Errorf("%s: %s", h.name, text[i:min(len(text), i+4000)]))
				}
			}
		}
	}
	return errors.Join(all...)
}

// tellWhy shows the last lines of the logs of gateways and agents, as the hosts are gone when
// who reads of a failure could ask them.
func (l *lab) tellWhy(out io.Writer) {
	for _, h := range l.hosts() {
		if h.role == roleGateway || h.role == roleBackend {
			fmt.Fprintf(out, "\nlogs %s\n%s", h.name, h.logs())
		}
	}
}
