/** Commits: the seven steps of the contract's `Backend.commit`, within one transaction. */

import { type Bytes, NONE, sameBytes, writeInteger } from "../bytes.ts";
import { APPENDED_BYTES, RECENCY_LAG_MS } from "../limits.ts";
import { Writer } from "../msgpack.ts";
import { Refused } from "../refusals.ts";
import type { Commit, Expect } from "../requests.ts";
import { mayBeRepeated, recall, remember, remembersSince } from "./memory.ts";
import { BEYOND, rowsOf, writeRows } from "./reading.ts";
import { adopt, isStaged } from "./staging.ts";
import { type Head, headFields, saveCommit, type State } from "./state.ts";

const ITEM_VERSION = "SELECT version FROM items WHERE key = ?";
/** By how many rows they write, the most first: each statement has a cost of its own. */
const PUTS = [16, 4, 1].map((rows) => ({
  rows,
  statement: `REPLACE INTO items (key, version, value) VALUES ${Array(rows).fill("(?, ?, ?)")}`,
}));
const DELETE_ITEM = "DELETE FROM items WHERE key = ?";
const DELETE_ITEMS = "DELETE FROM items WHERE key >= ? AND key < ?";

export interface Result {
  /** The state after the commit; the one before it if it was a repeat. */
  readonly state: State;
  /** The answer. */
  readonly body: Bytes;
}

/**
 * Applies `commit`, or throws `Refused` before it has written anything.
 *
 * `state` is that of a session that has not expired.
 */
export function applyCommit(sql: SqlStorage, state: State, commit: Commit, now: number): Result {
  const { head } = state;
  const earlier = recall(sql, state, commit.id);
  if (earlier) {
    if (!earlier.digest || !sameBytes(earlier.digest, commit.digest)) {
      throw new Refused("commit_id_reused", "this commit id was used before for other content");
    }
    const { version, incarnation } = earlier;
    return { state, body: committed(sql, version, incarnation, head, now, true, commit) };
  }
  if (mayBeRepeated(state, commit, now) && !remembersSince(sql, state, commit, now)) {
    throw new Refused(
      "forgotten",
      "too many commits followed to tell whether this one was applied",
    );
  }
  if (commit.incarnation && !(head && sameBytes(head.incarnation, commit.incarnation))) {
    throw new Refused(
      "session_deleted",
      "the session was deleted or has expired; nothing was written",
      headFields(head),
    );
  }
  const complaint = unexpected(head, commit.expect) ?? unmet(sql, head, commit);
  if (complaint) {
    const rows = rowsOf(sql, head, commit.returning);
    throw new Refused("conflict", `${complaint}; nothing was written`, headFields(head), rows);
  }
  const made = nextHead(head, commit, now);
  for (const stage of commit.stages) {
    if (!isStaged(sql, made.incarnation, stage)) {
      throw new Refused(
        "stage_missing",
        "a stage named by the commit does not exist (any more)",
      );
    }
  }
  const next = nextState(state, made, commit, now);
  write(sql, made, commit);
  saveCommit(sql, head, next);
  const { version, incarnation } = made;
  return { state: next, body: committed(sql, version, incarnation, made, now, false, commit) };
}

/** What speaks against the session's being as a writer expects it, if anything does. */
export function unexpected(head: Head | null, expect: Expect): string | null {
  if (expect === "any") return null;
  if (expect === "absent") return head ? "the session exists already" : null;
  if (!head) return "there is no such session";
  if (expect === "present") return null;
  if (head.version === expect.version && sameBytes(head.tip, expect.tip)) return null;
  return (
    `the session is at version ${head.version}, not at version ${expect.version} as this ` +
    "writer has seen it"
  );
}

/** Which condition does not hold. */
function unmet(sql: SqlStorage, head: Head | null, { conditions }: Commit): string | null {
  for (const { key, version } of conditions) {
    let actual = 0;
    if (head && key === null) actual = head.metaVersion;
    else if (head) actual = sql.exec(ITEM_VERSION, key).raw<[number]>().next().value?.[0] ?? 0;
    if (actual !== version) {
      return (
        `what this writer requires to be at version ${version} is at version ${actual} ` +
        "(0: absent)"
      );
    }
  }
  return null;
}

function nextHead(head: Head | null, commit: Commit, now: number): Head {
  const made = commit.restored ?? {
    version: (head?.version ?? 0) + 1,
    createdAt: now,
    updatedAt: now,
  };
  let expiresAt = head?.expiresAt ?? null;
  if (commit.expiresIn !== null) expiresAt = now + commit.expiresIn;
  else if (commit.expiresAt !== null) expiresAt = commit.expiresAt === 0 ? null : commit.expiresAt;
  return {
    version: made.version,
    // Copies: what was sent is not to be held in memory as long as the head.
    incarnation: head?.incarnation ?? commit.newIncarnation.slice(),
    tip: commit.id.slice(),
    lastDelete: commit.deletes.length ? made.version : (head?.lastDelete ?? 0),
    createdAt: head?.createdAt ?? made.createdAt,
    updatedAt: made.updatedAt,
    expiresAt,
    meta: commit.meta?.slice() ?? head?.meta ?? NONE,
    metaVersion: commit.meta ? made.version : (head?.metaVersion ?? 0),
    labels: commit.labels ?? head?.labels ?? [],
  };
}

function nextState(state: State, made: Head, commit: Commit, now: number): State {
  const { head } = state;
  const known = head !== null && sameTexts(head.labels, made.labels);
  const recent = known && Math.abs(made.updatedAt - state.recentAt) < RECENCY_LAG_MS;
  return {
    ...state,
    head: made,
    ids: remember(head && !commit.restored ? state.ids : NONE, commit, now),
    resentAt: commit.resend ? now : state.resentAt,
    recentAt: recent ? state.recentAt : made.updatedAt,
    changed: recent ? state.changed : Math.max(state.changed + 1, now),
  };
}

function sameTexts(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((text, n) => text === b[n]);
}

function write(sql: SqlStorage, { version, incarnation }: Head, commit: Commit): void {
  for (const target of commit.deletes) {
    if (target instanceof Uint8Array) sql.exec(DELETE_ITEM, target);
    else sql.exec(DELETE_ITEMS, target.start, target.stop ?? BEYOND);
  }
  for (const stage of commit.stages) adopt(sql, incarnation, stage, version);
  const parameters: (Bytes | number)[] = [];
  for (const { key, value } of commit.puts) parameters.push(key, version, value);
  for (const { prefix, values } of commit.appends) {
    for (const [ordinal, value] of values.entries()) {
      parameters.push(appendKey(prefix, version, ordinal), version, value);
    }
  }
  let at = 0;
  for (const { rows, statement } of PUTS) {
    for (; parameters.length - at >= 3 * rows; at += 3 * rows) {
      sql.exec(statement, ...parameters.slice(at, at + 3 * rows));
    }
  }
}

/** The key of the `ordinal`-th value appended under `prefix` by `version`. */
export function appendKey(prefix: Bytes, version: number, ordinal: number): Bytes {
  const key = new Uint8Array(prefix.length + APPENDED_BYTES);
  key.set(prefix);
  writeInteger(key, prefix.length, 8, version);
  writeInteger(key, prefix.length + 8, 4, ordinal);
  return key;
}

function committed(
  sql: SqlStorage,
  version: number,
  incarnation: Bytes,
  head: Head | null,
  now: number,
  replayed: boolean,
  { returning }: Commit,
): Bytes {
  const writer = new Writer();
  writer.arrayOf(7);
  writer.write(version);
  writer.write(incarnation);
  writer.write(headFields(head));
  writer.write(now);
  writer.write(replayed);
  writeRows(sql, writer, head, returning);
  writer.write(NONE); // the epoch: no acknowledged commit is ever lost
  return writer.finish();
}
