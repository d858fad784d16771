// SPDX-License-Identifier: AGPL-3.0-only

package e2e_test

import (
	"fmt"
	"os"
	"testing"
)

// roleVariable makes this test binary a process of the system under test instead of its judge.
const roleVariable = "LAKERUNNER_E2E_ROLE"

// TestMain runs the tests, or the role that a test started this binary for.
func TestMain(m *testing.M) {
	role := os.Getenv(roleVariable)
	if role == "" {
		os.Exit(m.Run())
	}
	if err := runRole(role); err != nil {
		fmt.Fprintln(os.Stderr, role+":", err)
		os.Exit(1)
	}
}

// runRole is the main function of a child process.
func runRole(role string) error {
	switch role {
	case roleWorker:
		return runWorker()
	case roleIngest:
		return runIngest()
	case roleLake:
		return runLake()
	case roleUp:
		return runUp()
	}
	return fmt.Errorf("no such role")
}
