/** The entries of a directory, in SQLite: by name, by recency, and both by label. */

import type { Bytes } from "../bytes.ts";

export const SCHEMA = `
CREATE TABLE directory (
  one INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  -- Whether the directory above knows of this one.
  known INTEGER NOT NULL,
  -- The last change of that which the one above was told of.
  changed INTEGER NOT NULL,
  -- Since when it is empty; NULL: it is not.
  empty_since INTEGER
);
CREATE TABLE entries (
  name BLOB PRIMARY KEY,
  changed INTEGER NOT NULL,
  recent_at INTEGER NOT NULL,
  -- A JSON array.
  labels TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX entries_by_recency ON entries (recent_at, name);
CREATE TABLE labels (
  label TEXT NOT NULL,
  name BLOB NOT NULL,
  recent_at INTEGER NOT NULL,
  PRIMARY KEY (label, name)
) WITHOUT ROWID;
CREATE INDEX labels_by_recency ON labels (label, recent_at, name);
`;

const FIND = "SELECT changed, recent_at, labels FROM entries WHERE name = ?";
const PUT = "REPLACE INTO entries (name, changed, recent_at, labels) VALUES (?, ?, ?, ?)";
const DELETE = "DELETE FROM entries WHERE name = ?";
const PUT_LABEL = "REPLACE INTO labels (label, name, recent_at) VALUES (?, ?, ?)";
const DELETE_LABEL = "DELETE FROM labels WHERE label = ? AND name = ?";
const IS_EMPTY = "SELECT 1 FROM entries LIMIT 1";

const BY_NAME = `
SELECT name, changed, recent_at FROM entries
WHERE name >= ? AND name < ? ORDER BY name LIMIT ?`;
const BY_RECENCY = `
SELECT name, changed, recent_at FROM entries
WHERE (recent_at, name) < (?, ?) ORDER BY recent_at DESC, name DESC LIMIT ?`;
const LABEL_BY_NAME = `
SELECT l.name, e.changed, l.recent_at FROM labels AS l CROSS JOIN entries AS e ON e.name = l.name
WHERE l.label = ? AND l.name >= ? AND l.name < ? ORDER BY l.name LIMIT ?`;
const LABEL_BY_RECENCY = `
SELECT l.name, e.changed, l.recent_at FROM labels AS l CROSS JOIN entries AS e ON e.name = l.name
WHERE l.label = ? AND (l.recent_at, l.name) < (?, ?)
ORDER BY l.recent_at DESC, l.name DESC LIMIT ?`;

/** What a directory is told of one name. Later changes of a name have higher numbers. */
export interface Change {
  readonly name: Bytes;
  readonly changed: number;
  /** `null`: it is gone. */
  readonly present: { readonly recentAt: number; readonly labels: readonly string[] } | null;
}

export interface Entry {
  readonly name: Bytes;
  readonly changed: number;
  readonly recentAt: number;
}

/** Where a page starts: a range of names, or what is less recent than an entry. */
export type Bounds =
  | { readonly start: Bytes; readonly stop: Bytes }
  | { readonly recentAt: number; readonly name: Bytes };

/** Applies a change, unless a later one of the same name is known. */
export function applyChange(sql: SqlStorage, { name, changed, present }: Change): void {
  const row = sql.exec(FIND, name).raw<[number, number, string]>().next().value;
  if (row && row[0] > changed) return;
  const labels = JSON.stringify(present?.labels ?? []);
  if (row && (!present || row[1] !== present.recentAt || row[2] !== labels)) {
    for (const label of JSON.parse(row[2]) as string[]) sql.exec(DELETE_LABEL, label, name);
  }
  if (!present) {
    sql.exec(DELETE, name);
    return;
  }
  sql.exec(PUT, name, changed, present.recentAt, labels);
  for (const label of present.labels) sql.exec(PUT_LABEL, label, name, present.recentAt);
}

export function isEmpty(sql: SqlStorage): boolean {
  return sql.exec(IS_EMPTY).next().done === true;
}

/** At most `limit` entries in order: by name, or the most recent first. */
export function page(
  sql: SqlStorage,
  label: string | null,
  bounds: Bounds,
  limit: number,
): Entry[] {
  const byName = "start" in bounds;
  const parameters = byName ? [bounds.start, bounds.stop] : [bounds.recentAt, bounds.name];
  const rows =
    label === null
      ? sql.exec(byName ? BY_NAME : BY_RECENCY, ...parameters, limit)
      : sql.exec(byName ? LABEL_BY_NAME : LABEL_BY_RECENCY, label, ...parameters, limit);
  return Array.from(
    rows.raw<[name: ArrayBuffer, changed: number, recentAt: number]>(),
    ([name, changed, recentAt]) => ({ name: new Uint8Array(name), changed, recentAt }),
  );
}
