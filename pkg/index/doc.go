// SPDX-License-Identifier: AGPL-3.0-only

// Package index is the lake's account in PostgreSQL: which objects were seen, what is to be done, which segments there are. It
// is the only way in which the lake changes (Commit) and the only one in which it is read (Lookup).
//
// The numbered rules that keep it true; each has a test of its name:
//
//  1. Commit is one transaction. It locks and checks the lease, its tasks and its receipts first; it is idempotent by the
//     lease's token and edit, so an answer that was lost can be asked again; every removed segment must be live, and no
//     receipt that it finishes may be superseded. Affected rows are counted; a difference is fault.Conflict, and nothing
//     happened.
//  2. Windows have a content version, counted by the hour and bumped by every edit that changes what is answered (not by a
//     Rewrite). An edit derived from a window states the version it read in Edit.Expect, so that two first ones cannot both
//     stand and late data is not overlooked. A piece of work is one task row, so it is leased once at a time.
//  3. Time is the database's: leases, backing off and grace are computed in SQL. A lease ends when the database ends it.
//  4. Enqueue coalesces on (kind, organization, signal, window, tier, receipt), in sorted order: no deadlock arises, and no
//     wake-up is lost, since what is asked for while it is being done will be done again.
//  5. Workers never delete their own files. A lease owns the key space .../{lease}/..., Commit refuses other keys, and a lease
//     that ended without a commit stays on record so that its key space can be swept.
//  6. A dead worker costs a try. The tasks of a lease that failed as a whole are halved: each half is claimed by itself. Only a
//     task that fails alone, again and again, is buried: visibly, with its cause, and it can be replayed. A failure that is
//     nobody's (fault.Unavailable, fault.Timeout, fault.Conflict; a Retry that is Blameless) backs off and buries nothing; a
//     shutdown (fault.Canceled) costs nothing.
//  7. Removal is a mark: the row keeps when and by whom, and the object stays.
//  8. Claims are fair: of the groups (organization, signal) with claimable tasks the one goes first that was served longest ago.
//  9. Batching is a condition of the claim: enough bytes, a full batch, or old enough. NOTIFY is a hint, the claim is the truth.
//  10. Deletes of data are numbered: their numbers rise in the order of their commits. A segment says the highest one whose rows
//     were left out of it (AppliedDelete); later ones that overlap it mask its rows, and Lookup names them in the snapshot of the
//     segments. A worker reads the deletes before the rows, so a delete that it could not know has a higher number. A delete
//     bumps the versions of its hours, and Commit refuses a segment that claims a delete which has not been made.
//  11. A mark changes no answer: it says of a live segment which deletes and field rules have nothing to do in it. It raises
//     AppliedDelete and adds rules, never the reverse, and bumps no version.
//  12. Folders are declared before files are put into them, as long as the lease lives: whatever a worker leaves behind can be found.
//  13. What is counted is counted in the commit: the rows that deletes left out (those of a segment only when it is removed), live
//     segments, and cost. An answer that was lost and asked again counts once.
//  14. A task that is asked for with a delay waits, and does not bring one that waits already further away. What was asked for
//     while it was done waits for the delay that was asked for then.
//  15. Every change leaves a record of the rows it wrote, in its own transaction, on its way to the bucket. Records are sets: adopted in
//     any order, and more than once, they make the same index, see docs/adr/0011. The files of a removed segment may go only after the
//     record of its removal has been shipped.
//  16. The audit log is a chain for each organization: an entry's hash covers the hash of the one before.
//  17. Trimming takes what no rule needs: not the lease of a commit that may be asked again, of a worker whose files were not swept, or
//     of a record that was not shipped; not the receipt of an object that is kept, whose rows are in a segment, or that a delete under
//     way has to give account of.
//  18. Rollups stand apart: rows as they came are answered, compacted, counted and expired without them, by this release and the one
//     before. The segments of a rollup come only with the edit that makes it (Edit.Rolled), which asserts the version of the window that
//     it was made of, and removes all of the same window and resolution that were live: so rows are in it once.
//  19. A rollup is answered only while it is current: the hours of its window have the version that it was made of, and no delete above its
//     applied one overlaps. Lookup names the hours that have rows and no current rollup; a finer resolution answers for them.
//  20. Rollups outlive their rows. The version of an hour has a second part, quiet, that rises when retention removes rows and which no rollup
//     is held against. From then on what is left of the hour is not all: it is rolled up only from current finer rollups that have all of
//     it, and rows that come later change no rollup.
//  21. A delete makes all rollups that it overlaps stale at once: until one knows it, that rollup is answered by nobody, and RollupDebt lists
//     it. That is how deletes ask for rollups; CreateDelete enqueues nothing. It may be made anew of the rows; or, for deletes alone, of itself,
//     whether or not there are rows; or a mark says that the delete has nothing to change in it. One that is answered by nobody and can be made
//     anew of nothing goes. One whose files were removed for a delete is debt too, and one whose files were removed by retention is not.
//  22. A rebuilt index has the rollups current that were: records carry the versions of the hours that their transaction locked, and what is
//     known of the rollups that it wrote. Adoption is quiet, but for records of earlier releases, after which no rollup of their hours is.
//
// Receipts. An object is bucket, key and content tag. New content of a known key is the key's next revision; with
// Notice.Replace its commit supersedes the older revisions: their rows are masked in every segment that holds them (and in
// those that compaction makes later) in the same transaction. A replay of an object that brought rows is a next revision
// as well, whose commit masks the rows of the same content; one that brought none is another try of the same receipt. Work on
// a superseded receipt cannot be committed, and its task vanishes. A receipt knows when its key was first received, or written if
// that is earlier: a delete made later reaches all of its revisions, so that a replay brings nothing back.
//
// No transaction is open while objects are read or written, claims never wait for each other, and every statement is bounded
// and ordered and names the index that serves it.
//
// It does not read the object store, know formats, or decide what to compact: it holds what others decided.
package index
