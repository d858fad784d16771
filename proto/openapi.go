// SPDX-License-Identifier: AGPL-3.0-only

// Package proto holds the contracts of the services, and the description of their REST forms.
package proto

import _ "embed"

// OpenAPI is the OpenAPI (version 2) document of all REST forms, as JSON.
//
//go:embed gen/openapi/lakerunner.swagger.json
var OpenAPI []byte
