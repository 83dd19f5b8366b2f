package consul

import (
	"encoding/json"
	"strings"
	"testing"
)

// decode is one instance as Consul's API tells it.
func decode(t *testing.T, text string) entry {
	t.Helper()
	var e entry
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		t.Fatal(err)
	}
	return e
}

func TestInstance(t *testing.T) {
	t.Parallel()
	const passing = `"Checks":[{"CheckID":"serfHealth","Name":"Serf","Status":"passing"},{"CheckID":"c","Name":"http","Status":"passing"}]`
	for _, tt := range []struct {
		name, tagged, json string
		want               string // endpoint, status; or the error
	}{
		{
			"service address", "", `{"Node":{"Node":"n","Address":"192.0.2.9"},"Service":{"ID":"s","Address":"2001:DB8::1","Port":80,"Weights":{"Passing":1,"Warning":1}},` + passing + `}`,
			"[2001:db8::1]:80 passing",
		},
		{"node address", "", `{"Node":{"Address":"192.0.2.9"},"Service":{"Port":80},` + passing + `}`, "192.0.2.9:80 passing"},
		{
			"node address, IPv6 first", "", `{"Node":{"Address":"192.0.2.9","TaggedAddresses":{"lan":"192.0.2.9","lan_ipv6":"2001:db8::9"}},"Service":{"Port":80},` + passing + `}`,
			"[2001:db8::9]:80 passing",
		},
		{
			"a service with an address does not listen on the node's", "", `{"Node":{"Address":"192.0.2.9","TaggedAddresses":{"lan_ipv6":"2001:db8::9"}},"Service":{"Address":"192.0.2.1","Port":80},` + passing + `}`,
			"192.0.2.1:80 passing",
		},
		{
			"tagged IPv6 of the service", "", `{"Service":{"Address":"192.0.2.1","Port":80,"TaggedAddresses":{"lan_ipv4":{"Address":"192.0.2.1","Port":80},"lan_ipv6":{"Address":"2001:db8::1","Port":81}}},` + passing + `}`,
			"[2001:db8::1]:81 passing",
		},
		{
			"tag asked for", "wan_ipv6", `{"Service":{"Address":"192.0.2.1","Port":80,"TaggedAddresses":{"lan_ipv6":{"Address":"2001:db8::1","Port":81},"wan_ipv6":{"Address":"2001:db8::2","Port":82}}},` + passing + `}`,
			"[2001:db8::2]:82 passing",
		},
		{"tag of the node", "wan", `{"Node":{"TaggedAddresses":{"wan":"192.0.2.7"}},"Service":{"Address":"192.0.2.1","Port":80},` + passing + `}`, "192.0.2.7:80 passing"},
		{"tag that is not there", "wan", `{"Service":{"Address":"192.0.2.1","Port":80}}`, `error: no tagged address "wan"`},
		{"mapped", "", `{"Service":{"Address":"::ffff:192.0.2.1","Port":80}}`, "192.0.2.1:80 passing"},
		{"host name", "", `{"Service":{"Address":"web.example","Port":80}}`, `error: address "web.example" is not an IP address`},
		{"zone identifier", "", `{"Service":{"Address":"fe80::1%eth0","Port":80}}`, `error: address "fe80::1%eth0" has a zone identifier`},
		{"any address", "", `{"Service":{"Address":"::","Port":80}}`, `error: address "::" is nobody's`},
		{"no address at all", "", `{"Service":{"Port":80}}`, `error: address "" is not an IP address`},
		{"no port", "", `{"Service":{"Address":"192.0.2.1"}}`, "error: no port"},
		{"port too large", "", `{"Service":{"Address":"192.0.2.1","Port":70000}}`, "error: no port"},

		{"weights, passing", "", `{"Service":{"Address":"192.0.2.1","Port":80,"Weights":{"Passing":10,"Warning":3}},` + passing + `}`, "192.0.2.1:80 weight=10 passing"},
		{
			"weights, warning", "", `{"Service":{"Address":"192.0.2.1","Port":80,"Weights":{"Passing":10,"Warning":3}},"Checks":[{"CheckID":"c","Name":"http","Status":"warning"},{"Status":"passing"}]}`,
			"192.0.2.1:80 weight=3 warning: http",
		},
		{
			"warning takes nothing", "", `{"Service":{"Address":"192.0.2.1","Port":80,"Weights":{"Passing":1,"Warning":0}},"Checks":[{"Name":"http","Status":"warning"}]}`,
			"192.0.2.1:80 weight=0 warning: http",
		},
		{"weight too large", "", `{"Service":{"Address":"192.0.2.1","Port":80,"Weights":{"Passing":100000,"Warning":1}}}`, "192.0.2.1:80 weight=65535 passing"},
		{
			"critical", "", `{"Service":{"Address":"192.0.2.1","Port":80},"Checks":[{"Name":"disk","Status":"warning"},{"Name":"http","Status":"critical"},{"Status":"passing"}]}`,
			"192.0.2.1:80 critical: http",
		},
		{
			"maintenance", "", `{"Service":{"Address":"192.0.2.1","Port":80},"Checks":[{"Name":"http","Status":"critical"},{"CheckID":"_service_maintenance:web","Name":"Service Maintenance Mode","Status":"critical"}]}`,
			"192.0.2.1:80 maintenance: Service Maintenance Mode",
		},
		{"node in maintenance", "", `{"Service":{"Address":"192.0.2.1","Port":80},"Checks":[{"CheckID":"_node_maintenance","Name":"Node Maintenance Mode","Status":"critical"}]}`, "192.0.2.1:80 maintenance: Node Maintenance Mode"},
		{"a status of the future", "", `{"Service":{"Address":"192.0.2.1","Port":80},"Checks":[{"Name":"x","Status":"odd"}]}`, "192.0.2.1:80 critical: x"},

		{"meta", "", `{"Service":{"Address":"192.0.2.1","Port":80,"Meta":{"sid":"2001:DB8:12::100","site":"east"}}}`, "192.0.2.1:80 sid=2001:db8:12::100 site=east passing"},
		{"meta of the node", "", `{"Node":{"Meta":{"site":"west","sid":"2001:db8::1"}},"Service":{"Address":"192.0.2.1","Port":80,"Meta":{"site":"east"}}}`, "192.0.2.1:80 sid=2001:db8::1 site=east passing"},
		{
			"meta that cannot be used", "", `{"Node":{"Node":"n"},"Service":{"ID":"s","Address":"192.0.2.1","Port":80,"Meta":{"sid":"192.0.2.1","site":"a weight=9"}}}`,
			`192.0.2.1:80 passing, left out: meta sid "192.0.2.1": not an IPv6 address, meta site "a weight=9": not one word`,
		},
	} {
		e := decode(t, tt.json)
		is, left, err := e.instance(tt.tagged)
		got := is.String() + " " + is.why
		if len(left) > 0 {
			got += ", left out: " + strings.Join(left, ", ")
		}
		if err != nil {
			got = "error: " + err.Error()
		}
		if got != tt.want {
			t.Errorf("%s:\ngot  %s\nwant %s", tt.name, got, tt.want)
		}
	}
}
