// Package archtest enforces the import rules of ARCHITECTURE.md. It reads every Go file, tests and files that build
// tags leave out included, so that no rule can be broken in a corner that the compiler does not visit.
package archtest

import (
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	root       = "../.."
	modulePath = "github.com/strata-accounts/strata"
	wire       = "cmd/api/wire.go" // where modules meet
)

// anatomy is what every module consists of, besides its <module>.go; files for single topics may be added to it.
var anatomy = []string{
	"module.go", "service.go", "repository.go", "repository_direct.go", "repository_postgres.go",
	"repository_switch.go", "http.go",
}

// A rule returns what is wrong with file importing target, both as paths from the root, or "" where nothing is.
// A package of another project is given by its whole import path.
type rule func(file, target string) string

var rules = []rule{modulesStayApart, platformKnowsNoModule, nothingImportsCommands, gormStaysInItsRung, ginStaysAtTheEdge}

func modulesStayApart(file, target string) string {
	from, to := moduleOf(file), moduleOf(target)
	if from != "" && to != "" && from != to {
		return "a module imports itself and platform, never another module; declare the need as an interface"
	}
	return ""
}

func platformKnowsNoModule(file, target string) string {
	if within(file, "platform") && moduleOf(target) != "" {
		return "platform imports no module"
	}
	return ""
}

func nothingImportsCommands(file, target string) string {
	if within(target, "cmd") && !within(file, "cmd") {
		return "only cmd imports cmd"
	}
	return ""
}

func gormStaysInItsRung(file, target string) string {
	if !hasAnyPrefix(target, "gorm.io/", "github.com/go-gorm/") || within(file, "platform") {
		return ""
	}
	if name := implementation(file); moduleOf(file) != "" && name == "repository_postgres.go" {
		return ""
	}
	return "gorm is for repository_postgres.go and platform"
}

func ginStaysAtTheEdge(file, target string) string {
	gin := strings.HasPrefix(target, "github.com/gin-gonic/") || slices.Contains([]string{"otelgin", "humagin"}, path.Base(target))
	if !gin || within(file, "platform/web") || within(file, "cmd") || within(file, "bench") {
		return ""
	}
	if name := implementation(file); moduleOf(file) != "" && (name == "module.go" || name == "http.go") {
		return ""
	}
	return "gin is for platform/web, a module's module.go and http.go, cmd, and the ceilings in bench"
}

// wiresModules says what is wrong with one file importing several modules: only the wire file may, and the tests and
// benchmarks that look at the whole from outside.
func wiresModules(file string, targets []string) string {
	named := map[string]bool{}
	for _, target := range targets {
		if module := moduleOf(target); module != "" {
			named[module] = true
		}
	}
	if len(named) < 2 || file == wire || within(file, "test") || within(file, "bench") {
		return ""
	}
	return "modules meet in " + wire + " only"
}

func TestImports(t *testing.T) {
	files := filesWith(t, ".go")
	if len(files) < 20 {
		t.Fatalf("only %d Go files were found: the walk is broken", len(files))
	}
	for _, file := range files {
		for _, violation := range violations(file, importsOf(t, file)) {
			t.Error(violation)
		}
	}
}

func TestEveryModuleHasTheSameFiles(t *testing.T) {
	modules := map[string][]string{}
	for _, file := range filesWith(t, ".go") {
		if module := moduleOf(file); module != "" && path.Dir(file) == "modules/"+module {
			modules[module] = append(modules[module], path.Base(file))
		}
	}
	for _, problem := range unlike(modules) {
		t.Error(problem)
	}
}

// TestRulesCanFail proves that each rule catches what it is for, and no more.
func TestRulesCanFail(t *testing.T) {
	const own = modulePath + "/"
	for _, test := range []struct {
		file    string
		imports []string
		wrong   bool
	}{
		{"modules/users/service.go", []string{own + "modules/sessions"}, true},
		{"modules/users/service_test.go", []string{own + "modules/auditlog"}, true},
		{"modules/users/internal/phc/phc.go", []string{own + "modules/sessions/tokens"}, true},
		{"modules/users/service.go", []string{own + "platform/db", own + "modules/users/tokens"}, false},
		{"platform/web/auth.go", []string{own + "modules/sessions"}, true},
		{"platform/web/auth_test.go", []string{own + "modules/sessions"}, true},
		{"platform/web/auth.go", []string{own + "platform/errs", "net/http"}, false},
		{"modules/users/service.go", []string{own + "cmd/api"}, true},
		{"modules/users/service.go", []string{"gorm.io/gorm"}, true},
		{"modules/users/repository_direct.go", []string{"gorm.io/gorm/clause"}, true},
		{"modules/users/repository_cache.go", []string{"github.com/go-gorm/caches/v4"}, true},
		{"cmd/api/wire.go", []string{"gorm.io/gorm"}, true},
		{"cmd/api/repository_postgres.go", []string{"gorm.io/gorm"}, true},
		{"modules/users/repository_postgres.go", []string{"gorm.io/gorm"}, false},
		{"modules/users/repository_postgres_test.go", []string{"gorm.io/gorm"}, false},
		{"platform/cache/plugin.go", []string{"github.com/go-gorm/caches/v4"}, false},
		{"modules/users/service.go", []string{"github.com/gin-gonic/gin"}, true},
		{"platform/db/db.go", []string{"github.com/gin-gonic/gin"}, true},
		{"modules/users/users.go", []string{"github.com/danielgtaylor/huma/v2/adapters/humagin"}, true},
		{"modules/users/http.go", []string{"github.com/gin-gonic/gin"}, false},
		{"modules/users/http_test.go", []string{"github.com/gin-gonic/gin"}, false},
		{"platform/web/server.go", []string{"github.com/gin-gonic/gin"}, false},
		{"cmd/api/main.go", []string{own + "modules/users", own + "modules/sessions"}, true},
		{"cmd/api/wire_test.go", []string{own + "modules/users", own + "modules/sessions"}, true},
		{"cmd/api/main.go", []string{own + "modules/users"}, false},
		{"cmd/api/wire.go", []string{own + "modules/users", own + "modules/sessions"}, false},
		{"test/blackbox_test.go", []string{own + "modules/users", own + "modules/sessions"}, false},
	} {
		if found := violations(test.file, test.imports); (len(found) > 0) != test.wrong {
			t.Errorf("%s importing %q: found %q, want any: %v", test.file, test.imports, found, test.wrong)
		}
	}
}

func TestAnatomyCanFail(t *testing.T) {
	whole := func(module string, more ...string) []string {
		return slices.Concat(anatomy, []string{module + ".go"}, more)
	}
	for name, test := range map[string]struct {
		modules map[string][]string
		wrong   bool
	}{
		"alike":              {map[string][]string{"a": whole("a"), "b": whole("b", "topic.go", "b_test.go")}, false},
		"one lacks a file":   {map[string][]string{"a": whole("a"), "b": whole("b")[1:]}, true},
		"no domain file":     {map[string][]string{"a": whole("other")}, true},
		"one more rung":      {map[string][]string{"a": whole("a", "repository_cache.go"), "b": whole("b")}, true},
		"one more, both":     {map[string][]string{"a": whole("a", "repository_cache.go"), "b": whole("b", "repository_cache.go")}, false},
		"one more rung test": {map[string][]string{"a": whole("a", "repository_cache_test.go"), "b": whole("b")}, false},
	} {
		if found := unlike(test.modules); (len(found) > 0) != test.wrong {
			t.Errorf("%s: found %q, want any: %v", name, found, test.wrong)
		}
	}
}

func violations(file string, imports []string) []string {
	var found []string
	targets := make([]string, len(imports))
	for i, imported := range imports {
		targets[i] = strings.TrimPrefix(imported, modulePath+"/")
		for _, rule := range rules {
			if wrong := rule(file, targets[i]); wrong != "" {
				found = append(found, file+" imports "+imported+": "+wrong)
			}
		}
	}
	if wrong := wiresModules(file, targets); wrong != "" {
		found = append(found, file+": "+wrong)
	}
	return found
}

// unlike compares the modules' files: all have the anatomy and their domain file, and a rung that one has, all have.
func unlike(modules map[string][]string) []string {
	required := map[string]bool{}
	for _, name := range anatomy {
		required[name] = true
	}
	for _, files := range modules {
		for _, name := range files {
			if strings.HasPrefix(name, "repository") && !strings.HasSuffix(name, "_test.go") {
				required[name] = true
			}
		}
	}
	var found []string
	for _, module := range slices.Sorted(maps.Keys(modules)) {
		for _, name := range append(slices.Sorted(maps.Keys(required)), module+".go") {
			if !slices.Contains(modules[module], name) {
				found = append(found, "modules/"+module+" has no "+name+": every module has the same files")
			}
		}
	}
	return found
}

// filesWith returns the paths from the root of all files with this extension.
func filesWith(t *testing.T, extension string) []string {
	t.Helper()
	var files []string
	err := fs.WalkDir(os.DirFS(root), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if base := entry.Name(); entry.IsDir() && name != "." && (base[0] == '.' || base == "testdata") {
			return fs.SkipDir
		}
		if !entry.IsDir() && path.Ext(name) == extension {
			files = append(files, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func importsOf(t *testing.T, file string) []string {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, file), nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	var imports []string
	for _, spec := range parsed.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		imports = append(imports, imported)
	}
	return imports
}

// moduleOf returns the name of the module that a path lies in, or "".
func moduleOf(name string) string {
	rest, inModules := strings.CutPrefix(name, "modules/")
	if !inModules {
		return ""
	}
	module, _, _ := strings.Cut(rest, "/")
	return module
}

func within(name, dir string) bool { return name == dir || strings.HasPrefix(name, dir+"/") }

// implementation returns a file's base name, for a test that of the file it tests.
func implementation(file string) string {
	base := path.Base(file)
	if tested, isTest := strings.CutSuffix(base, "_test.go"); isTest {
		return tested + ".go"
	}
	return base
}

func hasAnyPrefix(s string, prefixes ...string) bool {
	return slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(s, prefix) })
}
