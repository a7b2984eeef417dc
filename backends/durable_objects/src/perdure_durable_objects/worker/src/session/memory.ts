/**
 * Which commits a key remembers: how a repeat is recognised, and when it cannot be.
 *
 * `ids` holds the last commits of one incarnation, oldest first: of each its id (16 bytes), its
 * digest (8) and when it was made (8, in ms). The last of them made the incarnation's last
 * version, the one before it the version before, and so on.
 */

import { type Bytes, readInteger, sameBytes, writeInteger } from "../bytes.ts";
import { CLOCK_STEP_MS, REMEMBERED_COMMITS, TOMBSTONE_MS } from "../limits.ts";
import type { Commit } from "../requests.ts";
import type { State } from "./state.ts";

const ID_BYTES = 16;
const TIME_AT = 24;
const TIME_BYTES = 8;
const ENTRY_BYTES = TIME_AT + TIME_BYTES;

const FIND_LIFE = `
SELECT incarnation, version, ids, deletion FROM lives WHERE instr(ids, ?) > 0 OR deletion = ?`;
const LIVES = "SELECT incarnation, version, ids FROM lives";

type LifeRow = [incarnation: ArrayBuffer, version: number, ids: ArrayBuffer];

/** An id that was used before, and for what. */
export interface Earlier {
  /** `null`: it was a deletion's. */
  readonly digest: Bytes | null;
  readonly incarnation: Bytes;
  readonly version: number;
}

/** `ids` with one more commit, the oldest dropped if there are too many. */
export function remember(ids: Bytes, commit: Commit, now: number): Bytes {
  const from = Math.max(0, ids.length - (REMEMBERED_COMMITS - 1) * ENTRY_BYTES);
  const at = ids.length - from;
  const remembered = new Uint8Array(at + ENTRY_BYTES);
  remembered.set(ids.subarray(from));
  remembered.set(commit.id, at);
  remembered.set(commit.digest, at + ID_BYTES);
  writeInteger(remembered, at + TIME_AT, TIME_BYTES, now);
  return remembered;
}

/** What `id` was used for before, if that is remembered. */
export function recall(sql: SqlStorage, state: State, id: Bytes): Earlier | null {
  const { head, ids } = state;
  const recent = head && find(ids, id);
  if (recent) {
    const version = oldestVersion(head.version, ids) + recent.place;
    return { digest: recent.digest, incarnation: head.incarnation, version };
  }
  if (!state.lived) return null;
  for (const row of sql.exec(FIND_LIFE, id, id).raw<[...LifeRow, ArrayBuffer | null]>()) {
    const life = { incarnation: new Uint8Array(row[0]), ids: new Uint8Array(row[2]) };
    if (row[3] && sameBytes(new Uint8Array(row[3]), id)) {
      return { digest: null, incarnation: life.incarnation, version: row[1] };
    }
    const found = find(life.ids, id);
    if (found) {
      const version = oldestVersion(row[1], life.ids) + found.place;
      return { digest: found.digest, incarnation: life.incarnation, version };
    }
  }
  return null;
}

/**
 * Whether a commit was perhaps sent before: it says so, or its resend may have overtaken it on
 * the way. Not if nothing has followed what its writer knew.
 */
export function mayBeRepeated(state: State, commit: Commit, now: number): boolean {
  if (commit.resend) return true;
  const { head } = state;
  if (
    head &&
    commit.incarnation &&
    commit.base === head.version &&
    sameBytes(commit.incarnation, head.incarnation)
  ) {
    return false;
  }
  return state.resentAt >= Math.max(told(commit, now), now - TOMBSTONE_MS);
}

/**
 * Whether no commit since this one was first sent can have been forgotten.
 *
 * An incarnation of which nothing is known never was, or is gone for longer than tombstones
 * last. A commit that names none may have been applied to any.
 */
export function remembersSince(
  sql: SqlStorage,
  { head, ids, lived }: State,
  commit: Commit,
  now: number,
): boolean {
  const seen = told(commit, now);
  const { incarnation } = commit;
  // A version means nothing without its incarnation.
  const base = incarnation ? commit.base : 0;
  const covers = (life: Bytes, version: number, remembered: Bytes): boolean =>
    (incarnation !== null && !sameBytes(life, incarnation)) ||
    oldestVersion(version, remembered) <= base + 1 ||
    oldestTime(remembered) < seen - CLOCK_STEP_MS;
  if (head && !covers(head.incarnation, head.version, ids)) return false;
  for (const row of lived ? sql.exec(LIVES).raw<LifeRow>() : []) {
    if (!covers(new Uint8Array(row[0]), row[1], new Uint8Array(row[2]))) return false;
  }
  return true;
}

/**
 * Since when, in ms, the commit can have been applied; 0 if that is not known.
 *
 * A clock that is behind `seen` has been set back, and its times prove nothing.
 */
function told({ seen }: Commit, now: number): number {
  return seen === null || seen > now ? 0 : seen;
}

function oldestVersion(version: number, ids: Bytes): number {
  return version - ids.length / ENTRY_BYTES + 1;
}

function oldestTime(ids: Bytes): number {
  return readInteger(ids, TIME_AT, TIME_BYTES);
}

function find(ids: Bytes, id: Bytes): { place: number; digest: Bytes } | null {
  for (let at = ids.length - ENTRY_BYTES; at >= 0; at -= ENTRY_BYTES) {
    // Without a view for each: there are 64, in every commit.
    let same = 0;
    while (same < ID_BYTES && ids[at + same] === id[same]) same += 1;
    if (same === ID_BYTES) {
      return { place: at / ENTRY_BYTES, digest: ids.subarray(at + ID_BYTES, at + TIME_AT) };
    }
  }
  return null;
}
