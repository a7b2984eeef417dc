/** A session: one Durable Object, and everything that happens to it. */

import { DurableObject } from "cloudflare:workers";

import { Agenda } from "../agenda.ts";
import { type Bytes, NONE } from "../bytes.ts";
import { clock } from "../clock.ts";
import { directoryNamed, placeOfSession } from "../directory/names.ts";
import type { Env } from "../env.ts";
import { MAX_BODY_BYTES, STAGE_MS } from "../limits.ts";
import { encode, Malformed, Writer } from "../msgpack.ts";
import { targetOf } from "../path.ts";
import { answer, answerTo, Refused } from "../refusals.ts";
import {
  decodeCommit,
  decodeDeletion,
  decodeReads,
  decodeStage,
  decodeWait,
} from "../requests.ts";
import { applyCommit } from "./commit.ts";
import { writeRows } from "./reading.ts";
import { applyDeletion, buryExpired, sweep } from "./removal.ts";
import { applyStage } from "./staging.ts";
import {
  createSchema,
  type Head,
  hasSchema,
  headFields,
  load,
  presentHead,
  type State,
  unknownState,
} from "./state.ts";
import { admit, release } from "./waiting.ts";

/** Pauses between attempts to tell the directory: the first, and the longest. */
const RETRY_MS = 1000;
const LONGEST_RETRY_MS = 60_000;

/** How long an answer waits for the directory. */
const DIRECTORY_MS = 2000;

const LISTED = "UPDATE session SET listed = max(listed, ?) WHERE one = 1";

export class Session extends DurableObject<Env> {
  private readonly agenda: Agenda;
  /** Whether there are tables. */
  private stored = false;
  /** The row of `session`; nobody else changes it. `undefined`: not read yet. */
  private known: State | null | undefined;
  /** Whether anybody may be waiting: who sleeps with the object is there when it wakes. */
  private awaited: boolean;
  private telling: Promise<void> = Promise.resolve();
  private failures = 0;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    this.agenda = new Agenda(ctx.storage);
    this.awaited = ctx.getWebSockets().length > 0;
    void ctx.blockConcurrencyWhile(async () => {
      this.stored = hasSchema(this.sql);
      await this.agenda.load();
    });
  }

  private get sql(): SqlStorage {
    return this.ctx.storage.sql;
  }

  override async fetch(request: Request): Promise<Response> {
    try {
      // The Worker in front has checked the path.
      const { path, query } = targetOf(request.url);
      const [, , tenant, kind, id, operation] = path.split("/");
      if (operation === "wait") return this.wait(query, request);
      const body = new Uint8Array(await request.arrayBuffer());
      if (body.length > MAX_BODY_BYTES) throw new Refused("too_large", "the body is too long");
      return answer(await this.apply(operation, `${tenant}/${kind}/${id}`, body));
    } catch (error) {
      return answerTo(error);
    }
  }

  /** The head as it travels, and the labels; `null` if there is no session. For lists. */
  shown(): { head: Bytes; labels: readonly string[] } | null {
    const head = this.head(clock.now());
    return head && { head: encode(headFields(head)), labels: head.labels };
  }

  override async alarm(): Promise<void> {
    this.agenda.clear();
    try {
      await this.wake();
    } catch (error) {
      // An alarm that fails too often is given up by the platform.
      console.error(error);
      this.agenda.wakeAt(clock.now() + LONGEST_RETRY_MS);
    }
  }

  override webSocketMessage(socket: WebSocket): void {
    socket.close(1008, "nothing is to be said here");
  }

  override webSocketClose(socket: WebSocket): void {
    socket.close();
  }

  private async wake(): Promise<void> {
    this.sweep();
    this.release(this.head(clock.now()));
    await this.tellDirectory();
    const { due, empty } = this.sweep();
    if (due !== null) this.agenda.wakeAt(due);
    if (this.stored && empty) {
      const removed = this.ctx.storage.deleteAll();
      this.stored = false;
      this.known = null;
      this.agenda.clear();
      this.release(null);
      await removed;
    }
  }

  private async apply(operation: string | undefined, name: string, body: Bytes): Promise<Bytes> {
    switch (operation) {
      case "read":
        return this.read(body);
      case "commit":
        return await this.commit(name, body);
      case "stage":
        return this.stage(body);
      case "delete":
        return await this.delete(body);
      default:
        throw new Refused("not_found", "a session has no such operation");
    }
  }

  private read(body: Bytes): Bytes {
    const reads = decodeReads(body);
    const now = clock.now();
    const head = this.head(now);
    const writer = new Writer();
    writer.arrayOf(4);
    writer.write(headFields(head));
    writer.write(now);
    writeRows(this.sql, writer, head, reads);
    writer.write(NONE);
    return writer.finish();
  }

  private async commit(name: string, bytes: Bytes): Promise<Bytes> {
    const commit = decodeCommit(bytes);
    const now = clock.now();
    const { before, state, body } = this.transact(() => {
      const before = buryExpired(this.sql, this.state() ?? unknownState(name), now);
      return { before, ...applyCommit(this.sql, before, commit, now) };
    });
    this.known = state;
    const expiresAt = state.head?.expiresAt ?? null;
    if (expiresAt !== null) this.agenda.wakeAt(expiresAt);
    await this.changed(before, state, now);
    return body;
  }

  private stage(body: Bytes): Bytes {
    const stage = decodeStage(body);
    const now = clock.now();
    this.transact(() => applyStage(this.sql, stage, now));
    this.agenda.wakeAt(now + STAGE_MS + 1);
    return encode(null);
  }

  private async delete(body: Bytes): Promise<Bytes> {
    const deletion = decodeDeletion(body);
    const now = clock.now();
    const found = this.state();
    if (!found) return encode(false);
    const { before, state, deleted } = this.transact(() => {
      const before = buryExpired(this.sql, found, now);
      return { before, ...applyDeletion(this.sql, before, deletion, now) };
    });
    this.known = state;
    await this.changed(before, state, now);
    return encode(deleted);
  }

  private wait(query: string, request: Request): Response {
    const { after, timeout } = decodeWait(query);
    if (request.headers.get("upgrade")?.toLowerCase() !== "websocket") {
      throw new Malformed("to wait is to upgrade to a WebSocket");
    }
    const { 0: client, 1: server } = new WebSocketPair();
    const now = clock.now();
    const head = this.head(now);
    const wait = { after, until: now + timeout };
    if (admit(this.ctx, server, head, wait, now)) {
      this.awaited = true;
      this.agenda.wakeAt(wait.until);
    }
    return new Response(null, { status: 101, webSocket: client });
  }

  /** Lets everyone know who must; nothing of it can fail. */
  private async changed(before: State, state: State, now: number): Promise<void> {
    if (state !== before) this.release(state.head);
    if (state.changed <= state.listed) return;
    this.agenda.wakeAt(now + RETRY_MS);
    const told = this.tellDirectory();
    const touched = before.head && state.head && before.head.labels === state.head.labels;
    if (touched) this.ctx.waitUntil(told);
    else await soon(told, DIRECTORY_MS);
  }

  /** Answers those who have waited for this head, or long enough. */
  private release(head: Head | null): void {
    if (!this.awaited) return;
    const next = release(this.ctx, head, clock.now());
    this.awaited = next !== null;
    if (next !== null) this.agenda.wakeAt(next);
  }

  /** Tells the directory what it does not know yet, one thing after another. */
  private tellDirectory(): Promise<void> {
    this.telling = this.telling.then(() => this.tellOnce());
    return this.telling;
  }

  private async tellOnce(): Promise<void> {
    const state = this.state();
    if (!state || state.changed <= state.listed) return;
    const { name, changed } = state;
    const head = presentHead(state, clock.now());
    const place = placeOfSession(name);
    const present = head && { recentAt: state.recentAt, labels: head.labels };
    try {
      const directory = directoryNamed(this.env, place.directory);
      await directory.record(place.directory, { name: place.name, changed, present });
    } catch {
      this.failures += 1;
      const pause = Math.min(RETRY_MS * 2 ** this.failures, LONGEST_RETRY_MS);
      this.agenda.wakeAt(clock.now() + pause);
      return;
    }
    this.failures = 0;
    const now = this.state();
    if (!now) return;
    this.sql.exec(LISTED, changed);
    this.known = { ...now, listed: Math.max(now.listed, changed) };
  }

  private sweep(): { due: number | null; empty: boolean } {
    const before = this.state();
    if (!this.stored) return { due: null, empty: false };
    const remains = this.transact(() => sweep(this.sql, before, clock.now()));
    this.known = remains.state;
    return remains;
  }

  private state(): State | null {
    if (this.known === undefined) this.known = this.stored ? load(this.sql) : null;
    return this.known;
  }

  private head(now: number): Head | null {
    return presentHead(this.state(), now);
  }

  /** Runs `change` whole or not at all, on tables that are there. Throws `Refused`. */
  private transact<T>(change: () => T): T {
    let result: T;
    try {
      result = this.ctx.storage.transactionSync(() => {
        if (!this.stored) createSchema(this.sql);
        return change();
      });
    } catch (error) {
      if (error instanceof Refused) throw error;
      console.error(error);
      throw new Refused("unavailable", "the object's database refused; nothing was written");
    }
    this.stored = true;
    return result;
  }
}

/** Waits for `promise`, but not for longer than `ms`. */
async function soon(promise: Promise<void>, ms: number): Promise<void> {
  const patience = new AbortController();
  const impatient = scheduler.wait(ms, { signal: patience.signal }).catch(() => undefined);
  await Promise.race([promise, impatient]);
  patience.abort();
}
