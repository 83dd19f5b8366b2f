package steering

import (
	"encoding/json"
	"math"
	"testing"
	"time"
)

// FuzzDecide decides by whatever a file may say, the plan before too, and goes on from
// there.
func FuzzDecide(f *testing.F) {
	for _, s := range []Snapshot{fourBackends(200), fourBackends(480), loadedSite()} {
		text, err := json.Marshal(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var s Snapshot
		if json.Unmarshal(text, &s) != nil {
			t.Skip("not a snapshot")
		}
		for range 3 {
			p := Decide(s)
			for _, v := range p.Services {
				if sum := v.Here.Share + v.Nowhere + v.spilled(); math.Abs(sum-1) > 1e-6 {
					t.Fatalf("the shares are %v together: %+v", sum, v)
				}
				if v.Here.Share < 0 || v.Nowhere < 0 || v.Reason == "" {
					t.Fatalf("%+v", v)
				}
				v.Spills()
			}
			if _, err := json.Marshal(p); err != nil && s.Now.Year() >= 0 && s.Now.Year() < 9999 {
				t.Fatalf("the plan is no JSON: %v", err)
			}
			s = next(s, 20*time.Second, p)
		}
	})
}
