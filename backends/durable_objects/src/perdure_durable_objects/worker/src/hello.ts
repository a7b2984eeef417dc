/** What the server says of itself. */

import type { Bytes } from "./bytes.ts";
import { clock } from "./clock.ts";
import type { Env } from "./env.ts";
import {
  LIST_LAG_MS,
  MAX_COMMIT_BYTES,
  MAX_COMMIT_ITEMS,
  MAX_ITEM_BYTES,
  MAX_READ_BYTES,
  RECENCY_LAG_MS,
  SOFTWARE,
  VERSION,
} from "./limits.ts";
import { encode } from "./msgpack.ts";

const REPLICATED =
  "An acknowledged commit is stored by Cloudflare in several places, and outlives the loss of one.";
const PROCESS =
  "An acknowledged commit survives the death of workerd; a power loss only as far as its files do.";

export function hello({ PERDURE_LOCAL: local }: Env): Bytes {
  const note = local ? PROCESS : REPLICATED;
  return encode({
    protocol: VERSION,
    software: SOFTWARE,
    now: clock.now(),
    capabilities: {
      max_item_bytes: MAX_ITEM_BYTES,
      max_commit_bytes: MAX_COMMIT_BYTES,
      max_commit_items: MAX_COMMIT_ITEMS,
      max_read_bytes: MAX_READ_BYTES,
      multi_range: true,
      returning: true,
      recency_lag: RECENCY_LAG_MS,
      list_lag: LIST_LAG_MS,
      clock_error: 0,
      wait: "push",
      expiry: "native",
      durability: local ? "process" : "replicated",
      durability_note: note,
    },
    description: {
      backend: "durable-objects",
      location: local || "Cloudflare Durable Objects",
      durability: note,
      details: { runtime: navigator.userAgent },
    },
  });
}
