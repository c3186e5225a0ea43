// Package configs holds the defaults that the server starts from.
package configs

import _ "embed"

// Default is default.yaml: every key that there is, with its default.
//
//go:embed default.yaml
var Default []byte
