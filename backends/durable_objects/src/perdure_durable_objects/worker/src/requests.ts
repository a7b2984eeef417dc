/** The bodies of requests. What is decoded keeps every rule of the protocol. */

import { allDistinct, type Bytes, compareBytes } from "./bytes.ts";
import {
  APPENDED_BYTES,
  MAX_ADDEND,
  MAX_BOUND_BYTES,
  MAX_COMMIT_BYTES,
  MAX_COMMIT_ITEMS,
  MAX_CURSOR_BYTES,
  MAX_IDENTIFIER_BYTES,
  MAX_ITEM_BYTES,
  MAX_ITEM_KEY_BYTES,
  MAX_LABEL_BYTES,
  MAX_LABELS,
  MAX_META_BYTES,
  MAX_READS,
  MAX_WAIT_MS,
} from "./limits.ts";
import { decode, Malformed, type Message } from "./msgpack.ts";
import { bytesOf } from "./path.ts";
import { Refused } from "./refusals.ts";
import { binary, digest, flag, integer, list, name, optional, text, tuple } from "./shapes.ts";

export interface Scan {
  readonly start: Bytes;
  readonly stop: Bytes | null;
  readonly limit: number | null;
  readonly reverse: boolean;
  readonly since: number;
  readonly maxBytes: number | null;
}

/** Bytes: the item of exactly this key. */
export type Read = Bytes | Scan;

/** All keys from `start` on and below `stop`. */
export interface KeyRange {
  readonly start: Bytes;
  readonly stop: Bytes | null;
}

export interface Put {
  readonly key: Bytes;
  readonly value: Bytes;
}

export interface At {
  readonly version: number;
  readonly tip: Bytes;
}

export type Expect = "any" | "present" | "absent" | At;

export interface Commit {
  readonly id: Bytes;
  readonly digest: Bytes;
  readonly newIncarnation: Bytes;
  readonly restored: {
    readonly version: number;
    readonly createdAt: number;
    readonly updatedAt: number;
  } | null;
  readonly expect: Expect;
  readonly incarnation: Bytes | null;
  /** `key`: `null` for the session's meta. */
  readonly conditions: readonly { readonly key: Bytes | null; readonly version: number }[];
  readonly base: number;
  readonly resend: boolean;
  readonly seen: number | null;
  readonly deletes: readonly (Bytes | KeyRange)[];
  readonly puts: readonly Put[];
  readonly appends: readonly { readonly prefix: Bytes; readonly values: readonly Bytes[] }[];
  readonly stages: readonly Bytes[];
  readonly meta: Bytes | null;
  readonly labels: readonly string[] | null;
  /** 0: never. */
  readonly expiresAt: number | null;
  readonly expiresIn: number | null;
  readonly returning: readonly Read[];
}

export interface Stage {
  readonly incarnation: Bytes;
  readonly stage: Bytes;
  readonly puts: readonly Put[];
}

export interface Deletion {
  readonly id: Bytes;
  readonly expect: Expect;
  readonly incarnation: Bytes | null;
}

export interface ListQuery {
  readonly order: "id" | "recency";
  readonly prefix: string;
  readonly label: string | null;
  readonly limit: number;
  readonly cursor: string | null;
}

/** Of a head, what tells whether another differs from it. */
export interface Position {
  readonly version: number;
  readonly tip: Bytes;
  readonly incarnation: Bytes;
}

const EXPECTS = ["any", "present", "absent"] as const;

export function decodeReads(body: Bytes): Read[] {
  return reads(decode(body));
}

export function decodeCommit(body: Bytes): Commit {
  const fields = tuple(decode(body), 19);
  const commit: Commit = {
    id: id(fields[0]),
    digest: digest(fields[1], 8),
    newIncarnation: id(fields[2]),
    restored: optional(fields[3], restored),
    expect: expect(fields[4]),
    incarnation: optional(fields[5], id),
    conditions: list(fields[6]).map(condition),
    base: integer(fields[7]),
    resend: flag(fields[8]),
    seen: optional(fields[9], integer),
    deletes: list(fields[10]).map((item) => (Array.isArray(item) ? range(item) : itemKey(item))),
    puts: list(fields[11]).map(put),
    appends: list(fields[12]).map(append),
    stages: list(fields[13]).map(id),
    meta: optional(fields[14], (meta) => binary(meta, MAX_META_BYTES)),
    labels: optional(fields[15], labels),
    expiresAt: optional(fields[16], integer),
    expiresIn: optional(fields[17], (duration) => integer(duration, 1, MAX_ADDEND)),
    returning: reads(fields[18]),
  };
  check(commit.expiresAt === null || commit.expiresIn === null, "there are two expiries");
  if (commit.restored !== null) {
    const { expect, restored } = commit;
    const older = typeof expect === "object" && expect.version < restored.version;
    check(expect === "absent" || older, "who restores expects absence or a lower version");
  }
  check(allDistinct(commit.puts.map(({ key }) => key)), "a key is given twice");
  check(allDistinct(commit.appends.map(({ prefix }) => prefix)), "a prefix is given twice");
  check(allDistinct(commit.stages), "a stage is given twice");
  checkSize(commit);
  return commit;
}

export function decodeStage(body: Bytes): Stage {
  const fields = tuple(decode(body), 3);
  const puts = list(fields[2]).map(put);
  check(allDistinct(puts.map(({ key }) => key)), "a key is given twice");
  checkItems(puts.length, 0, puts);
  return { incarnation: id(fields[0]), stage: id(fields[1]), puts };
}

export function decodeDeletion(body: Bytes): Deletion {
  const fields = tuple(decode(body), 3);
  const expected = expect(fields[1]);
  check(expected !== "absent", "a session to be deleted is expected to be absent");
  return { id: id(fields[0]), expect: expected, incarnation: optional(fields[2], id) };
}

export function decodeList(body: Bytes): ListQuery {
  const fields = tuple(decode(body), 5);
  const order = (["id", "recency"] as const)[integer(fields[0])];
  if (!order) throw new Malformed("there is no such order");
  const prefix = text(fields[1], MAX_IDENTIFIER_BYTES);
  check(!prefix.includes("\0"), "a prefix holds NUL");
  check(prefix === "" || order === "id", "a prefix goes with the order by id only");
  return {
    order,
    prefix,
    label: optional(fields[2], label),
    limit: integer(fields[3], 1),
    cursor: optional(fields[4], cursor),
  };
}

/** The arguments of `tenants` and `kinds`. */
export function decodeNames(body: Bytes): { cursor: string | null; limit: number } {
  const fields = tuple(decode(body), 2);
  return { cursor: optional(fields[0], cursor), limit: integer(fields[1], 1) };
}

export function decodeSweep(body: Bytes): number {
  return integer(tuple(decode(body), 1)[0], 1);
}

/** The query of `wait`. */
export function decodeWait(query: string): { after: Position | null; timeout: number } {
  const match = /^after=([A-Za-z0-9_-]*)&timeout=(\d{1,9})$/.exec(query);
  if (!match) throw new Malformed("the query of wait is after=…&timeout=…");
  const after = optional(decode(bytesOf(match[1] ?? "")), (message) => {
    const fields = tuple(message, 3);
    return { version: integer(fields[0]), tip: id(fields[1]), incarnation: id(fields[2]) };
  });
  return { after, timeout: Math.min(Number(match[2]), MAX_WAIT_MS) };
}

function check(condition: boolean, complaint: string): void {
  if (!condition) throw new Malformed(complaint);
}

/** Throws `Refused` if the commit is more than this Worker takes. */
function checkSize({ conditions, deletes, puts, appends }: Commit): void {
  const appended = appends.reduce((sum, { values }) => sum + values.length, 0);
  const others = conditions.length + deletes.length;
  let size = 0;
  for (const { prefix, values } of appends) {
    for (const value of values) size += prefix.length + APPENDED_BYTES + checkValue(value);
  }
  checkItems(puts.length + appended + others, size, puts);
}

function checkItems(count: number, size: number, puts: readonly Put[]): void {
  if (count > MAX_COMMIT_ITEMS) {
    throw new Refused("too_large", `more than ${MAX_COMMIT_ITEMS} items at once`);
  }
  let total = size;
  for (const { key, value } of puts) total += key.length + checkValue(value);
  if (total > MAX_COMMIT_BYTES) {
    throw new Refused("too_large", `more than ${MAX_COMMIT_BYTES} bytes at once`);
  }
}

function checkValue(value: Bytes): number {
  if (value.length > MAX_ITEM_BYTES) {
    throw new Refused("too_large", `a value has more than ${MAX_ITEM_BYTES} bytes`);
  }
  return value.length;
}

function id(message: Message | undefined): Bytes {
  return digest(message, 16);
}

function itemKey(message: Message | undefined): Bytes {
  return binary(message, MAX_ITEM_KEY_BYTES);
}

function bound(message: Message | undefined): Bytes {
  return binary(message, MAX_BOUND_BYTES);
}

function label(message: Message | undefined): string {
  return name(message, MAX_LABEL_BYTES);
}

function cursor(message: Message | undefined): string {
  return text(message, MAX_CURSOR_BYTES);
}

function labels(message: Message | undefined): string[] {
  const found = list(message).map(label);
  check(found.length <= MAX_LABELS, `there are more than ${MAX_LABELS} labels`);
  check(new Set(found).size === found.length, "a label is given twice");
  return found;
}

function restored(message: Message | undefined): NonNullable<Commit["restored"]> {
  const fields = tuple(message, 3);
  return {
    version: integer(fields[0], 1, MAX_ADDEND),
    createdAt: integer(fields[1]),
    updatedAt: integer(fields[2]),
  };
}

function expect(message: Message | undefined): Expect {
  if (Array.isArray(message)) {
    const fields = tuple(message, 2);
    return { version: integer(fields[0]), tip: id(fields[1]) };
  }
  const expected = EXPECTS[integer(message)];
  if (!expected) throw new Malformed("there is no such expectation");
  return expected;
}

function condition(message: Message): Commit["conditions"][number] {
  const fields = tuple(message, 2);
  return { key: optional(fields[0], itemKey), version: integer(fields[1]) };
}

function range(message: Message): KeyRange {
  const fields = tuple(message, 2);
  const start = bound(fields[0]);
  const stop = optional(fields[1], bound);
  check(stop === null || compareBytes(start, stop) <= 0, "a range stops before it starts");
  return { start, stop };
}

function put(message: Message): Put {
  const fields = tuple(message, 2);
  return { key: itemKey(fields[0]), value: binary(fields[1]) };
}

function append(message: Message): Commit["appends"][number] {
  const fields = tuple(message, 2);
  return {
    prefix: binary(fields[0], MAX_ITEM_KEY_BYTES - APPENDED_BYTES),
    values: list(fields[1]).map((value) => binary(value)),
  };
}

function reads(message: Message | undefined): Read[] {
  const found = list(message);
  if (found.length > MAX_READS) throw new Refused("too_large", `more than ${MAX_READS} reads`);
  return found.map(read);
}

function read(message: Message): Read {
  if (!Array.isArray(message)) return itemKey(message);
  const fields = tuple(message, 6);
  return {
    start: bound(fields[0]),
    stop: optional(fields[1], bound),
    limit: optional(fields[2], (limit) => integer(limit, 1)),
    reverse: flag(fields[3]),
    since: integer(fields[4]),
    maxBytes: optional(fields[5], integer),
  };
}
