/** Answers that are errors: code, status and body. None holds a stack, or what was sent. */

import { clock } from "./clock.ts";
import { encode, Malformed, type Writable } from "./msgpack.ts";

const STATUS = {
  conflict: 409,
  session_deleted: 410,
  commit_id_reused: 409,
  stage_missing: 409,
  forgotten: 409,
  too_large: 413,
  invalid: 400,
  unauthorized: 401,
  clock_skew: 401,
  forbidden: 403,
  not_found: 404,
  unsupported_version: 404,
  overloaded: 503,
  unavailable: 503,
  unknown: 500,
  format_too_new: 500,
} as const;

export type Code = keyof typeof STATUS;

/** Seconds for which an overloaded server asks to be left alone. */
const RETRY_AFTER = "1";

/** A request that is not done; nothing of it was applied, unless the code is `unknown`. */
export class Refused extends Error {
  constructor(
    readonly code: Code,
    message: string,
    /** The session's head, as it travels, where the code goes with one. */
    readonly head: Writable = null,
    /** What the commit's `returning` found. */
    readonly rows: Writable = [],
  ) {
    super(message);
  }
}

/** What is thrown, as an answer. What is not of this Worker's own making is thrown on. */
export function answerTo(error: unknown): Response {
  if (error instanceof Malformed) return refusal(new Refused("invalid", error.message));
  if (error instanceof Refused) return refusal(error);
  throw error;
}

export function refusal({ code, message, head, rows }: Refused): Response {
  const now = clock.now();
  const headers = new Headers({ "content-type": "application/msgpack" });
  headers.set("date", new Date(now).toUTCString());
  if (code === "overloaded") headers.set("retry-after", RETRY_AFTER);
  if (code === "unauthorized") headers.set("www-authenticate", "Bearer, Perdure-HMAC-SHA256");
  return new Response(encode([code, message, head, now, rows]), { status: STATUS[code], headers });
}

/** The answer to a request that was done. */
export function answer(body: Uint8Array): Response {
  return new Response(body, { headers: { "content-type": "application/msgpack" } });
}
