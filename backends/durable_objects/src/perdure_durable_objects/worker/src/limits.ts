/** The protocol's version and its numbers; see docs/protocol.md. Sizes in bytes, times in ms. */

export const VERSION = 1;
export const SOFTWARE = "perdure-worker/0.1.0";

export const MAX_BODY_BYTES = 32 * 2 ** 20;
export const MAX_IDENTIFIER_BYTES = 512;
export const MAX_ITEM_KEY_BYTES = 512;
/** What an append adds to its prefix: the version (8 bytes) and the ordinal (4). */
export const APPENDED_BYTES = 12;
export const MAX_BOUND_BYTES = 1024;
export const MAX_META_BYTES = 4096;
export const MAX_LABELS = 4;
export const MAX_LABEL_BYTES = 128;
export const MAX_CURSOR_BYTES = 4096;
/** What is added to a version or a time that a request names must stay below 2^53. */
export const MAX_ADDEND = 2 ** 52;
export const MAX_WAIT_MS = 3600_000;

/**
 * Longest value of one item. A row, its key and stage included, must stay below 2 MB
 * (https://developers.cloudflare.com/durable-objects/platform/limits/); workerd does not see to
 * that, so that a local test would not show what a deployed Worker refuses.
 */
export const MAX_ITEM_BYTES = 1_990_000;
export const MAX_COMMIT_BYTES = 8 * 2 ** 20;
export const MAX_COMMIT_ITEMS = 10_000;
/** Each scan stops near this; all that one request reads stops near `MAX_ANSWER_BYTES`. */
export const MAX_READ_BYTES = 8 * 2 ** 20;
/** An object has 128 MB of memory for its code and everything under way. */
export const MAX_ANSWER_BYTES = 24 * 2 ** 20;
export const MAX_READS = 1000;

export const REMEMBERED_COMMITS = 64;
export const TOMBSTONE_MS = 24 * 3600_000;
/** How long former incarnations are kept: longer than promised, for whoever counts from later. */
export const LIFE_MS = TOMBSTONE_MS + 600_000;
/** How long parts wait for their commit: longer than promised too. */
export const STAGE_MS = 24 * 3600_000 + 600_000;
/**
 * An object may move to a host whose clock is behind by as much. Of commits remembered with
 * older times than this before `seen`, it is certain that they came before `seen`.
 */
export const CLOCK_STEP_MS = 1000;

/** How long a list may be behind on when a session was committed to last. */
export const RECENCY_LAG_MS = 60_000;
/** How long a list may be behind on which sessions there are. */
export const LIST_LAG_MS = 2000;
export const MAX_PAGE = 200;
