// SPDX-License-Identifier: AGPL-3.0-only

// Package lokicheck holds the test that compares package mapping with Loki's own code. It stands apart so that only this test is
// built with all of Loki's packages.
package lokicheck
