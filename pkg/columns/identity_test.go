// SPDX-License-Identifier: AGPL-3.0-only

package columns_test

import (
	"slices"
	"testing"
	"time"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

func TestIdentityOf(t *testing.T) {
	t.Parallel()
	o := columns.Origin{Identity: "event.id"}
	row := func(time int64, attributes ...columns.Attribute) *columns.LogRow {
		return &columns.LogRow{Time: time, Attributes: attributes}
	}
	attribute := func(v columns.Value) columns.Attribute { return columns.Attribute{Name: "event.id", Value: v} }
	text, number := attribute(columns.Value{Str: "17"}), attribute(columns.Value{Kind: columns.KindInt, Num: 17})
	hour := int64(time.Hour)

	first, ok := columns.IdentityOf(&o, row(5, text))
	if !ok {
		t.Fatal("a row with the attribute has no identity")
	}
	if id, _ := columns.IdentityOf(&o, row(6, number)); id != first {
		t.Error("the same text of another kind, in the same hour, is another identity")
	}
	if id, _ := columns.IdentityOf(&o, row(6, attribute(columns.Value{Kind: columns.KindInt, Num: 99}), text)); id != first {
		t.Error("of two kinds, the first does not count")
	}
	if id, _ := columns.IdentityOf(&o, row(5+hour, text)); id == first {
		t.Error("another hour is the same identity")
	}
	if id, _ := columns.IdentityOfValue("other", text.Value, 5); id == first {
		t.Error("another attribute is the same identity")
	}
	for name, r := range map[string]*columns.LogRow{
		"no attribute": row(5), "an empty value": row(5, attribute(columns.Value{})), "a masked value": row(5, attribute(columns.Value{Str: columns.Masked})),
	} {
		if _, ok := columns.IdentityOf(&o, r); ok {
			t.Errorf("%s is an identity", name)
		}
	}
	if _, ok := columns.IdentityOf(&columns.Origin{}, row(5, text)); ok {
		t.Error("a row of an origin without identity has one")
	}
}

func TestDropDoubles(t *testing.T) {
	t.Parallel()
	l := columns.NewLogs()
	with, without := l.Origin(columns.Origin{Identity: "id"}), l.Origin(columns.Origin{})
	stream := l.Stream(nil)
	add := func(origin columns.OriginID, id, body string, source lake.ReceiptID) {
		l.Append(&columns.LogRow{
			Time: 1, Stream: stream, Origin: origin, Body: body, Source: source,
			Attributes: []columns.Attribute{{Name: "id", Value: columns.Value{Str: id}}},
		})
	}
	add(with, "a", "later source", 2)    // 0
	add(with, "a", "first source", 1)    // 1
	add(with, "b", "equal", 3)           // 2
	add(with, "b", "equal", 3)           // 3
	add(without, "a", "no identity", 1)  // 4
	add(with, "", "no identity", 1)      // 5
	add(with, "c", "one of a source", 4) // 6
	add(with, "c", "two of a source", 4) // 7
	kept, dropped := l.DropDoubles([]uint32{0, 1, 2, 3, 4, 5, 6, 7})
	want := []uint32{1, 2, 4, 5, 6}
	if l.RowHash(7) < l.RowHash(6) {
		want[4] = 7
	}
	if !slices.Equal(kept, want) || dropped != 3 {
		t.Errorf("kept %v, dropped %d; want %v, 3", kept, dropped, want)
	}
	if !l.HasIdentity(0) || l.HasIdentity(4) || l.HasIdentity(5) {
		t.Error("what has an identity")
	}
}

// TestRowHashIsThatOfTheFirstVersion holds the hash of rows without identity to what segments of version 1 have.
func TestRowHashIsThatOfTheFirstVersion(t *testing.T) {
	t.Parallel()
	l := columns.NewLogs()
	for _, identity := range []string{"", "x"} {
		l.Append(&columns.LogRow{Time: 1, Stream: l.Stream(nil), Origin: l.Origin(columns.Origin{ScopeName: "s", Identity: identity}), Body: "b", Source: 2})
	}
	if got := l.RowHash(0); got != 0x1ff9239d4f26b4ec {
		t.Errorf("got %#x", got)
	}
	if l.RowHash(0) == l.RowHash(1) {
		t.Error("identity is not in the hash")
	}
}
