/** What a session object stores, and the row that all its operations begin with. */

import { type Bytes, NONE } from "../bytes.ts";
import type { Writable } from "../msgpack.ts";
import { Refused } from "../refusals.ts";

/**
 * Of WITHOUT ROWID tables a change of a row is one row written, and rows written are what
 * Durable Objects bill; an index would make it two. The one row of `session` stays when the
 * session goes, until nothing about its key need be known any more.
 */
const SCHEMA = `
CREATE TABLE session (
  one INTEGER PRIMARY KEY,
  format INTEGER NOT NULL,
  -- Tenant, kind and id, as in paths.
  name TEXT NOT NULL,
  -- The head. version is 0 while the session is absent.
  version INTEGER NOT NULL,
  incarnation BLOB NOT NULL,
  tip BLOB NOT NULL,
  last_delete INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  expires_at INTEGER,
  meta BLOB NOT NULL,
  meta_version INTEGER NOT NULL,
  -- A JSON array.
  labels TEXT NOT NULL,
  -- The last commits of this incarnation: see memory.ts.
  ids BLOB NOT NULL,
  -- When a commit that was sent again was applied last.
  resent_at INTEGER NOT NULL,
  -- updated_at as lists know it: at most a minute behind.
  recent_at INTEGER NOT NULL,
  -- The last change that lists must know of, and the last that they have acknowledged.
  changed INTEGER NOT NULL,
  listed INTEGER NOT NULL
);
CREATE TABLE items (
  key BLOB PRIMARY KEY,
  version INTEGER NOT NULL,
  value BLOB NOT NULL
) WITHOUT ROWID;
-- Former incarnations, and what is remembered of them.
CREATE TABLE lives (
  life INTEGER PRIMARY KEY,
  incarnation BLOB NOT NULL,
  version INTEGER NOT NULL,
  ids BLOB NOT NULL,
  -- The id of the deletion; NULL if it expired.
  deletion BLOB,
  ended_at INTEGER NOT NULL
);
-- Parts written ahead of the commit that will name them.
CREATE TABLE stages (
  incarnation BLOB NOT NULL,
  stage BLOB NOT NULL,
  staged_at INTEGER NOT NULL,
  PRIMARY KEY (incarnation, stage)
) WITHOUT ROWID;
CREATE TABLE parts (
  incarnation BLOB NOT NULL,
  stage BLOB NOT NULL,
  key BLOB NOT NULL,
  value BLOB NOT NULL,
  PRIMARY KEY (incarnation, stage, key)
) WITHOUT ROWID;
`;
const FORMAT = 1;

const HAS_SCHEMA = "SELECT 1 FROM sqlite_master WHERE name = 'session'";
const LOAD = `
SELECT format, name, version, incarnation, tip, last_delete, created_at, updated_at, expires_at,
       meta, meta_version, labels, ids, resent_at, recent_at, changed, listed,
       EXISTS (SELECT 1 FROM lives)
FROM session WHERE one = 1`;
const SAVE = `
REPLACE INTO session (one, format, name, version, incarnation, tip, last_delete, created_at,
                      updated_at, expires_at, meta, meta_version, labels, ids, resent_at,
                      recent_at, changed, listed)
VALUES (1, ${FORMAT}, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`;
const SAVE_COMMIT = `
UPDATE session SET version = ?, tip = ?, last_delete = ?, updated_at = ?, expires_at = ?, ids = ?,
                   resent_at = ?, recent_at = ?, changed = ?
WHERE one = 1`;

export interface Head {
  readonly version: number;
  readonly incarnation: Bytes;
  readonly tip: Bytes;
  readonly lastDelete: number;
  readonly createdAt: number;
  readonly updatedAt: number;
  readonly expiresAt: number | null;
  readonly meta: Bytes;
  readonly metaVersion: number;
  readonly labels: readonly string[];
}

/** The row of `session`. */
export interface State {
  readonly name: string;
  /** That of the session, if there is one; expired ones are there until it is noticed. */
  readonly head: Head | null;
  readonly ids: Bytes;
  readonly resentAt: number;
  readonly recentAt: number;
  readonly changed: number;
  readonly listed: number;
  /** Whether there may be anything in `lives`. */
  readonly lived: boolean;
}

type Row = [
  format: number,
  name: string,
  version: number,
  incarnation: ArrayBuffer,
  tip: ArrayBuffer,
  lastDelete: number,
  createdAt: number,
  updatedAt: number,
  expiresAt: number | null,
  meta: ArrayBuffer,
  metaVersion: number,
  labels: string,
  ids: ArrayBuffer,
  resentAt: number,
  recentAt: number,
  changed: number,
  listed: number,
  lived: number,
];

/** Whether anything was ever written here, or not since all was removed. */
export function hasSchema(sql: SqlStorage): boolean {
  return !sql.exec(HAS_SCHEMA).next().done;
}

export function createSchema(sql: SqlStorage): void {
  sql.exec(SCHEMA);
}

/** What is known of the key before anything was. */
export function unknownState(name: string): State {
  return {
    name,
    head: null,
    ids: NONE,
    resentAt: 0,
    recentAt: 0,
    changed: 0,
    listed: 0,
    lived: false,
  };
}

/** `null`: no commit was ever made here. */
export function load(sql: SqlStorage): State | null {
  const row = sql.exec(LOAD).raw<Row>().next().value;
  if (!row) return null;
  if (row[0] !== FORMAT) {
    throw new Refused("format_too_new", "this session was written by a newer Worker");
  }
  const head = row[2] === 0 ? null : {
    version: row[2],
    incarnation: new Uint8Array(row[3]),
    tip: new Uint8Array(row[4]),
    lastDelete: row[5],
    createdAt: row[6],
    updatedAt: row[7],
    expiresAt: row[8],
    meta: new Uint8Array(row[9]),
    metaVersion: row[10],
    labels: labelsOf(row[11]),
  };
  return {
    name: row[1],
    head,
    ids: new Uint8Array(row[12]),
    resentAt: row[13],
    recentAt: row[14],
    changed: row[15],
    listed: row[16],
    lived: row[17] === 1,
  };
}

export function save(sql: SqlStorage, state: State): void {
  const { head } = state;
  sql.exec(
    SAVE,
    state.name,
    head?.version ?? 0,
    head?.incarnation ?? NONE,
    head?.tip ?? NONE,
    head?.lastDelete ?? 0,
    head?.createdAt ?? 0,
    head?.updatedAt ?? 0,
    head?.expiresAt ?? null,
    head?.meta ?? NONE,
    head?.metaVersion ?? 0,
    head?.labels.length ? JSON.stringify(head.labels) : "",
    state.ids,
    state.resentAt,
    state.recentAt,
    state.changed,
    state.listed,
  );
}

/** `save` after a commit; cheaper where it is one of many. */
export function saveCommit(sql: SqlStorage, before: Head | null, state: State): void {
  const { head } = state;
  if (!before || !head || head.meta !== before.meta || head.labels !== before.labels) {
    save(sql, state);
    return;
  }
  sql.exec(
    SAVE_COMMIT,
    head.version,
    head.tip,
    head.lastDelete,
    head.updatedAt,
    head.expiresAt,
    state.ids,
    state.resentAt,
    state.recentAt,
    state.changed,
  );
}

function labelsOf(text: string): string[] {
  return text === "" ? [] : (JSON.parse(text) as string[]);
}

/** Whether a session is absent although its row is there. */
export function hasExpired(head: Head, now: number): boolean {
  return head.expiresAt !== null && head.expiresAt <= now;
}

/** The head of the session present. */
export function presentHead(state: State | null, now: number): Head | null {
  return state?.head && !hasExpired(state.head, now) ? state.head : null;
}

/** A head as it travels. */
export function headFields(head: Head | null): Writable {
  return head && [
    head.version,
    head.incarnation,
    head.tip,
    head.lastDelete,
    head.createdAt,
    head.updatedAt,
    head.expiresAt,
    head.meta,
    head.metaVersion,
    head.labels,
  ];
}
