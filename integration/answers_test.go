package integration

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"testing"

	"github.com/razor-steering/razor/integration/netlab"
)

// answersOf is the variable with the name of a server that this program is, instead of
// the tests.
const answersOf = "RAZOR_TEST_ANSWERS"

func TestMain(m *testing.M) {
	if name := os.Getenv(answersOf); name != "" {
		fmt.Fprintln(os.Stderr, answerApart(name, os.Args[1]))
		os.Exit(1)
	}
	code := m.Run()
	_ = os.Remove(razorFile)
	os.Exit(code)
}

// answersApart is [answerLines] in a process of its own, for its file descriptors.
func answersApart(tb testing.TB, n *netlab.Node, to string) *netlab.Process {
	tb.Helper()
	return n.Start("env", answersOf+"="+n.Name, os.Args[0], to)
}

// answerApart is that process; it ends with an error.
func answerApart(name, to string) error {
	l, err := net.Listen("tcp", to)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go answer(c, name)
	}
}

// answerLines answers each line with the name of the node, for as long as a client wants.
// Before it come as many bytes as the line is a number.
func answerLines(t testing.TB, n *netlab.Node, to string) {
	t.Helper()
	l, err := n.Listen("tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			wg.Go(func() { answer(c, n.Name) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
}

// answer answers the lines of a connection with a name.
func answer(c net.Conn, name string) {
	defer c.Close() // of many tests at once there would be too many
	lines := bufio.NewScanner(c)
	for lines.Scan() {
		if n, err := strconv.Atoi(lines.Text()); err == nil {
			_, _ = c.Write(bytes.Repeat([]byte{'x'}, n))
		}
		if _, err := fmt.Fprintln(c, name); err != nil {
			return
		}
	}
}
