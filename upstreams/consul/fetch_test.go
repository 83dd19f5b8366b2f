package consul

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// answerText is an answer of Consul for n instances, as its servers write it.
func answerText(n int, edit func(i int, e map[string]any)) []byte {
	var out []map[string]any
	for i := range n {
		addr := fmt.Sprintf("2001:db8::%x", i+1)
		e := map[string]any{
			"Node": map[string]any{
				"ID": "", "Node": fmt.Sprint("node-", i), "Address": addr, "Datacenter": "dc1",
				"TaggedAddresses": map[string]string{"lan": addr, "wan": addr}, "Meta": map[string]string{"consul-network-segment": ""},
			},
			"Service": map[string]any{
				"ID": fmt.Sprint("web-", i), "Service": "web", "Tags": []string{"a", "b"}, "Address": addr, "Port": 80,
				"TaggedAddresses": map[string]any{"lan_ipv6": map[string]any{"Address": addr, "Port": 80}},
				"Meta":            map[string]string{"note": `"quoted", and \ more]}`}, "Weights": map[string]int{"Passing": 1, "Warning": 1},
			},
			"Checks": []any{
				map[string]any{"Node": fmt.Sprint("node-", i), "CheckID": "serfHealth", "Name": "Serf Health Status", "Status": "passing", "Output": "Agent alive and reachable"},
				map[string]any{"CheckID": fmt.Sprint("service:web-", i), "Name": "http", "Status": "passing", "Output": "HTTP GET 200 OK"},
			},
		}
		if edit != nil {
			edit(i, e)
		}
		out = append(out, e)
	}
	text, _ := json.Marshal(out)
	return text
}

func TestParse(t *testing.T) {
	t.Parallel()
	first, seen, err := parse(answerText(100, nil), nil, endpoints(""))
	if err != nil || len(first.instances) != 100 || len(seen) != 100 {
		t.Fatal(len(first.instances), len(seen), err)
	}
	// One changes, one goes, and one can no longer be used.
	text := answerText(99, func(i int, e map[string]any) {
		switch i {
		case 7:
			e["Checks"] = []any{map[string]any{"Name": "http", "Status": "critical"}}
		case 9:
			e["Service"].(map[string]any)["TaggedAddresses"] = map[string]any{"lan_ipv6": map[string]any{"Address": "web.example", "Port": 80}}
		}
	})
	second, seen, err := parse(text, seen, endpoints(""))
	if err != nil || len(second.instances) != 98 || len(seen) != 99 {
		t.Fatal(len(second.instances), len(seen), err)
	}
	if got := second.instances[7].why; got != "critical: http" {
		t.Errorf("the changed one: %s", got)
	}
	for i, is := range second.instances {
		old := first.instances[i]
		if i >= 9 {
			old = first.instances[i+1]
		}
		if i != 7 && is != old {
			t.Errorf("%v became %v", old, is)
		}
	}
	if want := `node-9/web-9: address "web.example" is not an IP address`; len(second.left) != 1 || second.left[0] != want {
		t.Errorf("left out: %q", second.left)
	}
	// Indented, as a development server writes it.
	var indented bytes.Buffer
	_ = json.Indent(&indented, text, "", "    ")
	third, _, err := parse(indented.Bytes(), nil, endpoints(""))
	if err != nil || len(third.instances) != 98 {
		t.Fatal(len(third.instances), err)
	}
}

func TestParseBad(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"", "{}", "rpc error: No cluster leader", "[", "]", "[}]", "[{]", `[{"Node":1}]`, `[{"a":"b]`, `[{},]`, `[,]`, `[{}}]`, `[{} {}]`, `["x"]`, `[[]`,
	} {
		if out, _, err := parse([]byte(text), nil, endpoints("")); err == nil {
			t.Errorf("%q: taken as %+v", text, out)
		}
	}
	for _, text := range []string{"[]", "null", " [ ] \n"} {
		if out, _, err := parse([]byte(text), nil, endpoints("")); err != nil || len(out.instances) != 0 {
			t.Errorf("%q: %+v, %v", text, out, err)
		}
	}
}

// FuzzElements: a JSON array is split as the standard library splits it; what is
// none is refused, here or by whoever reads an element.
func FuzzElements(f *testing.F) {
	for _, s := range []string{`[]`, `[1, "a,b]", {"x": [1, {"y": "\\\""}]}, [2]]`, `[{"a":1},]`, `["\\"]`, ` [ {} , {} ] `, `null`, `[[}]`, `["a"b]`} {
		f.Add([]byte(s))
	}
	f.Add(answerText(2, nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		var got []string
		err := elements(data, func(text []byte) error {
			if !json.Valid(text) {
				return errNotArray
			}
			got = append(got, string(text))
			return nil
		})
		var want []json.RawMessage
		wantErr := json.Unmarshal(data, &want)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%q: %v; the standard library: %v", data, err, wantErr)
		}
		if err != nil {
			return
		}
		var texts []string
		for _, w := range want {
			texts = append(texts, string(w))
		}
		if strings.Join(got, "\n") != strings.Join(texts, "\n") {
			t.Fatalf("%q: %q, want %q", data, got, texts)
		}
	})
}

// BenchmarkParse reads an answer for 1,000 instances, of which one has changed.
func BenchmarkParse(b *testing.B) {
	texts := [2][]byte{answerText(1000, nil), answerText(1000, func(i int, e map[string]any) {
		if i == 500 {
			e["Checks"] = []any{map[string]any{"Name": "http", "Status": "critical"}}
		}
	})}
	_, seen, err := parse(texts[0], nil, endpoints(""))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(texts[0])))
	b.ReportAllocs()
	for i := 1; b.Loop(); i++ {
		if _, seen, err = parse(texts[i%2], seen, endpoints("")); err != nil {
			b.Fatal(err)
		}
	}
}
