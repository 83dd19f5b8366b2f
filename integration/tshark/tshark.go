// Package tshark has Wireshark's dissectors judge the frames that tests get.
package tshark

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// Frame is an Ethernet frame with a name that tells where it is from.
type Frame struct {
	Name string
	Data []byte
}

// wrong is what frames have to be told: what cannot be dissected, and what the
// dissectors say is an error (PI_ERROR). Checksums are judged where the dissectors do
// so by themselves, which is not for TCP and UDP: senders leave those to hardware.
const wrong = "_ws.malformed || _ws.expert.severity >= 0x800000"

// Judge has the test fail for every frame that tshark finds something wrong in. The test
// is skipped without tshark, unless RAZOR_TEST_REQUIRE is set.
func Judge(tb testing.TB, frames []Frame) {
	tb.Helper()
	for _, said := range judge(tb, frames) {
		tb.Error(said)
	}
}

// Fields are those of each frame in a capture file, a line for a frame, with tabs between
// them. The test is skipped without tshark, unless RAZOR_TEST_REQUIRE is set.
func Fields(tb testing.TB, capture []byte, fields ...string) (lines []string) {
	tb.Helper()
	for line := range strings.Lines(read(tb, capture, "", fields...)) {
		lines = append(lines, strings.TrimSuffix(line, "\n"))
	}
	return lines
}

// judge is what tshark says of the frames that are wrong.
func judge(tb testing.TB, frames []Frame) (verdicts []string) {
	tb.Helper()
	out := read(tb, pcap(frames), wrong, "frame.number", "_ws.expert.message", "_ws.col.Info")
	for line := range strings.Lines(out) {
		number, said, _ := strings.Cut(strings.TrimSpace(line), "\t")
		n, err := strconv.Atoi(number)
		if err != nil || n < 1 || n > len(frames) {
			tb.Fatalf("tshark: %q", line)
		}
		verdicts = append(verdicts, frames[n-1].Name+": "+said)
	}
	return verdicts
}

// read has tshark tell fields of the frames in a capture file that pass a filter. What is
// inside of QUIC is its ends' own: nobody else could read it if it were real.
func read(tb testing.TB, capture []byte, filter string, fields ...string) string {
	tb.Helper()
	program, err := exec.LookPath("tshark")
	if err != nil {
		if os.Getenv("RAZOR_TEST_REQUIRE") != "" {
			tb.Fatal("required here: tshark (Debian: tshark)")
		}
		tb.Skip("needs tshark (Debian: tshark)")
	}
	args := []string{"-n", "-r", "-", "--disable-protocol", "quic", "-Y", filter, "-T", "fields"}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	cmd := exec.Command(program, args...)
	cmd.Stdin = bytes.NewReader(capture)
	cmd.Env = append(os.Environ(), "HOME="+tb.TempDir()) // nobody's preferences
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		tb.Fatalf("tshark: %v: %s", err, complaints.String())
	}
	return string(out)
}

// pcap is a capture file, version 2.4, of Ethernet.
func pcap(frames []Frame) []byte {
	const magic, snapshot, ethernet = 0xa1b2c3d4, 1 << 18, 1
	le := binary.LittleEndian
	b := le.AppendUint32(nil, magic)
	b = le.AppendUint16(le.AppendUint16(b, 2), 4)
	b = append(b, make([]byte, 8)...)
	b = le.AppendUint32(le.AppendUint32(b, snapshot), ethernet)
	for i, f := range frames {
		b = le.AppendUint32(le.AppendUint32(b, 0), uint32(i))
		b = le.AppendUint32(le.AppendUint32(b, uint32(len(f.Data))), uint32(len(f.Data)))
		b = append(b, f.Data...)
	}
	return b
}
