package watch

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// token is a piece of PromQL: a string, a range or a step, a word, or a sign.
var token = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|\[[^\]]*\]|[a-zA-Z_][a-zA-Z0-9_:]*|[0-9][0-9.a-z]*|\s+|.`)

// functions and operators are the words of PromQL that the expressions here use.
var (
	functions = []string{
		"avg", "changes", "count", "deriv", "histogram_quantile", "increase", "label_replace", "max", "min", "rate", "sum", "time", "topk", "vector",
		"max_over_time", "min_over_time", "clamp_min", "clamp_max", "present_over_time", "abs",
	}
	operators = []string{"and", "or", "unless", "bool", "offset"}
	grouping  = []string{"by", "without", "on", "ignoring", "group_left", "group_right"}
)

// A selector is a metric in an expression, with what is asked of its labels, such as
// razor_gateway_packets_total{result="sent"}.
type selector struct {
	metric   string
	matchers string // between the braces
}

// scan goes through an expression, and has each selector replaced by what replace makes
// of it. Unknown metrics, labels and functions are errors.
func (c Catalog) scan(expression string, replace func(selector) string) (string, error) {
	tokens := token.FindAllString(expression, -1)
	var out strings.Builder
	var used, grouped []string // labels that there are, and that it is grouped by
	for i := 0; i < len(tokens); i++ {
		word := tokens[i]
		switch labels, metric := c[word]; {
		case metric:
			s := selector{metric: word}
			if i+1 < len(tokens) && tokens[i+1] == "{" {
				end := i + slices.Index(tokens[i:], "}")
				if end < i {
					return "", fmt.Errorf("%q: no }", expression)
				}
				s.matchers = strings.Join(tokens[i+2:end], "")
				i = end
			}
			if err := s.check(labels); err != nil {
				return "", err
			}
			used = append(used, labels...)
			out.WriteString(replace(s))
		case slices.Contains(grouping, word):
			end := i + slices.Index(tokens[i:], ")")
			if end < i {
				return "", fmt.Errorf("%q: no )", expression)
			}
			for _, t := range tokens[i+1 : end] {
				if isWord(t) {
					grouped = append(grouped, t)
				}
			}
			out.WriteString(strings.Join(tokens[i:end+1], ""))
			i = end
		case isWord(word) && !slices.Contains(functions, word) && !slices.Contains(operators, word):
			return "", fmt.Errorf("%s in %q: no role has such a metric, and it is no known function", word, expression)
		default:
			out.WriteString(word)
		}
	}
	for _, l := range grouped {
		if !slices.Contains(used, l) && !slices.Contains(targetLabels, l) {
			return "", fmt.Errorf("%s in %q: no metric in it has such a label", l, expression)
		}
	}
	return out.String(), nil
}

var word = regexp.MustCompile(`^[a-zA-Z_]\w*$`)

func isWord(token string) bool { return word.MatchString(token) }

// matched are the labels that are asked for between braces, in a string or not.
var matched = regexp.MustCompile(`(\w+)\s*(?:=~|!~|!=|=)\s*"(?:[^"\\]|\\.)*"`)

func (s selector) check(labels []string) error {
	for _, m := range matched.FindAllStringSubmatch(s.matchers, -1) {
		if !slices.Contains(labels, m[1]) && !slices.Contains(targetLabels, m[1]) {
			return fmt.Errorf("%s{%s}: the metric has no label %s, but %s", s.metric, s.matchers, m[1], strings.Join(labels, ", "))
		}
	}
	if rest := strings.Trim(matched.ReplaceAllString(s.matchers, ""), ", "); rest != "" {
		return fmt.Errorf("%s{%s}: cannot be read from %q on", s.metric, s.matchers, rest)
	}
	return nil
}

func (s selector) String() string {
	if s.matchers == "" {
		return s.metric
	}
	return s.metric + "{" + s.matchers + "}"
}

// Selectors are the metrics of an expression, with what is asked of their labels.
func (c Catalog) Selectors(expression string) (out []string, err error) {
	_, err = c.scan(expression, func(s selector) string {
		out = append(out, s.String())
		return ""
	})
	return out, err
}
