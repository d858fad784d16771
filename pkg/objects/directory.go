// SPDX-License-Identifier: AGPL-3.0-only

package objects

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/lakerunner/lakerunner/pkg/fault"
)

// scratch is the folder of half-written files: beside the objects, so that a rename can publish them, and hidden from List.
const scratch = ".lakerunner-partial"

// publishTries bounds the race of a Put with Deletes that remove the emptied folder under it.
const publishTries = 10

// Directory is a bucket in a file system: an object is the file of its key's path. It is for one machine, and for files that
// other programs put there.
//
// It holds what a file system can: no key with an empty, "." or ".." part (so no directory markers, and nothing outside the
// directory; symbolic links that leave it are not followed), none below its scratch folder, and not both "a" and "a/b". Such
// keys are fault.Invalid. It keeps no content type and no content encoding. The tag is made of the modification time and the
// size, so a program that puts a changed file of the same size must change its time, as all do that do not hide it.
type Directory struct {
	name string
	root *os.Root
	next atomic.Int64 // numbers scratch files
}

// OpenDirectory opens a directory as the bucket of that name, and makes it if need be. A relative path means the working
// directory of now, whatever that is later.
func OpenDirectory(name, directory string) (*Directory, error) {
	if directory == "" {
		return nil, fault.New(fault.Invalid, "open bucket %s: no directory is given", name)
	}
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return nil, fault.Wrap(kindOfFile(err), fmt.Errorf("open bucket %s: %w", name, err))
	}
	root, err := os.OpenRoot(directory)
	if err != nil {
		return nil, fault.Wrap(kindOfFile(err), fmt.Errorf("open bucket %s: %w", name, err))
	}
	return &Directory{name: name, root: root}, nil
}

// Name is the bucket's name.
func (d *Directory) Name() string { return d.name }

func (d *Directory) prices() Prices { return ListPrices(ProviderFile) }

// Get reads a whole object.
func (d *Directory) Get(ctx context.Context, key, tag string) (io.ReadCloser, Attributes, error) {
	f, a, err := d.open(ctx, key)
	if err != nil {
		return nil, Attributes{}, d.fail("get", key, err)
	}
	if tag != "" && a.Tag != tag {
		_ = f.Close()
		return nil, Attributes{}, fault.New(fault.Conflict, "get %s/%s: its tag is %s now, not %s", d.name, key, a.Tag, tag)
	}
	return &fileBody{ctx: ctx, Reader: f, Closer: f}, a, nil
}

// GetRange reads a part of an object.
func (d *Directory) GetRange(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if offset >= 0 && length == 0 {
		return io.NopCloser(strings.NewReader("")), nil
	}
	f, a, err := d.open(ctx, key)
	if err != nil {
		return nil, d.fail("get a range of", key, err)
	}
	if offset < 0 {
		offset, length = max(0, a.Size+offset), -1
	}
	if offset >= a.Size {
		_ = f.Close()
		return nil, fault.New(fault.Invalid, "get a range of %s/%s: offset %d of %d bytes", d.name, key, offset, a.Size)
	}
	if length < 0 || length > a.Size-offset {
		length = a.Size - offset
	}
	return &fileBody{ctx: ctx, Reader: io.NewSectionReader(f, offset, length), Closer: f}, nil
}

// Head describes an object.
func (d *Directory) Head(ctx context.Context, key string) (Attributes, error) {
	count(ctx, RequestHead)
	if err := errors.Join(ctx.Err(), checkKey(key)); err != nil {
		return Attributes{}, d.fail("head", key, err)
	}
	info, err := d.root.Stat(key)
	if isTopology(err) || err == nil && !info.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err != nil {
		return Attributes{}, d.fail("head", key, err)
	}
	return describe(key, info), nil
}

// Put stores an object: written whole, flushed, and then renamed.
func (d *Directory) Put(ctx context.Context, key string, body io.ReadSeeker, size int64) (Attributes, error) {
	return d.put(ctx, key, body, size, func(from, to string) error { return taken(d.root.Rename(from, to)) })
}

// PutIfAbsent is Put by link(2), which fails where the name exists.
func (d *Directory) PutIfAbsent(ctx context.Context, key string, body io.ReadSeeker, size int64) (Attributes, error) {
	return d.put(ctx, key, body, size, d.root.Link)
}

// List walks the directory in key order, reading only the folders that can hold what is asked for.
func (d *Directory) List(ctx context.Context, prefix, startAfter string) iter.Seq2[Attributes, error] {
	return func(yield func(Attributes, error) bool) {
		count(ctx, RequestList)
		w := walk{directory: d, ctx: ctx, prefix: prefix, startAfter: startAfter, yield: yield}
		w.folder(".", "")
	}
}

// Delete removes objects, and the folders that this empties.
func (d *Directory) Delete(ctx context.Context, keys ...string) error {
	failed := map[string]error{}
	for _, key := range keys {
		count(ctx, RequestDelete)
		if ctx.Err() != nil {
			return d.fail("delete", key, ctx.Err())
		}
		err := checkKey(key)
		if err == nil {
			err = d.remove(key)
		}
		if err != nil && len(keys) == 1 {
			return d.fail("delete", key, err)
		}
		if err != nil {
			failed[key] = d.fail("delete", key, err)
		}
	}
	return deleteFailed(failed)
}

// SetStorageClass is fault.Unsupported: a directory has no storage classes.
func (d *Directory) SetStorageClass(_ context.Context, key, _, class string) (Attributes, error) {
	return Attributes{}, fault.New(fault.Unsupported, "move %s/%s to storage class %s: a directory has no storage classes", d.name, key, class)
}

// Versioned is false: a directory keeps one version of each object.
func (d *Directory) Versioned(context.Context) (bool, error) { return false, nil }

func (d *Directory) remove(key string) error {
	info, err := d.root.Lstat(key)
	if absent(err) || isTopology(err) || err == nil && info.IsDir() {
		return nil
	}
	if err != nil {
		return err
	}
	if err := d.root.Remove(key); err != nil && !absent(err) {
		return err
	}
	for folder := path.Dir(key); folder != "."; folder = path.Dir(folder) {
		// It fails where something else is left, and then there is nothing to do further up.
		if d.root.Remove(folder) != nil {
			return nil //nolint:nilerr // what is left keeps the folder
		}
	}
	return nil
}

func (d *Directory) open(ctx context.Context, key string) (*os.File, Attributes, error) {
	count(ctx, RequestGet)
	if err := errors.Join(ctx.Err(), checkKey(key)); err != nil {
		return nil, Attributes{}, err
	}
	f, err := d.root.Open(key)
	if isTopology(err) {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, Attributes{}, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err != nil {
		_ = f.Close()
		return nil, Attributes{}, err
	}
	return f, describe(key, info), nil
}

func (d *Directory) put(ctx context.Context, key string, body io.ReadSeeker, size int64, publish func(from, to string) error) (Attributes, error) {
	count(ctx, RequestPut)
	if err := errors.Join(ctx.Err(), checkKey(key)); err != nil {
		return Attributes{}, d.fail("put", key, err)
	}
	content, err := contentOf(body, size)
	if err != nil {
		return Attributes{}, fault.Wrap(fault.Invalid, fmt.Errorf("put %s/%s: %w", d.name, key, err))
	}
	partial := fmt.Sprintf("%s/%d-%d-%d", scratch, os.Getpid(), time.Now().UnixNano(), d.next.Add(1))
	defer func() { _ = d.root.Remove(partial) }()
	info, err := d.write(ctx, partial, content)
	if err == nil {
		err = d.publish(partial, key, publish)
	}
	if err != nil {
		return Attributes{}, d.fail("put", key, err)
	}
	a := describe(key, info)
	a.LastModified = time.Time{}
	return a, nil
}

// write makes the scratch file. Its time is set to the nanosecond, because file systems stamp by a coarse clock and two versions
// of one size within a tick would have one tag.
func (d *Directory) write(ctx context.Context, partial string, content io.Reader) (fs.FileInfo, error) {
	if err := d.root.MkdirAll(scratch, 0o755); err != nil {
		return nil, err
	}
	f, err := d.root.OpenFile(partial, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(f, &contextReader{ctx: ctx, Reader: content})
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	now := time.Now()
	if err := d.root.Chtimes(partial, now, now); err != nil {
		return nil, err
	}
	return d.root.Stat(partial)
}

func (d *Directory) publish(partial, key string, publish func(from, to string) error) error {
	folder := path.Dir(key)
	for try := 1; ; try++ {
		if err := taken(d.root.MkdirAll(folder, 0o755)); err != nil {
			return err
		}
		err := publish(partial, key)
		if absent(err) && try < publishTries {
			continue
		}
		if err != nil {
			return err
		}
		return d.flush(folder)
	}
}

// flush makes a rename outlive the machine.
func (d *Directory) flush(folder string) error {
	f, err := d.root.Open(folder)
	if absent(err) {
		return nil // deleted since, with all that was in it
	}
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (d *Directory) fail(verb, key string, err error) error {
	return fault.Wrap(kindOfFile(err), fmt.Errorf("%s %s/%s: %w", verb, d.name, key, err))
}

func describe(key string, info fs.FileInfo) Attributes {
	tag := strconv.FormatInt(info.ModTime().UnixNano(), 16) + "-" + strconv.FormatInt(info.Size(), 16)
	return Attributes{Key: key, Size: info.Size(), Tag: tag, LastModified: info.ModTime()}
}

// checkKey refuses keys that are no path of a file inside the directory.
func checkKey(key string) error {
	if !fs.ValidPath(key) || key == "." || strings.ContainsRune(key, 0) {
		return fault.New(fault.Invalid, "a directory cannot hold the key %q: want parts between slashes, none empty, \".\" or \"..\", in UTF-8", key)
	}
	if key == scratch || strings.HasPrefix(key, scratch+"/") {
		return fault.New(fault.Invalid, "the key %q is a directory's own", key)
	}
	return nil
}

// taken explains that a file is where a folder would have to be, or a folder where a file.
func taken(err error) error {
	if errors.Is(err, fs.ErrExist) {
		return fault.Wrap(fault.Invalid, err)
	}
	return err
}

// absent reports whether a file is not there.
func absent(err error) bool { return errors.Is(err, fs.ErrNotExist) }

func kindOfFile(err error) fault.Kind {
	switch {
	case errors.Is(err, context.Canceled):
		return fault.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return fault.Timeout
	case errors.Is(err, fault.Invalid), isTopology(err):
		return fault.Invalid
	case errors.Is(err, fs.ErrNotExist):
		return fault.NotFound
	case errors.Is(err, fs.ErrExist):
		return fault.Conflict
	case errors.Is(err, fs.ErrPermission):
		return fault.Denied
	}
	return fault.Unavailable
}

// contextReader ends a long copy with its context.
type contextReader struct {
	ctx context.Context //nolint:containedctx // it lives as long as one call
	io.Reader
}

func (r *contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

// fileBody is an object being read; it ends with its context, as a body that comes over a network does.
type fileBody struct {
	ctx context.Context //nolint:containedctx // it is the context of the request that this is the answer to
	io.Reader
	io.Closer
}

func (b *fileBody) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, fault.Wrap(kindOfFile(err), err)
	}
	return b.Reader.Read(p)
}
