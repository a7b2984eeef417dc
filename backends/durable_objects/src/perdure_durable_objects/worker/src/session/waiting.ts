/** Those who wait for a session to change: WebSockets that outlive the object's sleep. */

import { sameBytes } from "../bytes.ts";
import { encode } from "../msgpack.ts";
import type { Position } from "../requests.ts";
import { type Head, headFields } from "./state.ts";

const DONE = 1000;

/** What a socket carries while its object sleeps. */
interface Wait {
  readonly after: Position | null;
  readonly until: number;
}

export function differs(head: Head | null, after: Position | null): boolean {
  if (!head || !after) return head !== after;
  return !(
    head.version === after.version &&
    sameBytes(head.tip, after.tip) &&
    sameBytes(head.incarnation, after.incarnation)
  );
}

/** Lets a socket wait, or answers it at once. Whether it waits. */
export function admit(
  ctx: DurableObjectState,
  socket: WebSocket,
  head: Head | null,
  wait: Wait,
  now: number,
): boolean {
  ctx.acceptWebSocket(socket);
  if (differs(head, wait.after) || now >= wait.until) {
    finish(socket, head);
    return false;
  }
  socket.serializeAttachment(wait);
  return true;
}

/**
 * Answers those who wait for another head than they knew, or have waited long enough. When the
 * first of the others will have; `null`: nobody waits.
 */
export function release(ctx: DurableObjectState, head: Head | null, now: number): number | null {
  let next: number | null = null;
  for (const { socket, wait } of waiting(ctx)) {
    if (differs(head, wait.after) || now >= wait.until) finish(socket, head);
    else next = Math.min(next ?? wait.until, wait.until);
  }
  return next;
}

function waiting(ctx: DurableObjectState): { socket: WebSocket; wait: Wait }[] {
  return ctx
    .getWebSockets()
    .map((socket) => ({ socket, wait: socket.deserializeAttachment() as Wait | null }))
    .filter((waiter): waiter is { socket: WebSocket; wait: Wait } => waiter.wait !== null);
}

function finish(socket: WebSocket, head: Head | null): void {
  try {
    socket.serializeAttachment(null);
    socket.send(encode(headFields(head)));
    socket.close(DONE);
  } catch {
    // It has gone already.
  }
}
