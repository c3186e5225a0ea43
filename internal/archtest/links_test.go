package archtest

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// TestLinks holds every relative link of the documentation to a file or folder of the repository and, where it names a
// heading of a Markdown file, to that heading.
func TestLinks(t *testing.T) {
	documents := filesWith(t, ".md")
	if len(documents) < 5 {
		t.Fatalf("only %d Markdown files were found: the walk is broken", len(documents))
	}
	for _, document := range documents {
		for _, problem := range brokenLinks(document, read(t, document), func(name string) (string, bool) {
			info, err := os.Stat(filepath.Join(root, name))
			if err != nil {
				return "", false
			}
			if info.IsDir() {
				return "", true
			}
			return read(t, name), true
		}) {
			t.Errorf("%s: %s", document, problem)
		}
	}
}

// TestLinksCanFail proves that broken links are found, and that what only looks like one is not.
func TestLinksCanFail(t *testing.T) {
	files := map[string]string{"docs/cache.md": "# The cache\n\n## What it *costs*\n", "docs": "", "README.md": "# Strata"}
	open := func(name string) (string, bool) {
		text, ok := files[name]
		return text, ok
	}
	for text, wrong := range map[string]bool{
		"[cache](cache.md)":                      false,
		"[cache](./cache.md#what-it-costs)":      false,
		"[cache](cache.md#what-it-cost)":         true,
		"[up](../README.md) and [docs](../docs)": false,
		"[up](README.md)":                        true,
		"[out](../../README.md)":                 true,
		"[root](/docs/cache.md)":                 true,
		"![picture](picture.png)":                true,
		"[web](https://example.com/x.md)":        false,
		"[mail](mailto:x@example.com)":           false,
		"# Here\n[here](#here)":                  false,
		"[here](#there)":                         true,
		"[cache]: cash.md":                       true,
		"`[x](x.md)`":                            false,
		"```\n[x](x.md)\n```":                    false,
		"    [x](x.md)":                          false,
		"```\n```\n[x](x.md)":                    true,
	} {
		if found := brokenLinks("docs/audit.md", text, open); (len(found) > 0) != wrong {
			t.Errorf("%q: found %q, want any: %v", text, found, wrong)
		}
	}
}

var (
	inlineLink    = regexp.MustCompile(`\]\(([^()\s]+)(?:\s+"[^"]*")?\)`)
	linkReference = regexp.MustCompile(`(?m)^\[[^\]]+\]:\s+(\S+)`)
	heading       = regexp.MustCompile(`(?m)^#{1,6}\s+(.+?)\s*$`)
	fenced        = regexp.MustCompile("(?ms)^```.*?^```[ \t]*$")
	indented      = regexp.MustCompile(`(?m)^(?: {4}|\t).*$`)
	codeSpan      = regexp.MustCompile("`[^`\n]+`")
)

// brokenLinks returns what is wrong with the links of a document. Open returns the text of a file, or "" for a folder,
// and whether there is one.
func brokenLinks(document, text string, open func(name string) (string, bool)) []string {
	var found []string
	prose := codeSpan.ReplaceAllString(indented.ReplaceAllString(fenced.ReplaceAllString(text, ""), ""), "")
	for _, link := range slices.Concat(inlineLink.FindAllStringSubmatch(prose, -1), linkReference.FindAllStringSubmatch(prose, -1)) {
		target, fragment, _ := strings.Cut(link[1], "#")
		if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
			continue
		}
		linked, exists := text, true
		if target != "" {
			name := path.Join(path.Dir(document), target)
			if linked, exists = open(name); path.IsAbs(target) || strings.HasPrefix(name, "../") {
				exists = false
			}
		}
		switch {
		case !exists:
			found = append(found, link[1]+": there is no such file")
		case fragment != "" && !slices.Contains(anchors(linked), fragment):
			found = append(found, link[1]+": there is no such heading")
		}
	}
	return found
}

// anchors returns the fragments under which a Markdown file's headings are reached.
func anchors(text string) []string {
	var all []string
	for _, h := range heading.FindAllStringSubmatch(fenced.ReplaceAllString(text, ""), -1) {
		all = append(all, strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-', r == '_', unicode.IsLetter(r), unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, h[1]))
	}
	return all
}

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
