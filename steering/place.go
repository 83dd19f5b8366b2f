package steering

import "strings"

// Place is where on earth a client is, in the codes of a MaxMind database:
// continent ("EU"), country (ISO 3166-1, "LT") and the part of the country after
// its country code (ISO 3166-2, "VL"), in any case. What is not known is empty;
// the zero value is nowhere.
type Place struct{ Continent, Country, Subdivision string }

// Keys returns the names of p's levels in lower case, from the most specific to
// the continent: "eu:lt:vl", "eu:lt", "eu". A level is there only if all coarser
// ones are known too.
func (p Place) Keys() []string {
	var keys []string
	key := ""
	for _, code := range [...]string{p.Continent, p.Country, p.Subdivision} {
		if code == "" {
			break
		}
		if key != "" {
			key += ":"
		}
		key += strings.ToLower(code)
		keys = append([]string{key}, keys...)
	}
	return keys
}
