package integration

import (
	"net"
	"os"
	"testing"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
)

type place struct{ continent, country, subdivision string }

// writeGeo makes a database in the form of MaxMind's cities, and puts it in
// place of a former one.
func writeGeo(tb testing.TB, file string, places map[string]place) {
	tb.Helper()
	db, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "GeoIP2-City", RecordSize: 24, IncludeReservedNetworks: true})
	if err != nil {
		tb.Fatal(err)
	}
	for prefix, p := range places {
		_, network, err := net.ParseCIDR(prefix)
		if err != nil {
			tb.Fatal(err)
		}
		record := mmdbtype.Map{
			"continent": mmdbtype.Map{"code": mmdbtype.String(p.continent)},
			"country":   mmdbtype.Map{"iso_code": mmdbtype.String(p.country)},
		}
		if p.subdivision != "" {
			record["subdivisions"] = mmdbtype.Slice{mmdbtype.Map{"iso_code": mmdbtype.String(p.subdivision)}}
		}
		if err := db.Insert(network, record); err != nil {
			tb.Fatal(err)
		}
	}
	next, err := os.Create(file + ".new")
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := db.WriteTo(next); err != nil {
		tb.Fatal(err)
	}
	if err := next.Close(); err != nil {
		tb.Fatal(err)
	}
	if err := os.Rename(next.Name(), file); err != nil {
		tb.Fatal(err)
	}
}
