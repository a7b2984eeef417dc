/** Parts written ahead of the commit that will name them. */

import type { Bytes } from "../bytes.ts";
import type { Stage } from "../requests.ts";

const TOUCH = "REPLACE INTO stages (incarnation, stage, staged_at) VALUES (?, ?, ?)";
const FIND = "SELECT 1 FROM stages WHERE incarnation = ? AND stage = ?";
const DROP = "DELETE FROM stages WHERE incarnation = ? AND stage = ?";
const DROP_ALL = "DELETE FROM stages WHERE incarnation = ?";
const OLD = "SELECT incarnation, stage FROM stages WHERE staged_at < ?";
const OLDEST = "SELECT min(staged_at) FROM stages";

const PUT_PART = `
INSERT INTO parts (incarnation, stage, key, value) VALUES (?, ?, ?, ?)
ON CONFLICT (incarnation, stage, key) DO NOTHING`;
const ADOPT_PARTS = `
REPLACE INTO items (key, version, value)
SELECT key, ?, value FROM parts WHERE incarnation = ? AND stage = ?`;
const DROP_PARTS = "DELETE FROM parts WHERE incarnation = ? AND stage = ?";
const DROP_ALL_PARTS = "DELETE FROM parts WHERE incarnation = ?";

/** Adds parts to a stage. What it has already stays as it is. */
export function applyStage(
  sql: SqlStorage,
  { incarnation, stage, puts }: Stage,
  now: number,
): void {
  sql.exec(TOUCH, incarnation, stage, now);
  for (const { key, value } of puts) sql.exec(PUT_PART, incarnation, stage, key, value);
}

export function isStaged(sql: SqlStorage, incarnation: Bytes, stage: Bytes): boolean {
  return !sql.exec(FIND, incarnation, stage).next().done;
}

/** Makes the parts of a stage items of `version`. */
export function adopt(sql: SqlStorage, incarnation: Bytes, stage: Bytes, version: number): void {
  sql.exec(ADOPT_PARTS, version, incarnation, stage);
  drop(sql, incarnation, stage);
}

/** Removes all that waits for `incarnation`. */
export function dropStages(sql: SqlStorage, incarnation: Bytes): void {
  sql.exec(DROP_ALL_PARTS, incarnation);
  sql.exec(DROP_ALL, incarnation);
}

/** Removes the stages that nothing was added to since `time`. */
export function dropStagesBefore(sql: SqlStorage, time: number): void {
  const old = [...sql.exec(OLD, time).raw<[ArrayBuffer, ArrayBuffer]>()];
  for (const [incarnation, stage] of old) {
    drop(sql, new Uint8Array(incarnation), new Uint8Array(stage));
  }
}

/** When the stage that has waited longest was last added to; `null`: there is none. */
export function oldestStage(sql: SqlStorage): number | null {
  return sql.exec(OLDEST).raw<[number | null]>().next().value?.[0] ?? null;
}

function drop(sql: SqlStorage, incarnation: Bytes, stage: Bytes): void {
  sql.exec(DROP_PARTS, incarnation, stage);
  sql.exec(DROP, incarnation, stage);
}
