//go:build unix

package test

import (
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// TestOperatorPage holds the page on the admin listener to what it reads: a metric that is renamed would leave it blank.
func TestOperatorPage(t *testing.T) {
	t.Parallel()
	s := deploy(t).start()
	s.signIn(s.signUp()).wantLive(t)
	admin := strings.TrimSuffix(s.readyz, "/readyz")
	page, metrics := s.text(admin+"/"), s.text(admin+"/metrics")
	if strings.Contains(page, "://") {
		t.Errorf("the page loads something from elsewhere:\n%s", page)
	}
	for _, file := range regexp.MustCompile(`"(/operator/[a-z.]+)"`).FindAllStringSubmatch(page, -1) {
		s.text(admin + file[1])
	}
	names := regexp.MustCompile(`"((?:strata|go|process)_[a-z_]+)"`).FindAllStringSubmatch(s.text(admin+"/operator/page.js"), -1)
	if len(names) < 20 {
		t.Errorf("the page names %d metrics", len(names))
	}
	for _, name := range names {
		if !strings.Contains(metrics, "# TYPE "+name[1]+" ") {
			t.Errorf("there is no metric %s", name[1])
		}
	}
}

// text reads a page.
func (s *server) text(url string) string {
	s.t.Helper()
	res, err := http.Get(url)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		s.t.Fatalf("%s: %s, %v", url, res.Status, err)
	}
	return string(body)
}
