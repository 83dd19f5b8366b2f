package steering

import (
	"os"
	"testing"

	"pgregory.net/rapid"
)

// long tells whether tests are to take all the time that they want.
func long() bool { return os.Getenv("RAZOR_LONG") != "" }

// checkFew is rapid.Check for properties of whole tables, which take long: one of five
// checks is made, all with RAZOR_LONG. When one fails, all that make it smaller are.
func checkFew(t *testing.T, property func(*rapid.T)) {
	t.Helper()
	all := long()
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		if n++; !all && n%5 != 1 {
			return
		}
		passed := false
		defer func() { all = all || !passed }()
		property(t)
		passed = !t.Failed()
	})
}
