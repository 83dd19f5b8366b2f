package probe

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
)

// maxReason bounds what others put into a log line, in octets before escaping.
const maxReason = 128

// printable is text for a log line or terminal, whoever wrote it: one line of
// printable ASCII, other octets as \DDD, and no longer than a line should be.
func printable(text string) string {
	var b strings.Builder
	for i := range min(len(text), maxReason) {
		if c := text[i]; c < ' ' || c > '~' {
			b.WriteString(`\` + string([]byte{'0' + c/100, '0' + c/10%10, '0' + c%10}))
		} else {
			b.WriteByte(c)
		}
	}
	if len(text) > maxReason {
		b.WriteString("...")
	}
	return b.String()
}

// brief is an error of a connection in the words that matter: which addresses
// were involved is in the configuration.
func brief(err error) string {
	switch errno, ok := errors.AsType[syscall.Errno](err); {
	case errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded):
		return "timed out"
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return "connection closed"
	case ok:
		return errno.Error()
	default:
		return err.Error()
	}
}
