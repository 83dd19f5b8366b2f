package razor

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/oschwald/maxminddb-golang/v2"

	"github.com/razor-steering/razor/steering"
)

// geoCheck is how often the database file is looked at.
const geoCheck = time.Second

// geo finds the place of an address in a MaxMind database, which may be
// replaced under it. The file is read into memory: a file that is written over
// in place must not pull the pages away from under a query.
type geo struct {
	path   string
	reader atomic.Pointer[maxminddb.Reader]
	seen   os.FileInfo
}

// openGeo reads the database.
func openGeo(path string) (*geo, error) {
	g := &geo{path: path}
	return g, g.load()
}

func (g *geo) load() error {
	info, err := os.Stat(g.path)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(g.path)
	if err != nil {
		return err
	}
	g.seen = info
	r, err := maxminddb.OpenBytes(data)
	if err != nil {
		return err
	}
	if kind := r.Metadata.DatabaseType; !strings.Contains(kind, "Country") && !strings.Contains(kind, "City") {
		return errors.New("a database of " + kind + ", not of countries or cities")
	}
	g.reader.Store(r)
	return nil
}

// watch takes a changed file over until ctx ends. One that cannot be read is
// left alone: the last good database serves.
func (g *geo) watch(ctx context.Context, log *slog.Logger) error {
	tick := time.NewTicker(geoCheck)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		info, err := os.Stat(g.path)
		if err != nil || os.SameFile(info, g.seen) && info.ModTime().Equal(g.seen.ModTime()) && info.Size() == g.seen.Size() {
			continue // also while a new file is being moved into place
		}
		if err := g.load(); err != nil {
			log.Error("geoip database cannot be read, the last one serves", "file", g.path, "err", err)
			continue
		}
		log.Info("geoip database reopened", "file", g.path)
	}
}

// record is what is read of the database.
type record struct {
	Continent struct {
		Code string `maxminddb:"code"`
	} `maxminddb:"continent"`
	Country struct {
		ISOCode string `maxminddb:"iso_code"`
	} `maxminddb:"country"`
	Subdivisions []struct {
		ISOCode string `maxminddb:"iso_code"`
	} `maxminddb:"subdivisions"`
}

// place is where an address is; the zero place when that is not known. A nil
// geo knows no place.
func (g *geo) place(a netip.Addr) steering.Place {
	if g == nil {
		return steering.Place{}
	}
	var r record
	if err := g.reader.Load().Lookup(a).Decode(&r); err != nil {
		return steering.Place{}
	}
	p := steering.Place{Continent: r.Continent.Code, Country: r.Country.ISOCode}
	if len(r.Subdivisions) > 0 {
		p.Subdivision = r.Subdivisions[0].ISOCode
	}
	return p
}
