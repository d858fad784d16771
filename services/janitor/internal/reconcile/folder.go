// SPDX-License-Identifier: AGPL-3.0-only

package reconcile

import (
	"regexp"
	"strings"
)

// minute names the folders into which exporters part an hour.
var minute = regexp.MustCompile(`/(minute|min|second)=[0-9]+/$`)

// Folder is the prefix that a key's figures are told of: its folder, but with folders of minutes as one.
func Folder(key string) string {
	folder := key[:strings.LastIndexByte(key, '/')+1]
	for {
		at := minute.FindStringIndex(folder)
		if at == nil {
			return folder
		}
		folder = folder[:at[0]+1]
	}
}
