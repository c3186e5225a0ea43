package web_test

import (
	"context"
	"testing"

	"github.com/strata-accounts/strata/platform/web"
	"github.com/strata-accounts/strata/platform/web/webtest"
)

// TestRegisterRefusesWhatItCannotServe: what huma would describe and nothing would fill or send.
func TestRegisterRefusesWhatItCannotServe(t *testing.T) {
	api := webtest.NewServer(t, nil).API()
	for name, register := range map[string]func(){
		"a parameter that is a list": func() {
			web.Register(api, web.Operation{ID: "a", Method: "GET", Path: "/a", Auth: web.Auth{Public: true}},
				func(context.Context, *struct {
					List []string `query:"list"`
				},
				) (*struct{}, error) {
					return nil, nil //nolint:nilnil // 204
				})
		},
		"a header that is a number": func() {
			web.Register(api, web.Operation{ID: "b", Method: "GET", Path: "/b", Auth: web.Auth{Public: true}},
				func(context.Context, *struct{}) (*struct {
					Count int `header:"X-Count"`
				}, error,
				) {
					return nil, nil //nolint:nilnil // 204
				})
		},
		"a default in a body": func() {
			web.Register(api, web.Operation{ID: "c", Method: "PUT", Path: "/c", Auth: web.Auth{Public: true}},
				func(context.Context, *struct {
					Body struct {
						Size int `json:"size" default:"1"`
					}
				},
				) (*struct{}, error) {
					return nil, nil //nolint:nilnil // 204
				})
		},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s was registered", name)
				}
			}()
			register()
		}()
	}
}
