// SPDX-License-Identifier: AGPL-3.0-only

// Package importrules holds the rules that keep the modules in a straight line, as a test over the imports of every Go file:
// proto <- pkg <- services/<one> <- services/lakerunner. The compiler does not check them inside a workspace.
package importrules
