/** Tests of the Worker's parts. `workerd test` calls each of the exports. */

import assert from "node:assert/strict";

import vectors from "../../../golden/protocol.json";
import {
  claimOf,
  type Keys,
  parseKeys,
  verify,
} from "worker/auth.ts";
import {
  compareBytes,
  prefixStop,
} from "worker/bytes.ts";
import { clock } from "worker/clock.ts";
import {
  placeOfDirectory,
  placeOfSession,
  shardOf,
  SHARDS,
} from "worker/directory/names.ts";
import type { Env } from "worker/env.ts";
import { respond } from "worker/front.ts";
import { boundsOf } from "worker/listing.ts";
import {
  decode,
  encode,
  Malformed,
  MAX_DEPTH,
  MAX_VALUES,
  type Writable,
} from "worker/msgpack.ts";
import {
  identifierOf,
  partOf,
  route,
} from "worker/path.ts";
import {
  type Code,
  Refused,
  refusal,
} from "worker/refusals.ts";
import * as requests from "worker/requests.ts";
import { appendKey } from "worker/session/commit.ts";

/** A value as the vectors have it: see tests/golden/test_protocol.py. */
type Tagged = null | boolean | number | string | Tagged[] | { bin: string } | { map: object };

const encoder = new TextEncoder();
const SECRET = "0123456789abcdef0123456789abcdef";

function test(body: () => void | Promise<void>): { test(): void | Promise<void> } {
  return { test: body };
}

function fromHex(text: string): Uint8Array {
  return Uint8Array.from(text.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
}

function toHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function untagged(value: Tagged): Writable {
  if (Array.isArray(value)) return value.map(untagged);
  if (typeof value !== "object" || value === null) return value;
  if ("bin" in value) return fromHex(value.bin);
  const members = Object.entries(value.map) as [string, Tagged][];
  return Object.fromEntries(members.map(([name, member]) => [name, untagged(member)]));
}

function refused(code: Code): (error: unknown) => boolean {
  return (error) => error instanceof Refused && error.code === code;
}

function isMalformed(error: unknown): boolean {
  return error instanceof Malformed || (error instanceof Refused && error.code === "invalid");
}

const DECODERS: Record<string, (body: Uint8Array) => unknown> = {
  read: requests.decodeReads,
  commit: requests.decodeCommit,
  stage: requests.decodeStage,
  delete: requests.decodeDeletion,
  list: requests.decodeList,
  kinds: requests.decodeNames,
  tenants: requests.decodeNames,
  sweep: requests.decodeSweep,
};

function decoder(operation: string): (body: Uint8Array) => unknown {
  const found = DECODERS[operation];
  assert.ok(found, operation);
  return found;
}

export const pathsAreRouted = test(() => {
  for (const { operation, scope, method, path } of vectors.paths) {
    const found = route(method, path);
    assert.equal(found.operation, operation);
    assert.deepEqual(found.scope.map(identifierOf), scope);
    for (const [n, part] of scope.entries()) {
      assert.equal(partOf(encoder.encode(part)), found.scope[n]);
    }
  }
});

export const badPathsAreRefused = test(() => {
  for (const { method, path, code } of vectors.bad_paths) {
    assert.throws(() => route(method, path), refused(code as Code), `${method} ${path}`);
  }
});

export const waitsAreRead = test(() => {
  for (const { after, timeout, query } of vectors.waits) {
    const found = requests.decodeWait(query);
    assert.equal(found.timeout, timeout);
    const position = found.after;
    const fields = position && [position.version, position.tip, position.incarnation];
    assert.deepEqual(fields, untagged(after as Tagged));
  }
  for (const query of ["", "after=wA", "timeout=1&after=wA", "after=wA&timeout=-1", "after=w&timeout=1"]) {
    assert.throws(() => requests.decodeWait(query), isMalformed, query);
  }
});

export const requestsAreRead = test(() => {
  for (const { name, operation, value, body } of vectors.requests) {
    const bytes = fromHex(body);
    assert.deepEqual(decode(bytes), untagged(value as Tagged), name);
    decoder(operation)(bytes);
  }
});

export const aCommitHasAllItsFields = test(() => {
  const vector = vectors.requests.find(({ name }) => name === "everything");
  assert.ok(vector);
  const commit = requests.decodeCommit(fromHex(vector.body));
  const [id, digest, , , , incarnation] = vector.value as { bin: string }[];
  assert.equal(toHex(commit.id), id?.bin);
  assert.equal(toHex(commit.digest), digest?.bin);
  assert.equal(commit.incarnation && toHex(commit.incarnation), incarnation?.bin);
  assert.equal(commit.resend, true);
  assert.equal(commit.expiresIn, 3600_000);
  assert.deepEqual(commit.labels, ["müde", "vip"]);
  assert.deepEqual(commit.conditions[1], { key: null, version: 0 });
  assert.equal(commit.returning.length, 2);
});

export const badRequestsAreMalformed = test(() => {
  for (const { operation, body, why } of vectors.bad_requests) {
    assert.throws(() => decoder(operation)(fromHex(body)), isMalformed, `${operation}: ${why}`);
  }
});

export const answersAreWrittenAsOthersDo = test(() => {
  for (const { name, value, body } of vectors.answers) {
    assert.equal(toHex(encode(untagged(value as Tagged))), body, name);
  }
});

export const errorsHaveTheirStatus = test(async () => {
  for (const { status, value, body } of vectors.errors) {
    const [code, message, head, now, rows] = value as Tagged[];
    assert.equal(toHex(encode(untagged(value as Tagged))), body);
    const fields = [head, rows].map((field) => untagged(field as Tagged));
    if (!["unsupported", "broken"].includes(code as string)) {
      const error = new Refused(code as Code, message as string, fields[0], fields[1]);
      const response = refusal(error);
      assert.equal(response.status, status, code as string);
      const sent = decode(new Uint8Array(await response.arrayBuffer())) as unknown[];
      assert.deepEqual(sent.toSpliced(3, 1), [code, message, ...fields]);
      assert.ok(Math.abs((sent[3] as number) - Date.now()) < 10_000, String(now));
    }
  }
});

export const nothingElseIsMessagePack = test(() => {
  const bad = {
    nothing: "",
    "an unused type": "c1",
    "a float": "ca3f800000",
    "a double": "cb3ff0000000000000",
    "a negative integer": "ff",
    "a negative integer of a signed type": "d0ff",
    "a map": "80",
    "a long map": "de0000",
    "an extension": "d40000",
    "2^53": "cf0020000000000000",
    "a text that ends early": "a561",
    "a binary that ends early": "c6ffffffff00",
    "an array longer than the message": "ddffffffff",
    "two messages": "c0c0",
    "no UTF-8": "a1ff",
    "a surrogate": "a3eda080",
    "nesting that is too deep": "91".repeat(MAX_DEPTH + 1) + "c0",
  };
  for (const [why, hex] of Object.entries(bad)) {
    assert.throws(() => decode(fromHex(hex)), Malformed, why);
  }
  decode(fromHex(`${"91".repeat(MAX_DEPTH)}c0`));
  const many = (length: number) => encode(Array(length).fill(null));
  decode(many(MAX_VALUES));
  assert.throws(() => decode(many(MAX_VALUES + 1)), Malformed);
});

export const everyLengthComesBack = test(() => {
  for (const length of [0, 1, 15, 16, 31, 32, 255, 256, 65535, 65536]) {
    for (const value of ["x".repeat(length), new Uint8Array(length).fill(7), Array(length).fill(1)]) {
      assert.deepEqual(decode(encode(value)), value);
    }
  }
  for (const value of [0, 127, 128, 255, 256, 65535, 65536, 2 ** 32 - 1, 2 ** 32, 2 ** 53 - 1]) {
    assert.equal(decode(encode(value)), value);
  }
  for (const value of [-1, 0.5, 2 ** 53, Number.NaN]) assert.throws(() => encode(value), RangeError);
});

export const namesOfMembersAreNothingSpecial = test(() => {
  assert.deepEqual(decode(encode(["__proto__", "constructor"])), ["__proto__", "constructor"]);
  const keys = '[{"id":"a","secret":"' + SECRET + '","__proto__":{"tenants":null}}]';
  assert.throws(() => parseKeys(keys), refused("unavailable"));
});

export const withoutGoodKeysNobodyIsServed = test(() => {
  const key = { id: "a", secret: SECRET };
  const bad = [
    undefined,
    "",
    " ",
    "[]",
    "{}",
    "null",
    "not JSON",
    JSON.stringify([key, key]),
    JSON.stringify([[]]),
    JSON.stringify([null]),
    JSON.stringify([{ ...key, secret: SECRET.slice(1) }]),
    JSON.stringify([{ ...key, secret: `${SECRET} ` }]),
    JSON.stringify([{ ...key, secret: 5 }]),
    JSON.stringify([{ ...key, id: "" }]),
    JSON.stringify([{ ...key, id: "a.b" }]),
    JSON.stringify([{ ...key, mode: "none" }]),
    JSON.stringify([{ ...key, tenants: "acme" }]),
    JSON.stringify([{ ...key, tenants: [1] }]),
    JSON.stringify([{ ...key, tenant: ["acme"] }]),
  ];
  for (const text of bad) {
    assert.throws(() => parseKeys(text), refused("unavailable"), text);
    assert.throws(() => parseKeys(text), ({ message }: Error) => !message.includes(SECRET.slice(1)));
  }
});

function keysOf(...keys: object[]): Keys {
  return parseKeys(JSON.stringify(keys));
}

export const bearersAreKnown = test(() => {
  for (const { id, secret, authorization } of vectors.bearers) {
    const claim = claimOf(keysOf({ id, secret }), authorization);
    assert.equal(claim.key.id, id);
    assert.equal(claim.signed, null);
  }
});

export const othersAreNot = test(() => {
  const keys = keysOf({ id: "a", secret: SECRET }, { id: "s", secret: SECRET, mode: "hmac" });
  const other = SECRET.replace("f", "e");
  const bad = [
    null,
    "",
    SECRET,
    `Bearer ${SECRET}`,
    `Bearer a.${other}`,
    `Bearer a.${SECRET}0`,
    `Bearer a.${SECRET.slice(1)}`,
    `Bearer b.${SECRET}`,
    `Bearer b.`,
    `Bearer s.${SECRET}`,
    `bearer a.${SECRET}`,
    `Bearer a.${SECRET} `,
    `Basic a.${SECRET}`,
    `Perdure-HMAC-SHA256 a:${Date.now()}:${"0".repeat(64)}`,
    `Perdure-HMAC-SHA256 b:${Date.now()}:${"0".repeat(64)}`,
    `Perdure-HMAC-SHA256 s:${Date.now()}:${"0".repeat(63)}`,
  ];
  for (const authorization of bad) {
    assert.throws(() => claimOf(keys, authorization), refused("unauthorized"), String(authorization));
  }
});

export const signaturesAreVerified = test(async () => {
  const { now } = clock;
  try {
    for (const { id, secret, method, target, time, body, authorization } of vectors.signatures) {
      clock.now = () => time;
      const keys = keysOf({ id, secret, mode: "hmac" });
      const claim = claimOf(keys, authorization);
      const bytes = fromHex(body);
      await verify(claim, method, target, bytes);
      const others: [string, string, Uint8Array][] = [
        ["PUT", target, bytes],
        [method, `${target}x`, bytes],
        [method, target, encode(body)],
      ];
      for (const other of others) {
        await assert.rejects(verify(claim, ...other), refused("unauthorized"));
      }
      const later = authorization.replace(`:${time}:`, `:${time + 1}:`);
      await assert.rejects(
        verify(claimOf(keys, later), method, target, bytes),
        refused("unauthorized"),
      );
      for (const [skew, code] of [[300_000, null], [300_001, "clock_skew"], [-300_001, "clock_skew"]] as const) {
        clock.now = () => time + skew;
        if (code) assert.throws(() => claimOf(keys, authorization), refused(code));
        else claimOf(keys, authorization);
      }
    }
  } finally {
    clock.now = now;
  }
});

export const bytesHaveAnOrder = test(() => {
  const ordered = ["", "00", "0000", "01", "7f", "80", "ff", "ff00", "ffff"].map(fromHex);
  for (const [n, a] of ordered.entries()) {
    for (const [m, b] of ordered.entries()) {
      assert.equal(Math.sign(compareBytes(a, b)), Math.sign(n - m));
    }
  }
});

export const aPrefixHasAnEnd = test(() => {
  const ends = { "": null, ff: null, "61": "62", "61ff": "62", "61fffe": "61ffff" };
  for (const [prefix, end] of Object.entries(ends)) {
    const stop = prefixStop(fromHex(prefix));
    assert.equal(stop && toHex(stop), end);
  }
});

export const cursorsGoOnBehindWhatTheyName = test(() => {
  const query = { order: "id", prefix: "b", label: null, limit: 1, cursor: null } as const;
  const hex = (bounds: unknown) => Object.values(bounds as Record<string, Uint8Array>).map(toHex);
  assert.deepEqual(hex(boundsOf(query, null)), ["62", "63"]);
  assert.deepEqual(hex(boundsOf(query, "a")), ["62", "63"]);
  assert.deepEqual(hex(boundsOf(query, "bb")), ["626200", "63"]);
  const recent = { ...query, order: "recency", prefix: "" } as const;
  assert.deepEqual(boundsOf(recent, "12 a b"), { recentAt: 12, name: encoder.encode("a b") });
  for (const cursor of ["", "x", "12", "-1 a", "1e3 a"]) {
    assert.throws(() => boundsOf(recent, cursor), Malformed, cursor);
  }
});

export const appendedKeysAreBigEndian = test(() => {
  const key = appendKey(encoder.encode("l"), 2 ** 40 + 2, 3);
  assert.equal(toHex(key), `6c${"0000010000000002"}${"00000003"}`);
});

export const sessionsSpreadOverShards = test(() => {
  const counts = Array<number>(SHARDS).fill(0);
  for (let n = 0; n < 8000; n += 1) {
    const shard = shardOf(encoder.encode(`session-${n}`));
    counts[shard] = (counts[shard] ?? 0) + 1;
  }
  for (const count of counts) assert.ok(count > 850 && count < 1150, String(counts));
});

export const directoriesAreKnownAbove = test(() => {
  const session = placeOfSession("dA/aw/aWQ");
  assert.match(session.directory, /^dA\/aw\/[0-7]$/);
  assert.equal(toHex(session.name), toHex(encoder.encode("id")));
  const kind = placeOfDirectory("dA/aw/3");
  assert.deepEqual(kind, { directory: "dA", name: encoder.encode("k\u00003") });
  const tenant = placeOfDirectory("dA");
  assert.match(tenant?.directory ?? "", /^:[0-7]$/);
  assert.deepEqual(tenant?.name, encoder.encode("t\0"));
  assert.equal(placeOfDirectory(":3"), null);
});

/** The answer of the Worker whose objects fail with `error`, which the platform makes. */
async function answerAfter(error: Error, operation: string): Promise<[number, string, string | null]> {
  const object = { fetch: () => Promise.reject(error) };
  const env = {
    PERDURE_KEYS: JSON.stringify([{ id: "a", secret: SECRET }]),
    SESSIONS: { idFromName: () => null, get: () => object },
  } as unknown as Env;
  const request = new Request(`https://worker/v1/dA/aw/aWQ/${operation}`, {
    method: "POST",
    headers: { authorization: `Bearer a.${SECRET}`, "content-length": "1" },
    body: "x",
  });
  const response = await respond(request, env, {} as ExecutionContext);
  const body = new Uint8Array(await response.arrayBuffer());
  assert.ok(!new TextDecoder().decode(body).includes(error.message));
  const [code] = decode(body) as string[];
  return [response.status, code ?? "", response.headers.get("retry-after")];
}

export const overloadIsPassedOn = test(async () => {
  const overloaded = Object.assign(new Error("secret details"), { overloaded: true });
  for (const operation of ["read", "commit", "stage", "delete"]) {
    assert.deepEqual(await answerAfter(overloaded, operation), [503, "overloaded", "1"]);
  }
});

export const otherFailuresLeaveWritesUnknown = test(async () => {
  const lost = Object.assign(new Error("secret details"), { retryable: true });
  assert.deepEqual(await answerAfter(lost, "read"), [503, "unavailable", null]);
  for (const operation of ["commit", "stage", "delete"]) {
    assert.deepEqual(await answerAfter(lost, operation), [500, "unknown", null]);
  }
});
