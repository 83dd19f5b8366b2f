package main

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/razor-steering/razor/upstreams"
)

const (
	// maxConfig bounds the file and maxDepth its nesting: the parser's work
	// grows with the square of both, and a real configuration is far below.
	maxConfig = 256 << 10 // octets
	maxDepth  = 16
)

// A problem is a defect and the line that it is on; 0 where no line has it.
type problem struct {
	line int
	upstreams.Defect
}

// A reader fills structs from YAML, strictly: what the structs do not know is a
// problem. It goes on after a problem, so that one run names them all.
//
// It is written over the syntax tree because the library's own strict decoding
// stops at the first problem, turns numbers and texts into each other, and
// forgets the lines, which later checks need.
type reader struct {
	lines    map[string]int // path of a setting: line of its key or list item
	problems []problem
}

// read fills the struct that into points to from one YAML document. Settings
// that are absent, or have no usable value, stay as they are.
func (r *reader) read(data []byte, into any) {
	r.lines = map[string]int{}
	file, err := parse(data)
	if err != nil {
		r.syntax(err)
		return
	}
	var body ast.Node
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		if body != nil {
			r.add(lineOf(doc.Body), "", "", "a second document", "one document")
			break
		}
		body = doc.Body
	}
	r.fill("", body, reflect.ValueOf(into).Elem())
}

// parse is the syntax tree of data. It never panics.
func parse(data []byte) (file *ast.File, err error) {
	defer func() {
		// The parser reads what people type; should it have a bug, then the
		// operator is to see a refused file and not a stack trace.
		if p := recover(); p != nil {
			file, err = nil, errors.New("the parser gave up")
		}
	}()
	tokens := lexer.Tokenize(string(bytes.TrimPrefix(data, []byte("\ufeff"))))
	if tk := tooDeep(tokens); tk != nil {
		return nil, &yaml.SyntaxError{Message: "nested too deeply", Token: tk}
	}
	return parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
}

// tooDeep is the token at which brackets, or list dashes on one line, are
// nested deeper than maxDepth; nil when none are.
func tooDeep(tokens token.Tokens) *token.Token {
	brackets, dashes, line := 0, 0, 0
	for _, tk := range tokens {
		if tk.Position.Line != line {
			dashes, line = 0, tk.Position.Line
		}
		switch tk.Type {
		case token.SequenceStartType, token.MappingStartType:
			brackets++
		case token.SequenceEndType, token.MappingEndType:
			brackets--
		case token.SequenceEntryType:
			dashes++
		default:
		}
		if brackets > maxDepth || dashes > maxDepth {
			return tk
		}
	}
	return nil
}

func (r *reader) syntax(err error) {
	line, reason := 0, err.Error()
	if e, ok := errors.AsType[yaml.Error](err); ok {
		reason = e.GetMessage()
		if tk := e.GetToken(); tk != nil && tk.Position != nil {
			line = tk.Position.Line
		}
	}
	r.add(line, "", "", "not YAML: "+upstreams.Printable(reason),
		`"key: value" lines indented by spaces, and quotes around values such as "[::]:53"`)
}

func (r *reader) add(line int, path, member, reason, want string) {
	r.problems = append(r.problems, problem{line, upstreams.Defect{Key: path, Member: member, Reason: reason, Want: want}})
}

// has tells whether the setting at path has a problem.
func (r *reader) has(path string) bool {
	return slices.ContainsFunc(r.problems, func(p problem) bool { return p.Key == path })
}

// fill sets v, which the path leads to, from node.
func (r *reader) fill(path string, node ast.Node, v reflect.Value) {
	switch node.(type) {
	case nil:
		return
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode, *ast.DirectiveNode:
		r.add(lineOf(node), path, "", "anchors, aliases, tags and directives are not used here", "the value itself")
		return
	case *ast.NullNode:
		// `tls:` with nothing below it would else mean: no TLS.
		if v.Kind() == reflect.Pointer {
			r.add(r.lines[path], path, "", "empty", "{} for the defaults, settings below it, or no such key")
		}
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		p := reflect.New(v.Type().Elem())
		r.fill(path, node, p.Elem())
		if !r.has(path) {
			v.Set(p)
		}
	case reflect.Struct:
		r.fillStruct(path, node, v)
	case reflect.Slice:
		r.fillList(path, node, v)
	default:
		r.fillScalar(path, node, v)
	}
}

func (r *reader) fillStruct(path string, node ast.Node, v reflect.Value) {
	fields := fieldsOf(v.Type())
	mapping, ok := node.(ast.MapNode)
	if !ok {
		r.add(r.lineAt(path, node), path, scalarText(node), "not a section", "settings below it: "+strings.Join(fields.names, ", "))
		return
	}
	seen := map[string]int{}
	for it := mapping.MapRange(); it.Next(); {
		entry := it.KeyValue()
		name, line := keyOf(entry)
		key := join(path, name)
		field, known := fields.index[name]
		first, again := seen[name]
		switch {
		case again:
			r.add(line, key, "", fmt.Sprintf("given twice, first on line %d", first), "it once")
			continue
		case !known:
			r.add(line, key, "", "unknown key", fields.suggest(path, name))
		default:
			r.lines[key] = line
			r.fill(key, entry.Value, v.Field(field))
		}
		seen[name] = line
	}
}

func (r *reader) fillList(path string, node ast.Node, v reflect.Value) {
	list, ok := node.(*ast.SequenceNode)
	if !ok {
		want := "a list"
		if text := scalarText(node); text != "" {
			want = fmt.Sprintf("a list: [%q]", upstreams.Printable(text))
		}
		r.add(r.lineAt(path, node), path, scalarText(node), "not a list", want)
		return
	}
	out := reflect.MakeSlice(v.Type(), len(list.Values), len(list.Values))
	for i, item := range list.Values {
		key := fmt.Sprintf("%s[%d]", path, i)
		r.lines[key] = lineOf(item)
		if _, null := item.(*ast.NullNode); null {
			r.add(lineOf(item), key, "", "empty", "a value, or no such item")
			continue
		}
		r.fill(key, item, out.Index(i))
	}
	v.Set(out)
}

func (r *reader) fillScalar(path string, node ast.Node, v reflect.Value) {
	line := r.lineAt(path, node)
	if _, ok := node.(ast.ScalarNode); !ok {
		r.add(line, path, "", "not a single value", wantScalar(v.Kind()))
		return
	}
	text := scalarText(node)
	if v.Type() == reflect.TypeFor[time.Duration]() {
		d, err := time.ParseDuration(text)
		if err != nil || d <= 0 {
			r.add(line, path, text, "not a duration", "one such as 30s or 5m")
			return
		}
		v.SetInt(int64(d))
		return
	}
	switch v.Kind() {
	case reflect.String:
		// As it is written: 0123 and 1e3 are passwords too.
		v.SetString(text)
	case reflect.Bool:
		b, ok := node.(*ast.BoolNode)
		if !ok {
			r.add(line, path, text, "not true or false", wantScalar(v.Kind()))
			return
		}
		v.SetBool(b.Value)
	default:
		if err := yaml.NodeToValue(node, v.Addr().Interface()); err != nil {
			r.add(line, path, text, "of the wrong type", wantScalar(v.Kind()))
		}
	}
}

// lineAt is the line of the setting at path, or of node where the path is the
// document itself.
func (r *reader) lineAt(path string, node ast.Node) int {
	if line, ok := r.lines[path]; ok {
		return line
	}
	return lineOf(node)
}

// fields are the keys that a section may have, in the order of the struct.
type fields struct {
	names []string
	index map[string]int // position of the struct field
}

func fieldsOf(t reflect.Type) fields {
	out := fields{index: map[string]int{}}
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		if name == "" || name == "-" {
			continue
		}
		out.names = append(out.names, name)
		out.index[name] = i
	}
	return out
}

// suggest says what may stand below path instead of name: the key that name is
// most likely a slip or a short form of, or all of them.
func (f fields) suggest(path, name string) string {
	lower := strings.ToLower(name)
	best, limit := "", len(name)/3+1
	for _, known := range f.names {
		if len(lower) >= 3 && strings.HasPrefix(known, lower) {
			return join(path, known)
		}
		if d := editDistance(lower, known); d <= limit && d < len(known) {
			best, limit = known, d-1
		}
	}
	if best != "" {
		return join(path, best)
	}
	return "one of " + strings.Join(f.names, ", ")
}

// editDistance is the least number of octets put in, taken out or replaced that
// makes a into b (Levenshtein). Very long texts count as unlike anything.
func editDistance(a, b string) int {
	if len(a) > 64 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

func wantScalar(kind reflect.Kind) string {
	switch kind {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "one text, in quotes if it has brackets or colons"
	default:
		return "a number"
	}
}

// scalarText is a single value as it is written, without quotes; empty for
// lists and sections.
func scalarText(node ast.Node) string {
	switch n := node.(type) {
	case *ast.LiteralNode:
		return n.Value.Value
	case ast.ScalarNode:
		return n.GetToken().Value
	default:
		return ""
	}
}

// keyOf is the name of a mapping's entry and its line.
func keyOf(entry *ast.MappingValueNode) (name string, line int) {
	tk := entry.Key.GetToken()
	return tk.Value, tk.Position.Line
}

// lineOf is the line on which node starts.
func lineOf(node ast.Node) int {
	if mapping, ok := node.(ast.MapNode); ok {
		// The token of a block mapping is the colon of its first entry, which
		// a key of several lines moves down.
		if it := mapping.MapRange(); it.Next() {
			_, line := keyOf(it.KeyValue())
			return line
		}
	}
	if tk := node.GetToken(); tk != nil && tk.Position != nil {
		return tk.Position.Line
	}
	return 0
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// nearestLine is the line of the setting at path, or of the closest section or
// list around it that the file has; 0 when it has none of them.
func nearestLine(lines map[string]int, path string) int {
	for path != "" {
		if line, ok := lines[path]; ok {
			return line
		}
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
	}
	return 0
}

// byLine orders problems as the file has them; those without a line come last.
func byLine(problems []problem) {
	slices.SortStableFunc(problems, func(a, b problem) int {
		switch {
		case a.line == b.line:
			return 0
		case a.line == 0:
			return 1
		case b.line == 0:
			return -1
		default:
			return a.line - b.line
		}
	})
}
