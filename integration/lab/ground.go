package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
)

// ground is what a [netlab.Lab] of this program stands on: it keeps what is to be undone,
// and turns what ends a test into an error of [try].
type ground struct {
	ctx context.Context // of all that runs; its end interrupts
	log io.Writer       // of commands, as they can be typed

	mu   sync.Mutex
	undo []func()
	bad  bool
}

// failure is what leaves a function that cannot go on.
type failure struct{ error }

// try calls f, and returns why it could not go on.
func try(f func()) (err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case failure:
			err = p.error
		default:
			panic(p)
		}
	}()
	f()
	return nil
}

// parallel calls all at once, and returns when the last one has ended. A panic of one is
// one of the caller.
func parallel(fs ...func()) {
	var wg sync.WaitGroup
	errs, panics := make([]error, len(fs)), make([]any, len(fs))
	for i, f := range fs {
		wg.Go(func() {
			defer func() { panics[i] = recover() }()
			errs[i] = try(f)
		})
	}
	wg.Wait()
	for _, p := range panics {
		if p != nil {
			panic(p)
		}
	}
	must(errors.Join(errs...))
}

// must leaves the function with an error.
func must(err error) {
	if err != nil {
		panic(failure{err})
	}
}

// end undoes all, the last first. What panics does not keep the rest from it.
func (g *ground) end() {
	for {
		g.mu.Lock()
		n := len(g.undo)
		if n == 0 {
			g.mu.Unlock()
			return
		}
		f := g.undo[n-1]
		g.undo = g.undo[:n-1]
		g.mu.Unlock()
		func() {
			defer func() {
				if p := recover(); p != nil {
					g.Errorf("while the lab ends: %v", p)
				}
			}()
			f()
		}()
	}
}

func (g *ground) note(text string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	fmt.Fprintln(g.log, text)
}

// The rest is netlab.T.

func (g *ground) Helper() {}

func (g *ground) Log(args ...any) { g.note(fmt.Sprint(args...)) }

func (g *ground) Logf(format string, args ...any) { g.note(fmt.Sprintf(format, args...)) }

func (g *ground) Error(args ...any) {
	g.note(fmt.Sprint(args...))
	g.mu.Lock()
	g.bad = true
	g.mu.Unlock()
}

func (g *ground) Errorf(format string, args ...any) { g.Error(fmt.Sprintf(format, args...)) }

func (g *ground) Fatal(args ...any) { must(errors.New(fmt.Sprint(args...))) }

func (g *ground) Fatalf(format string, args ...any) { g.Fatal(fmt.Sprintf(format, args...)) }

func (g *ground) Skip(args ...any) { g.Fatal(args...) }

func (g *ground) Context() context.Context { return g.ctx }

func (g *ground) Failed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.bad
}

func (g *ground) Cleanup(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.undo = append(g.undo, f)
}
