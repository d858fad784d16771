// SPDX-License-Identifier: AGPL-3.0-only

// Package objectstest holds the conformance suite of package objects, which every implementation and every wrapper passes, and an
// S3 server in memory.
package objectstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/objects"
)

// oddKeys are what producers and their users write; none may be taken for another.
var oddKeys = []string{
	"plain",
	"a space",
	"a+plus",
	"a%20percent",
	"100%",
	"%2B",
	"dt=20180515/hour=14/archive_143201.1234.02aafad5.json.gz",
	"year=2026/month=11/day=22/hour=17/minute=05/logs_638271945.json",
	"ünïcödé/日本語.json",
	"emoji-😀",
	"a&b<c>d'e\"f",
	"semi;colon,comma:colon@at!bang$dollar(paren)*star",
	"question?mark#hash",
	"..dots/a..b/.hidden",
	"trailing-space ",
	"UPPER",
	"upper",
}

// manyKeys is more than two pages of a listing.
const manyKeys = 2100

// Conformance runs the suite. open returns an empty bucket, a new one each time. What is beyond a test server (see Memory) is
// named in beyond; a store that data is entrusted to has nothing to name.
func Conformance(t *testing.T, open func(t *testing.T) objects.Bucket, beyond ...string) {
	t.Helper()
	s := suite{open: open}
	for name, test := range s.optional() {
		if !slices.Contains(beyond, name) {
			t.Run(name, test)
		}
	}
	t.Run("what is put is got", s.putGet)
	t.Run("keys are told apart byte by byte", s.keys)
	t.Run("zero bytes are an object", s.zeroBytes)
	t.Run("a put replaces the object and its tag", s.replace)
	t.Run("a get by tag refuses another version", s.getByTag)
	t.Run("ranges", s.ranges)
	t.Run("put, head, get and list tell the same", s.attributes)
	t.Run("missing objects are not found", s.missing)
	t.Run("of many that put if absent one succeeds", s.putIfAbsent)
	t.Run("list goes on over pages", s.listPages)
	t.Run("list takes any prefix and any place to start after", s.listPrefix)
	t.Run("list stops when its reader does", s.listStops)
	t.Run("list orders by bytes", s.listOrder)
	t.Run("delete removes many at once, and what does not exist", s.deleteMany)
	t.Run("a delete that fails for one key is done for the others", s.deletePartly)
	t.Run("a bucket says whether it keeps versions", s.versioned)
	t.Run("a cancelled context ends every request", s.cancelled)
	t.Run("a body is read from where it stands", s.bodyPosition)
	t.Run("a reader sees one version whole while others are put", s.atomic)
}

// The parts of the suite that beyond can name.
const (
	BigObjects   = "a big object is whole"
	LongSuffixes = "a suffix longer than the object is the object"
	Classes      = "an object moved to another storage class is the same object, and says that it was moved"
)

type suite struct {
	open func(t *testing.T) objects.Bucket
}

func (s suite) optional() map[string]func(*testing.T) {
	return map[string]func(*testing.T){BigObjects: s.big, LongSuffixes: s.longSuffix, Classes: s.classes}
}

func (s suite) putGet(t *testing.T) {
	t.Parallel()
	b := s.open(t)
	want := []byte("\x00\x01\xff\r\nbytes are bytes\x1a")
	put(t, b, "k", want)
	if diff := cmp.Diff(want, get(t, b, "k")); diff != "" {
		t.Error(diff)
	}
}

func (s suite) keys(t *testing.T) {
	t.Parallel()
	b := s.open(t)
	for _, key := range oddKeys {
		put(t, b, key, []byte(key))
	}
	for _, key := range oddKeys {
		if got := string(get(t, b, key)); got != key {
			t.Errorf("get %q: got the content of %q", key, got)
		}
		if _, err := b.Head(t.Context(), key); err != nil {
			t.Errorf("head %q: %v", key, err)
		}
	}
	want := slices.Sorted(slices.Values(oddKeys))
	if diff := cmp.Diff(want, keysOf(t, b, "", "")); diff != "" {
		t.Error(diff)
	}
	for _, key := range oddKeys {
		if diff := cmp.Diff([]string{key}, keysOf(t, b, key, "")[:1]); diff != "" {
			t.Errorf("list by the prefix %q: %s", key, diff)
		}
	}
	for i, key := range want {
		if diff := cmp.Diff(want[i+1:], keysOf(t, b, "", key)); diff != "" && i+1 < len(want) {
			t.Errorf("list after %q: %s", key, diff)
		}
	}
	if err := b.Delete(t.Context(), oddKeys...); err != nil {
		t.Fatal(err)
	}
	if got := keysOf(t, b, "", ""); len(got) != 0 {
		t.Errorf("after the delete: %q", got)
	}
}

func (s suite) zeroBytes(t *testing.T) {
	t.Parallel()
	b := s.open(t)
	put(t, b, "empty", nil)
	if got := get(t, b, "empty"); len(got) != 0 {
		t.Errorf("got %d bytes", len(got))
	}
	a, err := b.Head(t.Context(), "empty")
	if err != nil || a.Size != 0 || a.Tag == "" {
		t.Errorf("head: %+v, %v", a, err)
	}
	if _, err := b.GetRange(t.Context(), "empty", 0, 1); !errors.Is(err, fault.Invalid) {
		t.Errorf("range of an empty object: got %v, want invalid", err)
	}
}

func (s suite) replace(t *testing.T) {
	t.Parallel()
	b := s.open(t)
	first := put(t, b, "k", []byte("first"))
	second := put(t, b, "k", []byte("other"))
	if first.Tag == second.Tag {
		t.Errorf("both versions have the tag %s", first.Tag)
	}
	if got := string(get(t, b, "k")); got != "other" {
		t.Errorf("got %q", got)
	}
}

func (s suite) getByTag(t *testing.T) {
	t.Parallel()
	b := s.open(t)
	first := put(t, b, "k", []byte("first"))
	body, _, err := b.Get(t.Context(), "k", first.Tag)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(read(t, body)); got != "first" {
		t.Errorf("got %q", got)
	}
	put(t, b, "k", []byte("other"))
	if _, _, err := b.Get(t.Context(), "k", first.Tag); !errors.Is(err, fault.Conflict) {
		t.Errorf("the old tag: got %v, want conflict", err)
	}
	if _, _, err := b.Get(t.Context(), "gone", first.Tag); !errors.Is(err, fault.NotFound) {
		t.Errorf("a missing object: got %v, want not found", err)
	}
}

func (s suite) ranges(t *testing.T) {
	t.Parallel()
	b := s.open(t)
	put(t, b, "k", []byte("0123456789"))
	for _, test := range []struct {
		offset, length int64
		want           string
	}{
		{0, 1, "0"},
		{0, 10, "0123456789"},
		{3, 4, "3456"},
		{9, 1, "9"},
		{8, 100, "89"},
		{5, -1, "56789"},
		{0, -1, "0123456789"},
		{4, 0, ""},
		{-3, 0, "789"},
		{-3, 1, "789"},
		{-10, 0, "0123456789"},
	} {
		body, err := b.GetRange(t.Context(), "k", test.offset, test.length)
		if err != nil {
			t.Errorf("%d+%d: %v", test.offset, test.length, err)
			continue
		}
		if got := string(read(t, body)); got != test.want {
			t.Errorf("%d+%d: got %q, want %q", test.offset, test.length, got, test.want)
		}
	}
	for _, offset := range []int64{10, 11} {
		if _, err := b.GetRange(t.Context(), "k", offset, 1); !errors.Is(err, fault.Invalid) {
			t.Errorf("offset %d: got %v, want invalid", offset, err)
		}
	}
}

func (s suite) longSuffix(t *testing.T) {
	t.Parallel()
	b := s.open(t)
	put(t, b, "k", []byte("0123456789"))
	body, err := b.GetRange(t.Context(), "k", -100, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(read(t, body)); got != "0123456789" {
		t.Errorf("got %q", got)
	}
}

func (s suite) classes(t *testing.T) {
	t.Parallel()
	b := s.open(t)
	for _, key := range append(slices.Clone(oddKeys), "folder/"+oddKeys[0]) {
		stored := put(t, b, key, []byte("content of "+key))
		before, err := b.Head(t.Context(), key)
		if err != nil || before.MovedFrom != "" {
			t.Fatalf("%q before: %+v, %v", key, before, err)
		}
		moved, err := b.SetStorageClass(t.Context(), key, stored.Tag, "STANDARD_IA")
		if errors.Is(err, fault.Unsupported) {
			return // a store without classes says so
		}
		if err != nil {
			t.Fatalf("move %q: %v", key, err)
		}
		head, err := b.Head(t.Context(), key)
		if err != nil || head.MovedFrom != stored.Tag || head.Tag != moved.Tag || head.Size != stored.Size || head.ContentType != before.ContentType {
			t.Errorf("%q after: %+v, %v; want %+v moved from %s", key, head, err, moved, stored.Tag)
		}
		body, a, err := b.Get(t.Context(), key, moved.Tag)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(read(t, body)); got != "content of "+key || a.MovedFrom != stored.Tag {
			t.Errorf("%q: got %q, %+v", key, got, a)
		}
	}
	if _, err := b.SetStorageClass(t.Context(), oddKeys[0], "another-tag", "STANDARD_IA"); !errors.Is(err, fault.Conflict) {
		t.Errorf("another tag: got %v, want conflict", err)
	}
	if _, err := b.SetStorageClass(t.Context(), "missing", "tag", "STANDARD_IA"); !errors.Is(err, fault.NotFound) {
		t.Errorf("a missing object: got %v, want not found", err)
	}
	again := put(t, b, oddKeys[0], []byte("new"))
	if head, err := b.Head(t.Context(), oddKeys[0]); err != nil || head.MovedFrom != "" || head.Tag != again.Tag {
		t.Errorf("written again: %+v, %v", head, err)
	}
}

// deletePartly deletes a key that some stores cannot hold among others.
func (s suite) deletePartly(t *testing.T) {
	t.Parallel()
	b := s.open(t)
	put(t, b, "first", nil)
	put(t, b, "last", nil)
	impossible := "a/../" + strings.Repeat("x", 2000)
	err := b.Delete(t.Context(), "first", impossible, "last")
	var partly *objects.DeleteError
	if err != nil && (!errors.As(err, &partly) || partly.Failed[impossible] == nil || len(partly.Failed) != 1) {
		t.Errorf("got %v, want nothing or an error of the impossible key alone", err)
	}
	if got := keysOf(t, b, "", ""); len(got) != 0 {
		t.Errorf("left: %q", got)
	}
}

func (s suite) versioned(t *testing.T) {
	t.Parallel()
	if versioned, err := s.open(t).Versioned(t.Context()); err != nil || versioned {
		t.Errorf("a new bucket: got %v, %v", versioned, err)
	}
}

func (s suite) attributes(t *testing.T) {
	t.Parallel()
	b := s.open(t)
	before := time.Now().Add(-time.Minute)
	stored := put(t, b, "folder/k", []byte("content"))
	if stored.Key != "folder/k" || stored.Size != 7 || stored.Tag == "" || strings.Contains(stored.Tag, `"`) {
		t.Errorf("put: %+v", stored)
	}
	head, err := b.Head(t.Context(), "folder/k")
	if err != nil {
		t.Fatal(err)
	}
	body, got, err := b.Get(t.Context(), "folder/k", "")
	if err != nil {
		t.Fatal(err)
	}
	read(t, body)
	listed := list(t, b, "", "")
	if len(listed) != 1 {
		t.Fatalf("list: %+v", listed)
	}
	for name, a := range map[string]objects.Attributes{"head": head, "get": got, "list": listed[0]} {
		if a.Key != stored.Key || a.Size != stored.Size || a.Tag != stored.Tag {
			t.Errorf("%s tells %+v, put told %+v", name, a, stored)
		}
		if a.LastModified.Before(before) || a.LastModified.After(time.Now().Add(time.Minute)) {
			t.Errorf("%s tells the time %s", name, a.LastModified)
		}
		if !a.LastModified.Truncate(time.Second).Equal(head.LastModified.Truncate(time.Second)) {
			t.Errorf("%s tells the time %s, head %s", name, a.LastModified, head.LastModified)
		}
	}
}

func (s suite) missing(t *testing.T) {
	t.Parallel()
	b := s.open(t)
	put(t, b, "folder/k", []byte("x"))
	for _, key := range []string{"missing", "folder", "folder/k2", "folder/k/below"} {
		if _, _, err := b.Get(t.Context(), key, ""); !errors.Is(err, fault.NotFound) {
			t.Errorf("get %q: got %v, want not found", key, err)
		}
		if _, err := b.GetRange(t.Context(), key, 0, 1); !errors.Is(err, fault.NotFound) {
			t.Errorf("get a range of %q: got %v, want not found", key, err)
		}
		if _, err := b.Head(t.Context(), key); !errors.Is(err, fault.NotFound) {
			t.Errorf("head %q: got %v, want not found", key, err)
		}
	}
	if got := keysOf(t, b, "nothing/here", ""); len(got) != 0 {
		t.Errorf("list: %q", got)
	}
}

func (s suite) putIfAbsent(t *testing.T) {
	t.Parallel()
	b := s.open(t)
	const rivals = 16
	var won atomic.Int32
	var winner atomic.Pointer[string]
	var group sync.WaitGroup
	for i := range rivals {
		group.Go(func() {
			content := fmt.Sprintf("rival %d", i)
			_, err := b.PutIfAbsent(t.Context(), "folder/lock", strings.NewReader(content), int64(len(content)))
			switch {
			case err == nil:
				won.Add(1)
				winner.Store(&content)
			case !errors.Is(err, fault.Conflict) && !errors.Is(err, fault.Unavailable):
				t.Errorf("got %v, want conflict", err)
			}
		})
	}
	group.Wait()
	if won.Load() != 1 {
		t.Fatalf("%d succeeded", won.Load())
	}
	if got := string(get(t, b, "folder/lock")); got != *winner.Load() {
		t.Errorf("got %q, the winner put %q", got, *winner.Load())
	}
	if _, err := b.PutIfAbsent(t.Context(), "folder/lock", strings.NewReader(""), 0); !errors.Is(err, fault.Conflict) {
		t.Errorf("once more: got %v, want conflict", err)
	}
}

func (s suite) listPages(t *testing.T) {
	t.Parallel()
	b := s.open(t)
	want := make([]string, manyKeys)
	for i := range want {
		want[i] = fmt.Sprintf("many/%02d/%05d", i%3, i)
	}
	slices.Sort(want)
	putAll(t, b, want)
	if diff := cmp.Diff(want, keysOf(t, b, "many/", "")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(want[1500:], keysOf(t, b, "many/", want[1499])); diff != "" {
		t.Error(diff)
	}
}

func (s suite) listPrefix(t *testing.T) {
	t.Parallel()
	b := s.open(t)
	all := []string{"a/1", "a/2", "ab/1", "b/c/d/1", "b/c/d/2", "b/c2", "c"}
	putAll(t, b, all)
	for _, test := range []struct {
		prefix, startAfter string
		want               []string
	}{
		{"", "", all},
		{"a", "", []string{"a/1", "a/2", "ab/1"}},
		{"a/", "", []string{"a/1", "a/2"}},
		{"b/c", "", []string{"b/c/d/1", "b/c/d/2", "b/c2"}},
		{"b/c/d/2", "", []string{"b/c/d/2"}},
		{"", "a/2", all[2:]},
		{"", "a/1zzz", all[1:]},
		{"", "b", all[3:]},
		{"", "b/c/e", []string{"b/c2", "c"}},
		{"b/", "b/c/d/1", []string{"b/c/d/2", "b/c2"}},
		{"b/", "a", []string{"b/c/d/1", "b/c/d/2", "b/c2"}},
		{"a/", "z", nil},
	} {
		if diff := cmp.Diff(test.want, keysOf(t, b, test.prefix, test.startAfter)); diff != "" {
			t.Errorf("under %q after %q: %s", test.prefix, test.startAfter, diff)
		}
	}
}

func (s suite) listStops(t *testing.T) {
	t.Parallel()
	b := s.open(t)
	putAll(t, b, []string{"1", "2", "3"})
	for a, err := range b.List(t.Context(), "", "") {
		if err != nil || a.Key != "1" {
			t.Fatalf("got %q, %v", a.Key, err)
		}
		break
	}
}

func (s suite) listOrder(t *testing.T) {
	t.Parallel()
	b := s.open(t)
	want := []string{"a!/x", "a-b", "a.b/c", "a/b", "a/b-c", "a/b.d/e", "a0", "aa", "é"}
	putAll(t, b, want)
	if diff := cmp.Diff(want, keysOf(t, b, "", "")); diff != "" {
		t.Error(diff)
	}
}

func (s suite) deleteMany(t *testing.T) {
	t.Parallel()
	b := s.open(t)
	keys := make([]string, 1005)
	for i := range keys {
		keys[i] = fmt.Sprintf("many/%04d", i)
	}
	putAll(t, b, keys[:1003])
	put(t, b, "left", []byte("x"))
	if err := b.Delete(t.Context(), keys...); err != nil {
		t.Fatal(err)
	}
	if err := b.Delete(t.Context(), "never/was"); err != nil {
		t.Errorf("one that does not exist: %v", err)
	}
	if err := b.Delete(t.Context()); err != nil {
		t.Errorf("none: %v", err)
	}
	if diff := cmp.Diff([]string{"left"}, keysOf(t, b, "", "")); diff != "" {
		t.Error(diff)
	}
}

func (s suite) cancelled(t *testing.T) {
	t.Parallel()
	b := s.open(t)
	put(t, b, "k", []byte("x"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, errGet := b.Get(ctx, "k", "")
	_, errRange := b.GetRange(ctx, "k", 0, 1)
	_, errPut := b.Put(ctx, "k", strings.NewReader("y"), 1)
	_, errPutIfAbsent := b.PutIfAbsent(ctx, "k2", strings.NewReader("y"), 1)
	_, errHead := b.Head(ctx, "k")
	var errList error
	for _, err := range b.List(ctx, "", "") {
		errList = err
	}
	for name, err := range map[string]error{
		"get": errGet, "range": errRange, "put": errPut, "put if absent": errPutIfAbsent,
		"head": errHead, "list": errList, "delete": b.Delete(ctx, "k"),
	} {
		if !errors.Is(err, fault.Canceled) {
			t.Errorf("%s: got %v, want canceled", name, err)
		}
	}
	if got := string(get(t, b, "k")); got != "x" {
		t.Errorf("got %q", got)
	}
}

func (s suite) bodyPosition(t *testing.T) {
	t.Parallel()
	b := s.open(t)
	body := strings.NewReader("0123456789")
	if _, err := body.Seek(4, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Put(t.Context(), "k", body, 6); err != nil {
		t.Fatal(err)
	}
	// A body that can only seek.
	only := struct{ io.ReadSeeker }{strings.NewReader("abcdef")}
	if _, err := b.Put(t.Context(), "k2", only, 6); err != nil {
		t.Fatal(err)
	}
	if got := string(get(t, b, "k")) + string(get(t, b, "k2")); got != "456789abcdef" {
		t.Errorf("got %q", got)
	}
	if _, err := b.Put(t.Context(), "k3", strings.NewReader("short"), 6); !errors.Is(err, fault.Invalid) {
		t.Errorf("a body that is too short: got %v, want invalid", err)
	}
}

func (s suite) big(t *testing.T) {
	t.Parallel()
	b := s.open(t)
	content := bytes.Repeat([]byte("0123456789abcdef"), 66<<20/16)
	stored := put(t, b, "big", content)
	head, err := b.Head(t.Context(), "big")
	if err != nil || head.Tag != stored.Tag || head.Size != int64(len(content)) {
		t.Errorf("head: %+v, %v; put told %+v", head, err, stored)
	}
	if !bytes.Equal(get(t, b, "big"), content) {
		t.Error("the content differs")
	}
	body, err := b.GetRange(t.Context(), "big", 40<<20+3, 5)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(read(t, body)); got != "34567" {
		t.Errorf("range: got %q", got)
	}
	if _, err := b.PutIfAbsent(t.Context(), "big", bytes.NewReader(content), int64(len(content))); !errors.Is(err, fault.Conflict) {
		t.Errorf("put if absent: got %v, want conflict", err)
	}
}

func (s suite) atomic(t *testing.T) {
	t.Parallel()
	b := s.open(t)
	const size, versions = 200_000, 20
	version := func(i int) []byte { return bytes.Repeat([]byte{byte('a' + i)}, size) }
	put(t, b, "k", version(0))
	var writer sync.WaitGroup
	defer writer.Wait()
	writer.Go(func() {
		for i := range versions {
			if _, err := b.Put(t.Context(), "k", bytes.NewReader(version(i)), size); err != nil {
				t.Error(err)
			}
		}
	})
	for range versions {
		got, err := readVersion(t, b, "k")
		if errors.Is(err, fault.Conflict) {
			continue // a broken body cannot be resumed from another version
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != size || !bytes.Equal(got, bytes.Repeat(got[:1], size)) {
			t.Errorf("got a mixture of versions, %d bytes", len(got))
		}
	}
}

func put(t *testing.T, b objects.Bucket, key string, content []byte) objects.Attributes {
	t.Helper()
	a, err := b.Put(t.Context(), key, bytes.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func putAll(t *testing.T, b objects.Bucket, keys []string) {
	t.Helper()
	var group sync.WaitGroup
	work := make(chan string)
	for range 8 {
		group.Go(func() {
			for key := range work {
				if _, err := b.Put(t.Context(), key, strings.NewReader(key), int64(len(key))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for _, key := range keys {
		work <- key
	}
	close(work)
	group.Wait()
}

func get(t *testing.T, b objects.Bucket, key string) []byte {
	t.Helper()
	body, _, err := b.Get(t.Context(), key, "")
	if err != nil {
		t.Fatal(err)
	}
	return read(t, body)
}

func readVersion(t *testing.T, b objects.Bucket, key string) ([]byte, error) {
	t.Helper()
	body, _, err := b.Get(t.Context(), key, "")
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(body)
	return content, errors.Join(err, body.Close())
}

func read(t *testing.T, body io.ReadCloser) []byte {
	t.Helper()
	content, err := io.ReadAll(body)
	if err = errors.Join(err, body.Close()); err != nil {
		t.Fatal(err)
	}
	return content
}

func list(t *testing.T, b objects.Bucket, prefix, startAfter string) []objects.Attributes {
	t.Helper()
	var all []objects.Attributes
	for a, err := range b.List(t.Context(), prefix, startAfter) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, a)
	}
	return all
}

func keysOf(t *testing.T, b objects.Bucket, prefix, startAfter string) []string {
	t.Helper()
	var keys []string
	for _, a := range list(t, b, prefix, startAfter) {
		keys = append(keys, a.Key)
	}
	return keys
}
