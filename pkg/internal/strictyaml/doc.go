// SPDX-License-Identifier: AGPL-3.0-only

// Package strictyaml reads configuration: YAML documents, environment variables and `key=value` settings into structs.
//
// It is for files that people write. So a field that no struct has is an error that names the file, the line and the field that
// was probably meant; all problems of a document are reported together; durations and sizes are written with units. Fields are
// named by their `yaml` tag. What a document leaves out keeps the value the struct had, so defaults are set beforehand.
//
// It does not write YAML, and it knows only plain data: no interfaces, no functions.
package strictyaml
