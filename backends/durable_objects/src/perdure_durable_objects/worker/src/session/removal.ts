/** Deletion and expiry: what goes at once, what is remembered, and for how long. */

import { type Bytes, NONE, sameBytes } from "../bytes.ts";
import { LIFE_MS, STAGE_MS, TOMBSTONE_MS } from "../limits.ts";
import { Refused } from "../refusals.ts";
import type { Deletion } from "../requests.ts";
import { unexpected } from "./commit.ts";
import { recall } from "./memory.ts";
import { dropStages, dropStagesBefore, oldestStage } from "./staging.ts";
import { hasExpired, headFields, save, type State } from "./state.ts";

const INSERT_LIFE = `
INSERT INTO lives (incarnation, version, ids, deletion, ended_at) VALUES (?, ?, ?, ?, ?)`;
const DELETE_LIVES = "DELETE FROM lives WHERE ended_at < ?";
const OLDEST_LIFE = "SELECT min(ended_at) FROM lives";
const DELETE_ITEMS = "DELETE FROM items";

/** The state, after the session was buried if it has expired. */
export function buryExpired(sql: SqlStorage, state: State, now: number): State {
  return state.head && hasExpired(state.head, now) ? bury(sql, state, null, now) : state;
}

/** What became of a deletion. */
export interface Result {
  readonly state: State;
  /** Whether this, or an earlier one with the same id, deleted the session. */
  readonly deleted: boolean;
}

/** Deletes the session, or throws `Refused` before anything was written. */
export function applyDeletion(
  sql: SqlStorage,
  state: State,
  { id, expect, incarnation }: Deletion,
  now: number,
): Result {
  const { head } = state;
  const earlier = recall(sql, state, id);
  if (earlier) {
    if (earlier.digest) throw new Refused("commit_id_reused", "this id was used by a commit");
    return { state, deleted: true };
  }
  if (!head || (incarnation && !sameBytes(head.incarnation, incarnation))) {
    return { state, deleted: false };
  }
  const complaint = unexpected(head, expect);
  if (complaint) {
    throw new Refused("conflict", `${complaint}; nothing was deleted`, headFields(head));
  }
  return { state: bury(sql, state, id, now), deleted: true };
}

/** Removes a session and remembers it. `deletion`: `null` if it expired. */
function bury(sql: SqlStorage, state: State, deletion: Bytes | null, now: number): State {
  const { head, ids } = state;
  if (!head) return state;
  sql.exec(DELETE_LIVES, now - LIFE_MS);
  sql.exec(INSERT_LIFE, head.incarnation, head.version, ids, deletion, now);
  sql.exec(DELETE_ITEMS);
  dropStages(sql, head.incarnation);
  const changed = Math.max(state.changed + 1, now);
  const buried = { ...state, head: null, ids: NONE, recentAt: 0, changed, lived: true };
  save(sql, buried);
  return buried;
}

/** What is left after a sweep. */
export interface Remains {
  readonly state: State | null;
  /** When there will be something to remove again; `null`: never. */
  readonly due: number | null;
  /** Whether nothing is left that anybody might still need. */
  readonly empty: boolean;
}

/** Removes what nobody can see any more. */
export function sweep(sql: SqlStorage, before: State | null, now: number): Remains {
  const state = before && buryExpired(sql, before, now);
  sql.exec(DELETE_LIVES, now - LIFE_MS);
  dropStagesBefore(sql, now - STAGE_MS);
  const life = sql.exec(OLDEST_LIFE).raw<[number | null]>().next().value?.[0] ?? null;
  const stage = oldestStage(sql);
  const resent = state && state.resentAt > now - TOMBSTONE_MS ? state.resentAt : null;
  const times = [
    state?.head?.expiresAt ?? null,
    life === null ? null : life + LIFE_MS + 1,
    stage === null ? null : stage + STAGE_MS + 1,
    state?.head || resent === null ? null : resent + TOMBSTONE_MS + 1,
  ].filter((time) => time !== null);
  const unlisted = state !== null && state.changed > state.listed;
  return {
    state,
    due: times.length ? Math.min(...times) : null,
    empty: !state?.head && times.length === 0 && !unlisted,
  };
}
