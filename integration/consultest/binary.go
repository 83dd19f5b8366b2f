package consultest

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// binary is the path of the Consul that .ci/consul built. The test is skipped where
// it did not, unless RAZOR_TEST_REQUIRE is set.
func binary(tb testing.TB) string {
	tb.Helper()
	out, err := exec.Command(script(tb), "find").Output()
	if err != nil {
		if os.Getenv("RAZOR_TEST_REQUIRE") != "" {
			tb.Fatal("consul is required here (.ci/consul builds it):", err)
		}
		tb.Skip("needs consul (.ci/consul builds it)")
	}
	return strings.TrimSpace(string(out))
}

// script is .ci/consul of the module that the test is in.
func script(tb testing.TB) string {
	tb.Helper()
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}
	for {
		file := filepath.Join(dir, ".ci", "consul")
		if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
			return file
		}
		if dir == filepath.Dir(dir) {
			tb.Fatal("no .ci/consul above the test")
		}
		dir = filepath.Dir(dir)
	}
}
