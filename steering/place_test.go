package steering

import (
	"slices"
	"testing"
)

func TestPlaceKeys(t *testing.T) {
	for _, c := range []struct {
		place Place
		want  []string
	}{
		{Place{}, nil},
		{Place{"EU", "LT", "VL"}, []string{"eu:lt:vl", "eu:lt", "eu"}},
		{Place{"eu", "lt", "vl"}, []string{"eu:lt:vl", "eu:lt", "eu"}},
		{Place{"EU", "LT", ""}, []string{"eu:lt", "eu"}},
		{Place{"EU", "", ""}, []string{"eu"}},
		{Place{"EU", "", "VL"}, []string{"eu"}},
		{Place{"", "LT", "VL"}, nil},
		{Place{"NA", "US", "CA"}, []string{"na:us:ca", "na:us", "na"}},
	} {
		if got := c.place.Keys(); !slices.Equal(got, c.want) {
			t.Errorf("%+v: %q, want %q", c.place, got, c.want)
		}
	}
}
