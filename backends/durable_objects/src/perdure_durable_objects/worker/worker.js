// src/clock.ts
var clock = {
  now: () => Date.now(),
  /** When, in the time that alarms are set by, `now` will be `at`; and the inverse. */
  toAlarm: (at) => at,
  fromAlarm: (time) => time
};

// src/msgpack.ts
var Encoded = class {
  constructor(bytes) {
    this.bytes = bytes;
  }
  bytes;
};
var MAX_DEPTH = 8;
var MAX_VALUES = 25e4;
var Malformed = class extends Error {
};
var utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
var encoder = new TextEncoder();
function decode(bytes) {
  const reader = new Reader(bytes);
  const message = reader.read(0);
  if (!reader.ended) throw new Malformed("there are bytes behind the message");
  return message;
}
function textOf(bytes) {
  try {
    return utf8.decode(bytes);
  } catch {
    throw new Malformed("a text is not UTF-8");
  }
}
var Reader = class {
  constructor(bytes) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }
  bytes;
  view;
  at = 0;
  values = 0;
  get ended() {
    return this.at === this.bytes.length;
  }
  read(depth) {
    const type = this.unsigned(1);
    if (type < 128) return type;
    if (type >= 144 && type < 160) return this.array(type - 144, depth);
    if (type >= 160 && type < 192) return textOf(this.take(type - 160));
    switch (type) {
      case 192:
        return null;
      case 194:
        return false;
      case 195:
        return true;
      case 196:
        return this.take(this.unsigned(1));
      case 197:
        return this.take(this.unsigned(2));
      case 198:
        return this.take(this.unsigned(4));
      case 204:
        return this.unsigned(1);
      case 205:
        return this.unsigned(2);
      case 206:
        return this.unsigned(4);
      case 207:
        return this.integer();
      case 208:
        return this.positive(1);
      case 209:
        return this.positive(2);
      case 210:
        return this.positive(4);
      case 211:
        return this.integer();
      case 217:
        return textOf(this.take(this.unsigned(1)));
      case 218:
        return textOf(this.take(this.unsigned(2)));
      case 219:
        return textOf(this.take(this.unsigned(4)));
      case 220:
        return this.array(this.unsigned(2), depth);
      case 221:
        return this.array(this.unsigned(4), depth);
      default:
        throw new Malformed("a value is of a type that the protocol does not use");
    }
  }
  need(length) {
    if (length > this.bytes.length - this.at) throw new Malformed("the message is cut short");
  }
  unsigned(length) {
    this.need(length);
    const at = this.at;
    this.at += length;
    if (length === 1) return this.view.getUint8(at);
    return length === 2 ? this.view.getUint16(at) : this.view.getUint32(at);
  }
  /** An integer of a signed type. */
  positive(length) {
    const value = this.unsigned(length);
    if (value >= 2 ** (8 * length - 1)) throw new Malformed("an integer is below 0");
    return value;
  }
  integer() {
    const value = this.unsigned(4) * 2 ** 32 + this.unsigned(4);
    if (!Number.isSafeInteger(value)) throw new Malformed("an integer is not from 0 to 2^53 - 1");
    return value;
  }
  take(length) {
    this.need(length);
    this.at += length;
    return this.bytes.subarray(this.at - length, this.at);
  }
  array(length, depth) {
    if (depth >= MAX_DEPTH) throw new Malformed("arrays are nested too deep");
    this.need(length);
    this.values += length;
    if (this.values > MAX_VALUES) throw new Malformed(`there are more than ${MAX_VALUES} values`);
    const items = [];
    for (let n = 0; n < length; n += 1) items.push(this.read(depth + 1));
    return items;
  }
};
function encode(value) {
  const writer = new Writer();
  writer.write(value);
  return writer.finish();
}
var Writer = class {
  bytes = new Uint8Array(1024);
  view = new DataView(this.bytes.buffer);
  at = 0;
  finish() {
    return this.bytes.subarray(0, this.at);
  }
  write(value) {
    if (value === null) this.byte(192);
    else if (typeof value === "boolean") this.byte(value ? 195 : 194);
    else if (typeof value === "number") this.integer(value);
    else if (typeof value === "string") this.text(value);
    else if (value instanceof Uint8Array) this.binary(value);
    else if (value instanceof ArrayBuffer) this.binary(new Uint8Array(value));
    else if (value instanceof Encoded) this.append(value.bytes);
    else if (isArray(value)) {
      this.arrayOf(value.length);
      for (const item of value) this.write(item);
    } else {
      const entries = Object.entries(value);
      if (entries.length > 15) throw new RangeError("a map of more than 15 members");
      this.byte(128 + entries.length);
      for (const [name2, member] of entries) {
        this.text(name2);
        this.write(member);
      }
    }
  }
  /** Begins an array; its `length` values follow. */
  arrayOf(length) {
    if (length < 16) this.byte(144 + length);
    else if (length < 65536) this.sized(220, 2, length);
    else this.sized(221, 4, length);
  }
  integer(value) {
    if (!Number.isSafeInteger(value) || value < 0) throw new RangeError("not an integer to send");
    if (value < 128) this.byte(value);
    else if (value < 256) this.sized(204, 1, value);
    else if (value < 65536) this.sized(205, 2, value);
    else if (value < 2 ** 32) this.sized(206, 4, value);
    else {
      this.reserve(9);
      this.view.setUint8(this.at, 207);
      this.view.setUint32(this.at + 1, Math.floor(value / 2 ** 32));
      this.view.setUint32(this.at + 5, value % 2 ** 32);
      this.at += 9;
    }
  }
  text(value) {
    const bytes = encoder.encode(value);
    const length = bytes.length;
    if (length < 32) this.byte(160 + length);
    else if (length < 256) this.sized(217, 1, length);
    else if (length < 65536) this.sized(218, 2, length);
    else this.sized(219, 4, length);
    this.append(bytes);
  }
  binary(bytes) {
    const length = bytes.length;
    if (length < 256) this.sized(196, 1, length);
    else if (length < 65536) this.sized(197, 2, length);
    else this.sized(198, 4, length);
    this.append(bytes);
  }
  byte(value) {
    this.reserve(1);
    this.bytes[this.at] = value;
    this.at += 1;
  }
  sized(type, length, value) {
    this.reserve(1 + length);
    this.view.setUint8(this.at, type);
    if (length === 1) this.view.setUint8(this.at + 1, value);
    else if (length === 2) this.view.setUint16(this.at + 1, value);
    else this.view.setUint32(this.at + 1, value);
    this.at += 1 + length;
  }
  append(bytes) {
    this.reserve(bytes.length);
    this.bytes.set(bytes, this.at);
    this.at += bytes.length;
  }
  /** Makes room for so many bytes at once: to grow copies what is written. */
  reserve(length) {
    if (this.at + length <= this.bytes.length) return;
    const grown = new Uint8Array(Math.max(2 * this.bytes.length, this.at + length));
    grown.set(this.bytes.subarray(0, this.at));
    this.bytes = grown;
    this.view = new DataView(grown.buffer);
  }
};
function isArray(value) {
  return Array.isArray(value);
}

// src/refusals.ts
var STATUS = {
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
  format_too_new: 500
};
var RETRY_AFTER = "1";
var Refused = class extends Error {
  constructor(code, message, head = null, rows = []) {
    super(message);
    this.code = code;
    this.head = head;
    this.rows = rows;
  }
  code;
  head;
  rows;
};
function answerTo(error) {
  if (error instanceof Malformed) return refusal(new Refused("invalid", error.message));
  if (error instanceof Refused) return refusal(error);
  throw error;
}
function refusal({ code, message, head, rows }) {
  const now = clock.now();
  const headers = new Headers({ "content-type": "application/msgpack" });
  headers.set("date", new Date(now).toUTCString());
  if (code === "overloaded") headers.set("retry-after", RETRY_AFTER);
  if (code === "unauthorized") headers.set("www-authenticate", "Bearer, Perdure-HMAC-SHA256");
  return new Response(encode([code, message, head, now, rows]), { status: STATUS[code], headers });
}
function answer(body) {
  return new Response(body, { headers: { "content-type": "application/msgpack" } });
}

// src/auth.ts
var SIGNATURE_WINDOW_MS = 3e5;
var MIN_SECRET_CHARACTERS = 32;
var BEARER = /^Bearer ([A-Za-z0-9_-]{1,64})\.([!-~]{1,512})$/;
var SIGNED = /^Perdure-HMAC-SHA256 ([A-Za-z0-9_-]{1,64}):(\d{1,15}):([0-9a-f]{64})$/;
var KEY_ID = /^[A-Za-z0-9_-]{1,64}$/;
var SECRET = new RegExp(`^[!-~]{${MIN_SECRET_CHARACTERS},512}$`);
var encoder2 = new TextEncoder();
function parseKeys(text2) {
  if (!text2?.trim()) {
    throw new Refused("unavailable", "no secret is set on this server: it serves nobody");
  }
  const keys = /* @__PURE__ */ new Map();
  for (const entry of listOf(text2)) {
    const key = keyOf(entry);
    if (!key || keys.has(key.id)) throw malformedKeys();
    keys.set(key.id, key);
  }
  if (keys.size === 0) throw malformedKeys();
  return keys;
}
function listOf(text2) {
  try {
    const list2 = JSON.parse(text2);
    if (Array.isArray(list2)) return list2;
  } catch {
  }
  throw malformedKeys();
}
function keyOf(entry) {
  if (typeof entry !== "object" || entry === null || Array.isArray(entry)) return null;
  const members = new Map(Object.entries(entry));
  const id2 = members.get("id");
  const secret = members.get("secret");
  const tenants = members.get("tenants") ?? null;
  const mode = members.get("mode") ?? "bearer";
  for (const name2 of members.keys()) {
    if (!["id", "secret", "tenants", "mode"].includes(name2)) return null;
  }
  if (typeof id2 !== "string" || !KEY_ID.test(id2)) return null;
  if (typeof secret !== "string" || !SECRET.test(secret)) return null;
  if (mode !== "bearer" && mode !== "hmac") return null;
  if (tenants !== null && !isTexts(tenants)) return null;
  return { id: id2, secret, tenants: tenants && new Set(tenants), mode };
}
function isTexts(value) {
  return Array.isArray(value) && value.every((member) => typeof member === "string");
}
function malformedKeys() {
  return new Refused("unavailable", "PERDURE_KEYS is not a list of keys: this serves nobody");
}
function claimOf(keys, authorization) {
  const bearer = BEARER.exec(authorization ?? "");
  if (bearer) {
    const key2 = keys.get(bearer[1] ?? "");
    const sent = encoder2.encode(bearer[2]);
    const expected = encoder2.encode(key2?.mode === "bearer" ? key2.secret : "");
    if (sameBytes(sent, expected) && key2?.mode === "bearer") return { key: key2, signed: null };
  }
  const signed = SIGNED.exec(authorization ?? "");
  const key = keys.get(signed?.[1] ?? "");
  if (signed && key?.mode === "hmac") {
    const time = Number(signed[2]);
    const now = clock.now();
    if (Math.abs(time - now) > SIGNATURE_WINDOW_MS) {
      throw new Refused(
        "clock_skew",
        `signed at ${time}, but the server's clock says ${now} (ms since the epoch); they may differ by ${SIGNATURE_WINDOW_MS / 1e3} s`
      );
    }
    return { key, signed: { time, signature: fromHex(signed[3] ?? "") } };
  }
  throw unauthorized();
}
async function verify({ key, signed }, method, target, body) {
  if (!signed) return;
  const digest2 = toHex(await sha256(body));
  const content = `perdure1
${method}
${target}
${signed.time}
${digest2}`;
  const algorithm = { name: "HMAC", hash: "SHA-256" };
  const secret = encoder2.encode(key.secret);
  const hmac = await crypto.subtle.importKey("raw", secret, algorithm, false, ["sign"]);
  const expected = await crypto.subtle.sign("HMAC", hmac, encoder2.encode(content));
  if (!sameBytes(new Uint8Array(expected), signed.signature)) throw unauthorized();
}
function unauthorized() {
  return new Refused(
    "unauthorized",
    "the key is not known here, not of this mode, or its secret is another"
  );
}
async function sha256(bytes) {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
}
function sameBytes(sent, expected) {
  const same = sent.length === expected.length;
  return crypto.subtle.timingSafeEqual(sent, same ? expected : sent) && same;
}
function fromHex(text2) {
  return Uint8Array.from(text2.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
}
function toHex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// src/bytes.ts
var NONE = new Uint8Array(0);
function sameBytes2(a, b) {
  return a.length === b.length && compareBytes(a, b) === 0;
}
function compareBytes(a, b) {
  const length = Math.min(a.length, b.length);
  for (let n = 0; n < length; n += 1) {
    const difference = (a[n] ?? 0) - (b[n] ?? 0);
    if (difference !== 0) return difference;
  }
  return a.length - b.length;
}
function joinBytes(a, b) {
  const joined = new Uint8Array(a.length + b.length);
  joined.set(a);
  joined.set(b, a.length);
  return joined;
}
function writeInteger(into, at, length, value) {
  let rest = value;
  for (let n = at + length - 1; n >= at; n -= 1) {
    into[n] = rest % 256;
    rest = Math.floor(rest / 256);
  }
}
function readInteger(from, at, length) {
  let value = 0;
  for (let n = at; n < at + length; n += 1) value = value * 256 + (from[n] ?? 0);
  return value;
}
function textKey(bytes) {
  return String.fromCharCode(...bytes);
}
function allDistinct(names) {
  return names.length < 2 || new Set(names.map(textKey)).size === names.length;
}
function prefixStop(prefix) {
  let length = prefix.length;
  while (length > 0 && prefix[length - 1] === 255) length -= 1;
  if (length === 0) return null;
  const stop = prefix.slice(0, length);
  stop[length - 1] = (stop[length - 1] ?? 0) + 1;
  return stop;
}

// src/limits.ts
var VERSION = 1;
var SOFTWARE = "perdure-worker/0.1.0";
var MAX_BODY_BYTES = 32 * 2 ** 20;
var MAX_IDENTIFIER_BYTES = 512;
var MAX_ITEM_KEY_BYTES = 512;
var APPENDED_BYTES = 12;
var MAX_BOUND_BYTES = 1024;
var MAX_META_BYTES = 4096;
var MAX_LABELS = 4;
var MAX_LABEL_BYTES = 128;
var MAX_CURSOR_BYTES = 4096;
var MAX_ADDEND = 2 ** 52;
var MAX_WAIT_MS = 36e5;
var MAX_ITEM_BYTES = 199e4;
var MAX_COMMIT_BYTES = 8 * 2 ** 20;
var MAX_COMMIT_ITEMS = 1e4;
var MAX_READ_BYTES = 8 * 2 ** 20;
var MAX_ANSWER_BYTES = 24 * 2 ** 20;
var MAX_READS = 1e3;
var REMEMBERED_COMMITS = 64;
var TOMBSTONE_MS = 24 * 36e5;
var LIFE_MS = TOMBSTONE_MS + 6e5;
var STAGE_MS = 24 * 36e5 + 6e5;
var CLOCK_STEP_MS = 1e3;
var RECENCY_LAG_MS = 6e4;
var LIST_LAG_MS = 2e3;
var MAX_PAGE = 200;

// src/hello.ts
var REPLICATED = "An acknowledged commit is stored by Cloudflare in several places, and outlives the loss of one.";
var PROCESS = "An acknowledged commit survives the death of workerd; a power loss only as far as its files do.";
function hello({ PERDURE_LOCAL: local }) {
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
      durability_note: note
    },
    description: {
      backend: "durable-objects",
      location: local || "Cloudflare Durable Objects",
      durability: note,
      details: { runtime: navigator.userAgent }
    }
  });
}

// src/path.ts
var OPERATIONS = [
  /* @__PURE__ */ new Map(),
  /* @__PURE__ */ new Map([
    ["tenants", "POST"],
    ["sweep", "POST"]
  ]),
  /* @__PURE__ */ new Map([["kinds", "POST"]]),
  /* @__PURE__ */ new Map([["list", "POST"]]),
  /* @__PURE__ */ new Map([
    ["read", "POST"],
    ["commit", "POST"],
    ["stage", "POST"],
    ["delete", "POST"],
    ["wait", "GET"]
  ])
];
function writes(operation) {
  return operation === "commit" || operation === "stage" || operation === "delete";
}
function targetOf(url) {
  const target = url.slice(url.indexOf("/", url.indexOf("//") + 2));
  const end = target.indexOf("?");
  if (end < 0) return { path: target, query: "", target };
  return { path: target.slice(0, end), query: target.slice(end + 1), target };
}
function route(method, path) {
  const versioned = /^\/v(\d{1,9})(?:\/|$)/.exec(path);
  if (versioned && Number(versioned[1]) !== VERSION) {
    throw new Refused(
      "unsupported_version",
      `this server speaks version ${VERSION} of the protocol, not ${Number(versioned[1])}`
    );
  }
  if (path === `/v${VERSION}` && method === "GET") return { operation: "hello", scope: [] };
  const parts = path.split("/").slice(2);
  const last = parts.pop() ?? "";
  if (!versioned || OPERATIONS[parts.length + 1]?.get(last) !== method) {
    throw new Refused("not_found", "the protocol has no such method and path");
  }
  for (const part of parts) identifierOf(part);
  return { operation: last, scope: parts };
}
function identifierOf(part) {
  const bytes = bytesOf(part);
  if (bytes.length === 0 || bytes.length > MAX_IDENTIFIER_BYTES || bytes.includes(0)) {
    throw new Refused("invalid", "a part of the path has no or too many bytes, or a NUL");
  }
  try {
    return textOf(bytes);
  } catch (error) {
    if (error instanceof Malformed) throw new Refused("invalid", "a part of the path is not UTF-8");
    throw error;
  }
}
var ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
var SEXTETS = new Int8Array(128).fill(-1);
for (const [sextet, character] of [...ALPHABET].entries()) {
  SEXTETS[character.charCodeAt(0)] = sextet;
}
function bytesOf(part) {
  const bytes = new Uint8Array(Math.floor(part.length * 3 / 4));
  let at = 0;
  let bits = 0;
  let left = 0;
  let sound = part.length % 4 !== 1;
  for (let n = 0; n < part.length; n += 1) {
    const sextet = SEXTETS[part.charCodeAt(n)] ?? -1;
    sound &&= sextet >= 0;
    bits = bits << 6 | sextet & 63;
    left += 6;
    if (left >= 8) {
      left -= 8;
      bytes[at] = bits >> left;
      at += 1;
    }
    bits &= (1 << left) - 1;
  }
  if (!sound || bits !== 0) throw new Refused("invalid", "not canonical base64url");
  return bytes;
}
function partOf(bytes) {
  let binary2 = "";
  for (const byte of bytes) binary2 += String.fromCharCode(byte);
  return btoa(binary2).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

// src/directory/names.ts
var SHARDS = 8;
var encoder3 = new TextEncoder();
var NUL = new Uint8Array(1);
function directoryNamed(env, name2) {
  return env.DIRECTORIES.get(env.DIRECTORIES.idFromName(name2));
}
function placeOfSession(path) {
  const [tenant = "", kind = "", id2 = ""] = path.split("/");
  const name2 = bytesOf(id2);
  return { directory: sessionShard(tenant, kind, shardOf(name2)), name: name2 };
}
function sessionShard(tenant, kind, shard) {
  return `${tenant}/${kind}/${shard}`;
}
function tenantShard(shard) {
  return `:${shard}`;
}
function placeOfDirectory(directory) {
  if (directory.startsWith(":")) return null;
  const [tenant = "", kind, shard = ""] = directory.split("/");
  if (kind === void 0) {
    const name2 = bytesOf(tenant);
    return { directory: tenantShard(shardOf(name2)), name: joinBytes(name2, NUL) };
  }
  return { directory: tenant, name: joinBytes(bytesOf(kind), encoder3.encode(`\0${shard}`)) };
}
function shardOf(name2) {
  let hash = 2166136261;
  for (const byte of name2) hash = Math.imul(hash ^ byte, 16777619);
  return ((hash ^ hash >>> 16) >>> 0) % SHARDS;
}

// src/directory/object.ts
import { DurableObject } from "cloudflare:workers";

// src/agenda.ts
var LATEST = Date.UTC(2200);
var Agenda = class {
  constructor(storage) {
    this.storage = storage;
  }
  storage;
  at = null;
  /** To be awaited before anything else, so that the rest can go with other writes. */
  async load() {
    const time = await this.storage.getAlarm();
    this.at = time === null ? null : clock.fromAlarm(time);
  }
  /** The alarm has gone off, or was removed with all else. */
  clear() {
    this.at = null;
  }
  /**
   * Wakes the object at `time` or before. Atomic with what was written since the last `await`.
   * An alarm costs a row, so one that is set already is never moved to later.
   */
  wakeAt(time) {
    const at = Math.min(time, LATEST);
    if (this.at !== null && this.at <= at) return;
    this.at = at;
    void this.storage.setAlarm(clock.toAlarm(at));
  }
};

// src/directory/entries.ts
var SCHEMA = `
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
var FIND = "SELECT changed, recent_at, labels FROM entries WHERE name = ?";
var PUT = "REPLACE INTO entries (name, changed, recent_at, labels) VALUES (?, ?, ?, ?)";
var DELETE = "DELETE FROM entries WHERE name = ?";
var PUT_LABEL = "REPLACE INTO labels (label, name, recent_at) VALUES (?, ?, ?)";
var DELETE_LABEL = "DELETE FROM labels WHERE label = ? AND name = ?";
var IS_EMPTY = "SELECT 1 FROM entries LIMIT 1";
var BY_NAME = `
SELECT name, changed, recent_at FROM entries
WHERE name >= ? AND name < ? ORDER BY name LIMIT ?`;
var BY_RECENCY = `
SELECT name, changed, recent_at FROM entries
WHERE (recent_at, name) < (?, ?) ORDER BY recent_at DESC, name DESC LIMIT ?`;
var LABEL_BY_NAME = `
SELECT l.name, e.changed, l.recent_at FROM labels AS l CROSS JOIN entries AS e ON e.name = l.name
WHERE l.label = ? AND l.name >= ? AND l.name < ? ORDER BY l.name LIMIT ?`;
var LABEL_BY_RECENCY = `
SELECT l.name, e.changed, l.recent_at FROM labels AS l CROSS JOIN entries AS e ON e.name = l.name
WHERE l.label = ? AND (l.recent_at, l.name) < (?, ?)
ORDER BY l.recent_at DESC, l.name DESC LIMIT ?`;
function applyChange(sql, { name: name2, changed, present }) {
  const row = sql.exec(FIND, name2).raw().next().value;
  if (row && row[0] > changed) return;
  const labels2 = JSON.stringify(present?.labels ?? []);
  if (row && (!present || row[1] !== present.recentAt || row[2] !== labels2)) {
    for (const label2 of JSON.parse(row[2])) sql.exec(DELETE_LABEL, label2, name2);
  }
  if (!present) {
    sql.exec(DELETE, name2);
    return;
  }
  sql.exec(PUT, name2, changed, present.recentAt, labels2);
  for (const label2 of present.labels) sql.exec(PUT_LABEL, label2, name2, present.recentAt);
}
function isEmpty(sql) {
  return sql.exec(IS_EMPTY).next().done === true;
}
function page(sql, label2, bounds, limit) {
  const byName = "start" in bounds;
  const parameters = byName ? [bounds.start, bounds.stop] : [bounds.recentAt, bounds.name];
  const rows = label2 === null ? sql.exec(byName ? BY_NAME : BY_RECENCY, ...parameters, limit) : sql.exec(byName ? LABEL_BY_NAME : LABEL_BY_RECENCY, label2, ...parameters, limit);
  return Array.from(
    rows.raw(),
    ([name2, changed, recentAt]) => ({ name: new Uint8Array(name2), changed, recentAt })
  );
}

// src/directory/object.ts
var EMPTY_MS = 36e5;
var RETRY_MS = 6e4;
var HAS_SCHEMA = "SELECT 1 FROM sqlite_master WHERE name = 'directory'";
var LOAD = "SELECT name, known, changed, empty_since FROM directory WHERE one = 1";
var SAVE = `
REPLACE INTO directory (one, name, known, changed, empty_since) VALUES (1, ?, ?, ?, ?)`;
var BEYOND_NAMES = new Uint8Array(MAX_IDENTIFIER_BYTES + 8).fill(255);
var Directory = class extends DurableObject {
  agenda;
  stored = false;
  constructor(ctx, env) {
    super(ctx, env);
    this.agenda = new Agenda(ctx.storage);
    void ctx.blockConcurrencyWhile(async () => {
      this.stored = !this.sql.exec(HAS_SCHEMA).next().done;
      await this.agenda.load();
    });
  }
  get sql() {
    return this.ctx.storage.sql;
  }
  /**
   * Notes a change; `name` is this directory's own. Returns once those above know of this one.
   * May be repeated, and come late.
   */
  async record(name2, change) {
    if (!this.stored && !change.present) return;
    this.ctx.storage.transactionSync(() => {
      if (!this.stored) this.sql.exec(SCHEMA);
      const self2 = this.load() ?? { name: name2, known: false, changed: 0, emptySince: null };
      applyChange(this.sql, change);
      const emptySince = isEmpty(this.sql) ? self2.emptySince ?? clock.now() : null;
      if (!this.stored || emptySince !== self2.emptySince) this.save({ ...self2, emptySince });
    });
    this.stored = true;
    const self = this.load();
    if (self?.emptySince) this.agenda.wakeAt(self.emptySince + EMPTY_MS);
    if (self && !self.known && change.present) await this.tellAbove(self, true);
  }
  /** Drops a name that turned out not to be there, unless something was heard of it since. */
  async forget(name2, changed) {
    const self = this.stored ? this.load() : null;
    if (self) await this.record(self.name, { name: name2, changed, present: null });
  }
  /** At most `limit` entries. */
  page(label2, bounds, limit) {
    return this.stored ? page(this.sql, label2, bounds, limit) : [];
  }
  /** At most `limit` names of directories below, from `start` on: each up to its NUL, once. */
  names(start, limit) {
    const found = [];
    let from = start;
    while (this.stored && found.length < limit) {
      const [entry] = page(this.sql, null, { start: from, stop: BEYOND_NAMES }, 1);
      if (!entry) break;
      const name2 = entry.name.slice(0, entry.name.indexOf(0));
      found.push(name2);
      from = after(name2);
    }
    return found;
  }
  async alarm() {
    this.agenda.clear();
    try {
      await this.retire();
    } catch (error) {
      console.error(error);
      this.agenda.wakeAt(clock.now() + RETRY_MS);
    }
  }
  /** Is gone, if it has been empty for long. */
  async retire() {
    const self = this.stored ? this.load() : null;
    if (!self || self.emptySince === null) return;
    if (clock.now() < self.emptySince + EMPTY_MS) {
      this.agenda.wakeAt(self.emptySince + EMPTY_MS);
      return;
    }
    await this.tellAbove(self, false);
    if (this.load()?.known === false && isEmpty(this.sql)) {
      const removed = this.ctx.storage.deleteAll();
      this.stored = false;
      this.agenda.clear();
      await removed;
    }
  }
  /** Tells the directory above whether this one has anything. Throws if it cannot be told. */
  async tellAbove(self, present) {
    const place = placeOfDirectory(self.name);
    const changed = Math.max(self.changed + 1, clock.now());
    if (!present) this.save({ ...self, known: false, changed });
    if (place) {
      await directoryNamed(this.env, place.directory).record(place.directory, {
        name: place.name,
        changed,
        present: present ? { recentAt: 0, labels: [] } : null
      });
    }
    const now = this.load();
    if (present && now) this.save({ ...now, known: true, changed: Math.max(changed, now.changed) });
  }
  load() {
    const row = this.sql.exec(LOAD).raw().next().value;
    if (!row) return null;
    return { name: row[0], known: row[1] === 1, changed: row[2], emptySince: row[3] };
  }
  save({ name: name2, known: known2, changed, emptySince }) {
    this.sql.exec(SAVE, name2, known2 ? 1 : 0, changed, emptySince);
  }
};
function after(name2) {
  return joinBytes(name2, new Uint8Array([1]));
}

// src/listing.ts
var MAX_REQUESTS = 1e3;
var encoder4 = new TextEncoder();
async function merge(shards, ask, limit, compare) {
  const pages = await Promise.all(
    shards.map(async (shard) => ({ shard, items: await ask(shard) }))
  );
  let end = null;
  for (const { items: items2 } of pages) {
    const last = items2.at(-1);
    if (items2.length >= limit && last && (end === null || compare(last, end) < 0)) end = last;
  }
  const items = pages.flatMap(({ shard, items: items2 }) => items2.map((item) => ({ item, shard }))).filter(({ item }) => end === null || compare(item, end) <= 0).sort((a, b) => compare(a.item, b.item));
  return { items, more: end !== null };
}
async function listSessions(env, ctx, tenant, kind, query) {
  const limit = Math.min(query.limit, MAX_PAGE);
  const byId = query.order === "id";
  const shards = Array.from(
    { length: SHARDS },
    (_, shard) => directoryNamed(env, sessionShard(tenant, kind, shard))
  );
  const compare = byId ? (a, b) => compareBytes(a.name, b.name) : (a, b) => b.recentAt - a.recentAt || compareBytes(b.name, a.name);
  const found = [];
  let cursor2 = query.cursor;
  let more = true;
  let asked = 0;
  while (more && found.length < limit) {
    const wanted = limit - found.length;
    if (asked + SHARDS + 2 * wanted > MAX_REQUESTS) break;
    const each = Math.ceil(wanted / SHARDS) + 4;
    const bounds = boundsOf(query, cursor2);
    const merged = await merge(
      shards,
      async (shard) => await shard.page(query.label, bounds, each),
      each,
      compare
    );
    const entries = merged.items.slice(0, wanted);
    more = merged.more || merged.items.length > wanted;
    asked += SHARDS + entries.length;
    const heads = await Promise.all(
      entries.map(({ item }) => sessionHead(env, `${tenant}/${kind}/${partOf(item.name)}`))
    );
    for (const [n, { item, shard }] of entries.entries()) {
      const shown = heads[n];
      if (!shown) {
        asked += 1;
        ctx.waitUntil(shard.forget(item.name, item.changed));
      } else if (query.label === null || shown.labels.includes(query.label)) {
        found.push([textOf(item.name), new Encoded(shown.head)]);
      }
      cursor2 = byId ? textOf(item.name) : `${item.recentAt} ${textOf(item.name)}`;
    }
  }
  return encode([found, more ? cursor2 : null]);
}
async function sessionHead(env, name2) {
  return await env.SESSIONS.get(env.SESSIONS.idFromName(name2)).shown();
}
function boundsOf({ order, prefix }, cursor2) {
  if (order === "id") {
    const first = encoder4.encode(prefix);
    const next = cursor2 === null ? first : encoder4.encode(`${cursor2}\0`);
    return {
      start: compareBytes(next, first) < 0 ? first : next,
      stop: prefixStop(first) ?? BEYOND_NAMES
    };
  }
  if (cursor2 === null) return { recentAt: Number.MAX_SAFE_INTEGER, name: BEYOND_NAMES };
  const match = /^(\d{1,16}) ([^]*)$/.exec(cursor2);
  if (!match) throw new Malformed("this cursor is not of a list by recency");
  return { recentAt: Number(match[1]), name: encoder4.encode(match[2]) };
}
async function listTenants(env, cursor2, limit) {
  const shards = Array.from(
    { length: SHARDS },
    (_, shard) => directoryNamed(env, tenantShard(shard))
  );
  return await listNames(shards, cursor2, limit);
}
async function listOwnTenants(env, cursor2, limit, own) {
  const start = cursor2 === null ? NONE : after(encoder4.encode(cursor2));
  const rest = [...own].map((tenant) => encoder4.encode(tenant)).filter((name2) => compareBytes(name2, start) >= 0).sort(compareBytes);
  const asked = rest.slice(0, Math.min(limit, MAX_PAGE));
  const kinds = await Promise.all(
    asked.map((name2) => directoryNamed(env, partOf(name2)).names(NONE, 1))
  );
  const names = asked.filter((_, n) => kinds[n]?.length).map(textOf);
  const last = asked.at(-1);
  return encode([names, last && rest.length > asked.length ? textOf(last) : null]);
}
async function listKinds(env, tenant, cursor2, limit) {
  return await listNames([directoryNamed(env, tenant)], cursor2, limit);
}
async function listNames(shards, cursor2, limit) {
  const most = Math.min(limit, MAX_PAGE);
  const start = cursor2 === null ? NONE : after(encoder4.encode(cursor2));
  const { items, more } = await merge(
    shards,
    async (shard) => await shard.names(start, most),
    most,
    compareBytes
  );
  const names = items.slice(0, most).map(({ item }) => textOf(item));
  const next = more || items.length > most ? names.at(-1) ?? null : null;
  return encode([names, next]);
}

// src/shapes.ts
var encoder5 = new TextEncoder();
function tuple(message, length) {
  const items = list(message);
  if (items.length !== length) throw new Malformed(`an array has not ${length} elements`);
  return items;
}
function list(message) {
  if (!Array.isArray(message)) throw new Malformed("there should be an array");
  return message;
}
function integer(message, least = 0, most = Number.MAX_SAFE_INTEGER) {
  if (typeof message !== "number" || message < least || message > most) {
    throw new Malformed(`there should be an integer from ${least} to ${most}`);
  }
  return message;
}
function flag(message) {
  if (typeof message !== "boolean") throw new Malformed("there should be true or false");
  return message;
}
function binary(message, most = Number.MAX_SAFE_INTEGER) {
  if (!(message instanceof Uint8Array)) throw new Malformed("there should be a binary");
  if (message.length > most) throw new Malformed(`a binary has more than ${most} bytes`);
  return message;
}
function digest(message, length) {
  const bytes = binary(message);
  if (bytes.length !== length) throw new Malformed(`a binary has not ${length} bytes`);
  return bytes;
}
function name(message, most) {
  const value = text(message, most);
  if (value === "" || value.includes("\0")) throw new Malformed("a name is empty or holds NUL");
  return value;
}
function text(message, most) {
  if (typeof message !== "string") throw new Malformed("there should be a text");
  if (encoder5.encode(message).length > most) {
    throw new Malformed(`a text has more than ${most} bytes`);
  }
  return message;
}
function optional(message, parse) {
  return message === null ? null : parse(message);
}

// src/requests.ts
var EXPECTS = ["any", "present", "absent"];
function decodeReads(body) {
  return reads(decode(body));
}
function decodeCommit(body) {
  const fields = tuple(decode(body), 19);
  const commit = {
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
    deletes: list(fields[10]).map((item) => Array.isArray(item) ? range(item) : itemKey(item)),
    puts: list(fields[11]).map(put),
    appends: list(fields[12]).map(append),
    stages: list(fields[13]).map(id),
    meta: optional(fields[14], (meta) => binary(meta, MAX_META_BYTES)),
    labels: optional(fields[15], labels),
    expiresAt: optional(fields[16], integer),
    expiresIn: optional(fields[17], (duration) => integer(duration, 1, MAX_ADDEND)),
    returning: reads(fields[18])
  };
  check(commit.expiresAt === null || commit.expiresIn === null, "there are two expiries");
  if (commit.restored !== null) {
    const { expect: expect2, restored: restored2 } = commit;
    const older = typeof expect2 === "object" && expect2.version < restored2.version;
    check(expect2 === "absent" || older, "who restores expects absence or a lower version");
  }
  check(allDistinct(commit.puts.map(({ key }) => key)), "a key is given twice");
  check(allDistinct(commit.appends.map(({ prefix }) => prefix)), "a prefix is given twice");
  check(allDistinct(commit.stages), "a stage is given twice");
  checkSize(commit);
  return commit;
}
function decodeStage(body) {
  const fields = tuple(decode(body), 3);
  const puts = list(fields[2]).map(put);
  check(allDistinct(puts.map(({ key }) => key)), "a key is given twice");
  checkItems(puts.length, 0, puts);
  return { incarnation: id(fields[0]), stage: id(fields[1]), puts };
}
function decodeDeletion(body) {
  const fields = tuple(decode(body), 3);
  const expected = expect(fields[1]);
  check(expected !== "absent", "a session to be deleted is expected to be absent");
  return { id: id(fields[0]), expect: expected, incarnation: optional(fields[2], id) };
}
function decodeList(body) {
  const fields = tuple(decode(body), 5);
  const order = ["id", "recency"][integer(fields[0])];
  if (!order) throw new Malformed("there is no such order");
  const prefix = text(fields[1], MAX_IDENTIFIER_BYTES);
  check(!prefix.includes("\0"), "a prefix holds NUL");
  check(prefix === "" || order === "id", "a prefix goes with the order by id only");
  return {
    order,
    prefix,
    label: optional(fields[2], label),
    limit: integer(fields[3], 1),
    cursor: optional(fields[4], cursor)
  };
}
function decodeNames(body) {
  const fields = tuple(decode(body), 2);
  return { cursor: optional(fields[0], cursor), limit: integer(fields[1], 1) };
}
function decodeSweep(body) {
  return integer(tuple(decode(body), 1)[0], 1);
}
function decodeWait(query) {
  const match = /^after=([A-Za-z0-9_-]*)&timeout=(\d{1,9})$/.exec(query);
  if (!match) throw new Malformed("the query of wait is after=\u2026&timeout=\u2026");
  const after2 = optional(decode(bytesOf(match[1] ?? "")), (message) => {
    const fields = tuple(message, 3);
    return { version: integer(fields[0]), tip: id(fields[1]), incarnation: id(fields[2]) };
  });
  return { after: after2, timeout: Math.min(Number(match[2]), MAX_WAIT_MS) };
}
function check(condition2, complaint) {
  if (!condition2) throw new Malformed(complaint);
}
function checkSize({ conditions, deletes, puts, appends }) {
  const appended = appends.reduce((sum, { values }) => sum + values.length, 0);
  const others = conditions.length + deletes.length;
  let size = 0;
  for (const { prefix, values } of appends) {
    for (const value of values) size += prefix.length + APPENDED_BYTES + checkValue(value);
  }
  checkItems(puts.length + appended + others, size, puts);
}
function checkItems(count, size, puts) {
  if (count > MAX_COMMIT_ITEMS) {
    throw new Refused("too_large", `more than ${MAX_COMMIT_ITEMS} items at once`);
  }
  let total = size;
  for (const { key, value } of puts) total += key.length + checkValue(value);
  if (total > MAX_COMMIT_BYTES) {
    throw new Refused("too_large", `more than ${MAX_COMMIT_BYTES} bytes at once`);
  }
}
function checkValue(value) {
  if (value.length > MAX_ITEM_BYTES) {
    throw new Refused("too_large", `a value has more than ${MAX_ITEM_BYTES} bytes`);
  }
  return value.length;
}
function id(message) {
  return digest(message, 16);
}
function itemKey(message) {
  return binary(message, MAX_ITEM_KEY_BYTES);
}
function bound(message) {
  return binary(message, MAX_BOUND_BYTES);
}
function label(message) {
  return name(message, MAX_LABEL_BYTES);
}
function cursor(message) {
  return text(message, MAX_CURSOR_BYTES);
}
function labels(message) {
  const found = list(message).map(label);
  check(found.length <= MAX_LABELS, `there are more than ${MAX_LABELS} labels`);
  check(new Set(found).size === found.length, "a label is given twice");
  return found;
}
function restored(message) {
  const fields = tuple(message, 3);
  return {
    version: integer(fields[0], 1, MAX_ADDEND),
    createdAt: integer(fields[1]),
    updatedAt: integer(fields[2])
  };
}
function expect(message) {
  if (Array.isArray(message)) {
    const fields = tuple(message, 2);
    return { version: integer(fields[0]), tip: id(fields[1]) };
  }
  const expected = EXPECTS[integer(message)];
  if (!expected) throw new Malformed("there is no such expectation");
  return expected;
}
function condition(message) {
  const fields = tuple(message, 2);
  return { key: optional(fields[0], itemKey), version: integer(fields[1]) };
}
function range(message) {
  const fields = tuple(message, 2);
  const start = bound(fields[0]);
  const stop = optional(fields[1], bound);
  check(stop === null || compareBytes(start, stop) <= 0, "a range stops before it starts");
  return { start, stop };
}
function put(message) {
  const fields = tuple(message, 2);
  return { key: itemKey(fields[0]), value: binary(fields[1]) };
}
function append(message) {
  const fields = tuple(message, 2);
  return {
    prefix: binary(fields[0], MAX_ITEM_KEY_BYTES - APPENDED_BYTES),
    values: list(fields[1]).map((value) => binary(value))
  };
}
function reads(message) {
  const found = list(message);
  if (found.length > MAX_READS) throw new Refused("too_large", `more than ${MAX_READS} reads`);
  return found.map(read);
}
function read(message) {
  if (!Array.isArray(message)) return itemKey(message);
  const fields = tuple(message, 6);
  return {
    start: bound(fields[0]),
    stop: optional(fields[1], bound),
    limit: optional(fields[2], (limit) => integer(limit, 1)),
    reverse: flag(fields[3]),
    since: integer(fields[4]),
    maxBytes: optional(fields[5], integer)
  };
}

// src/front.ts
var known = null;
function keysOf(env) {
  if (!known || known.text !== env.PERDURE_KEYS) {
    known = { text: env.PERDURE_KEYS, keys: parseKeys(env.PERDURE_KEYS) };
  }
  return known.keys;
}
async function respond(request, env, ctx) {
  let operation = "hello";
  try {
    const keys = keysOf(env);
    const { path, target } = targetOf(request.url);
    const asked = route(request.method, path);
    operation = asked.operation;
    const claim = claimOf(keys, request.headers.get("authorization"));
    checkLength(request);
    let body = null;
    if (claim.signed) {
      body = await bodyOf(request);
      await verify(claim, request.method, target, body);
    }
    const { tenants } = claim.key;
    const [tenant, kind] = asked.scope;
    if (tenants && !allows(tenants, operation, tenant)) {
      throw new Refused("forbidden", "this key is for other tenants");
    }
    if (asked.scope.length === 3) {
      const id2 = env.SESSIONS.idFromName(asked.scope.join("/"));
      const forwarded = body?.length ? new Request(request, { body }) : request;
      return await env.SESSIONS.get(id2).fetch(forwarded);
    }
    body ??= await bodyOf(request);
    switch (operation) {
      case "list":
        return answer(await listSessions(env, ctx, tenant ?? "", kind ?? "", decodeList(body)));
      case "kinds": {
        const { cursor: cursor2, limit } = decodeNames(body);
        return answer(await listKinds(env, tenant ?? "", cursor2, limit));
      }
      case "tenants": {
        const { cursor: cursor2, limit } = decodeNames(body);
        return answer(
          tenants ? await listOwnTenants(env, cursor2, limit, tenants) : await listTenants(env, cursor2, limit)
        );
      }
      case "sweep":
        decodeSweep(body);
        return answer(encode(0));
      default:
        return answer(hello(env));
    }
  } catch (error) {
    return failed(error, operation);
  }
}
function allows(tenants, operation, tenant) {
  if (tenant === void 0) return operation !== "sweep";
  return tenants.has(identifierOf(tenant));
}
async function bodyOf(request) {
  return request.method === "POST" ? new Uint8Array(await request.arrayBuffer()) : NONE;
}
function checkLength(request) {
  if (request.method !== "POST") return;
  const length = request.headers.get("content-length");
  if (length === null || !/^\d{1,15}$/.test(length)) {
    throw new Refused("invalid", "the request has no Content-Length");
  }
  if (Number(length) > MAX_BODY_BYTES) {
    throw new Refused("too_large", `a body has more than ${MAX_BODY_BYTES} bytes`);
  }
}
function failed(error, operation) {
  try {
    return answerTo(error);
  } catch {
    console.error(error);
  }
  if (isOverloaded(error)) {
    return refusal(new Refused("overloaded", "the object has more to do than it can"));
  }
  if (writes(operation)) {
    return refusal(new Refused("unknown", "the object failed; this may have been applied"));
  }
  return refusal(new Refused("unavailable", "the object failed"));
}
function isOverloaded(error) {
  return error instanceof Error && "overloaded" in error && error.overloaded === true;
}

// src/session/object.ts
import { DurableObject as DurableObject2 } from "cloudflare:workers";

// src/session/memory.ts
var ID_BYTES = 16;
var TIME_AT = 24;
var TIME_BYTES = 8;
var ENTRY_BYTES = TIME_AT + TIME_BYTES;
var FIND_LIFE = `
SELECT incarnation, version, ids, deletion FROM lives WHERE instr(ids, ?) > 0 OR deletion = ?`;
var LIVES = "SELECT incarnation, version, ids FROM lives";
function remember(ids, commit, now) {
  const from = Math.max(0, ids.length - (REMEMBERED_COMMITS - 1) * ENTRY_BYTES);
  const at = ids.length - from;
  const remembered = new Uint8Array(at + ENTRY_BYTES);
  remembered.set(ids.subarray(from));
  remembered.set(commit.id, at);
  remembered.set(commit.digest, at + ID_BYTES);
  writeInteger(remembered, at + TIME_AT, TIME_BYTES, now);
  return remembered;
}
function recall(sql, state, id2) {
  const { head, ids } = state;
  const recent = head && find(ids, id2);
  if (recent) {
    const version = oldestVersion(head.version, ids) + recent.place;
    return { digest: recent.digest, incarnation: head.incarnation, version };
  }
  if (!state.lived) return null;
  for (const row of sql.exec(FIND_LIFE, id2, id2).raw()) {
    const life = { incarnation: new Uint8Array(row[0]), ids: new Uint8Array(row[2]) };
    if (row[3] && sameBytes2(new Uint8Array(row[3]), id2)) {
      return { digest: null, incarnation: life.incarnation, version: row[1] };
    }
    const found = find(life.ids, id2);
    if (found) {
      const version = oldestVersion(row[1], life.ids) + found.place;
      return { digest: found.digest, incarnation: life.incarnation, version };
    }
  }
  return null;
}
function mayBeRepeated(state, commit, now) {
  if (commit.resend) return true;
  const { head } = state;
  if (head && commit.incarnation && commit.base === head.version && sameBytes2(commit.incarnation, head.incarnation)) {
    return false;
  }
  return state.resentAt >= Math.max(told(commit, now), now - TOMBSTONE_MS);
}
function remembersSince(sql, { head, ids, lived }, commit, now) {
  const seen = told(commit, now);
  const { incarnation } = commit;
  const base = incarnation ? commit.base : 0;
  const covers = (life, version, remembered) => incarnation !== null && !sameBytes2(life, incarnation) || oldestVersion(version, remembered) <= base + 1 || oldestTime(remembered) < seen - CLOCK_STEP_MS;
  if (head && !covers(head.incarnation, head.version, ids)) return false;
  for (const row of lived ? sql.exec(LIVES).raw() : []) {
    if (!covers(new Uint8Array(row[0]), row[1], new Uint8Array(row[2]))) return false;
  }
  return true;
}
function told({ seen }, now) {
  return seen === null || seen > now ? 0 : seen;
}
function oldestVersion(version, ids) {
  return version - ids.length / ENTRY_BYTES + 1;
}
function oldestTime(ids) {
  return readInteger(ids, TIME_AT, TIME_BYTES);
}
function find(ids, id2) {
  for (let at = ids.length - ENTRY_BYTES; at >= 0; at -= ENTRY_BYTES) {
    let same = 0;
    while (same < ID_BYTES && ids[at + same] === id2[same]) same += 1;
    if (same === ID_BYTES) {
      return { place: at / ENTRY_BYTES, digest: ids.subarray(at + ID_BYTES, at + TIME_AT) };
    }
  }
  return null;
}

// src/session/reading.ts
var GET = "SELECT key, value, version FROM items WHERE key = ?";
var SCAN = `
SELECT key, value, version FROM items
WHERE key >= ? AND key < ? AND version > ? ORDER BY key LIMIT ?`;
var SCAN_REVERSE = `
SELECT key, value, version FROM items
WHERE key >= ? AND key < ? AND version > ? ORDER BY key DESC LIMIT ?`;
var BEYOND = new Uint8Array(MAX_BOUND_BYTES + 1).fill(255);
var ITEM_OVERHEAD = 64;
var Allowance = class {
  bytes = MAX_ANSWER_BYTES;
  /** Throws `Refused` well beyond it: a read that found something cannot be without items. */
  spend(bytes) {
    this.bytes -= bytes;
    if (this.bytes < -MAX_READ_BYTES) {
      throw new Refused("too_large", "these items are too many bytes for one answer");
    }
  }
};
function writeRows(sql, writer, head, reads2) {
  const allowance = new Allowance();
  writer.arrayOf(reads2.length);
  for (const read2 of reads2) {
    if (head === null) writeFound(writer, null);
    else if (read2 instanceof Uint8Array) {
      const row = sql.exec(GET, read2).raw().next().value ?? null;
      allowance.spend(row ? row[1].byteLength : 0);
      writeFound(writer, row);
    } else if (head.version <= read2.since) writeFound(writer, null);
    else writeScan(sql, writer, read2, allowance);
  }
}
function rowsOf(sql, head, reads2) {
  const writer = new Writer();
  writeRows(sql, writer, head, reads2);
  return new Encoded(writer.finish());
}
function writeFound(writer, row) {
  writer.write([row ? [row] : [], false]);
}
function writeScan(sql, writer, scan, allowance) {
  const wanted = Math.min(scan.maxBytes ?? MAX_READ_BYTES, MAX_READ_BYTES, allowance.bytes);
  const most = Math.max(1, wanted);
  const limit = scan.limit ?? Number.MAX_SAFE_INTEGER - 1;
  const rows = sql.exec(
    scan.reverse ? SCAN_REVERSE : SCAN,
    scan.start,
    scan.stop ?? BEYOND,
    scan.since,
    limit + 1
    // to know whether there is more
  ).raw();
  const found = [];
  let size = 0;
  let more = false;
  for (const row of rows) {
    if (found.length >= limit || size >= most) {
      more = found.length > 0;
      break;
    }
    found.push(row);
    size += row[1].byteLength;
  }
  writer.reserve(size + found.length * ITEM_OVERHEAD);
  writer.arrayOf(2);
  writer.arrayOf(found.length);
  for (const row of found) writer.write(row);
  writer.write(more);
  allowance.spend(size);
}

// src/session/staging.ts
var TOUCH = "REPLACE INTO stages (incarnation, stage, staged_at) VALUES (?, ?, ?)";
var FIND2 = "SELECT 1 FROM stages WHERE incarnation = ? AND stage = ?";
var DROP = "DELETE FROM stages WHERE incarnation = ? AND stage = ?";
var DROP_ALL = "DELETE FROM stages WHERE incarnation = ?";
var OLD = "SELECT incarnation, stage FROM stages WHERE staged_at < ?";
var OLDEST = "SELECT min(staged_at) FROM stages";
var PUT_PART = `
INSERT INTO parts (incarnation, stage, key, value) VALUES (?, ?, ?, ?)
ON CONFLICT (incarnation, stage, key) DO NOTHING`;
var ADOPT_PARTS = `
REPLACE INTO items (key, version, value)
SELECT key, ?, value FROM parts WHERE incarnation = ? AND stage = ?`;
var DROP_PARTS = "DELETE FROM parts WHERE incarnation = ? AND stage = ?";
var DROP_ALL_PARTS = "DELETE FROM parts WHERE incarnation = ?";
function applyStage(sql, { incarnation, stage, puts }, now) {
  sql.exec(TOUCH, incarnation, stage, now);
  for (const { key, value } of puts) sql.exec(PUT_PART, incarnation, stage, key, value);
}
function isStaged(sql, incarnation, stage) {
  return !sql.exec(FIND2, incarnation, stage).next().done;
}
function adopt(sql, incarnation, stage, version) {
  sql.exec(ADOPT_PARTS, version, incarnation, stage);
  drop(sql, incarnation, stage);
}
function dropStages(sql, incarnation) {
  sql.exec(DROP_ALL_PARTS, incarnation);
  sql.exec(DROP_ALL, incarnation);
}
function dropStagesBefore(sql, time) {
  const old = [...sql.exec(OLD, time).raw()];
  for (const [incarnation, stage] of old) {
    drop(sql, new Uint8Array(incarnation), new Uint8Array(stage));
  }
}
function oldestStage(sql) {
  return sql.exec(OLDEST).raw().next().value?.[0] ?? null;
}
function drop(sql, incarnation, stage) {
  sql.exec(DROP_PARTS, incarnation, stage);
  sql.exec(DROP, incarnation, stage);
}

// src/session/state.ts
var SCHEMA2 = `
CREATE TABLE session (
  one INTEGER PRIMARY KEY,
  format INTEGER NOT NULL,
  -- Tenant, kind and id, as in paths.
  name TEXT NOT NULL,
  -- The head. version is 0 while the session is absent.
  version INTEGER NOT NULL,
  incarnation BLOB NOT NULL,
  tip BLOB NOT NULL,
  last_delete INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  expires_at INTEGER,
  meta BLOB NOT NULL,
  meta_version INTEGER NOT NULL,
  -- A JSON array.
  labels TEXT NOT NULL,
  -- The last commits of this incarnation: see memory.ts.
  ids BLOB NOT NULL,
  -- When a commit that was sent again was applied last.
  resent_at INTEGER NOT NULL,
  -- updated_at as lists know it: at most a minute behind.
  recent_at INTEGER NOT NULL,
  -- The last change that lists must know of, and the last that they have acknowledged.
  changed INTEGER NOT NULL,
  listed INTEGER NOT NULL
);
CREATE TABLE items (
  key BLOB PRIMARY KEY,
  version INTEGER NOT NULL,
  value BLOB NOT NULL
) WITHOUT ROWID;
-- Former incarnations, and what is remembered of them.
CREATE TABLE lives (
  life INTEGER PRIMARY KEY,
  incarnation BLOB NOT NULL,
  version INTEGER NOT NULL,
  ids BLOB NOT NULL,
  -- The id of the deletion; NULL if it expired.
  deletion BLOB,
  ended_at INTEGER NOT NULL
);
-- Parts written ahead of the commit that will name them.
CREATE TABLE stages (
  incarnation BLOB NOT NULL,
  stage BLOB NOT NULL,
  staged_at INTEGER NOT NULL,
  PRIMARY KEY (incarnation, stage)
) WITHOUT ROWID;
CREATE TABLE parts (
  incarnation BLOB NOT NULL,
  stage BLOB NOT NULL,
  key BLOB NOT NULL,
  value BLOB NOT NULL,
  PRIMARY KEY (incarnation, stage, key)
) WITHOUT ROWID;
`;
var FORMAT = 1;
var HAS_SCHEMA2 = "SELECT 1 FROM sqlite_master WHERE name = 'session'";
var LOAD2 = `
SELECT format, name, version, incarnation, tip, last_delete, created_at, updated_at, expires_at,
       meta, meta_version, labels, ids, resent_at, recent_at, changed, listed,
       EXISTS (SELECT 1 FROM lives)
FROM session WHERE one = 1`;
var SAVE2 = `
REPLACE INTO session (one, format, name, version, incarnation, tip, last_delete, created_at,
                      updated_at, expires_at, meta, meta_version, labels, ids, resent_at,
                      recent_at, changed, listed)
VALUES (1, ${FORMAT}, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`;
var SAVE_COMMIT = `
UPDATE session SET version = ?, tip = ?, last_delete = ?, updated_at = ?, expires_at = ?, ids = ?,
                   resent_at = ?, recent_at = ?, changed = ?
WHERE one = 1`;
function hasSchema(sql) {
  return !sql.exec(HAS_SCHEMA2).next().done;
}
function createSchema(sql) {
  sql.exec(SCHEMA2);
}
function unknownState(name2) {
  return {
    name: name2,
    head: null,
    ids: NONE,
    resentAt: 0,
    recentAt: 0,
    changed: 0,
    listed: 0,
    lived: false
  };
}
function load(sql) {
  const row = sql.exec(LOAD2).raw().next().value;
  if (!row) return null;
  if (row[0] !== FORMAT) {
    throw new Refused("format_too_new", "this session was written by a newer Worker");
  }
  const head = row[2] === 0 ? null : {
    version: row[2],
    incarnation: new Uint8Array(row[3]),
    tip: new Uint8Array(row[4]),
    lastDelete: row[5],
    createdAt: row[6],
    updatedAt: row[7],
    expiresAt: row[8],
    meta: new Uint8Array(row[9]),
    metaVersion: row[10],
    labels: labelsOf(row[11])
  };
  return {
    name: row[1],
    head,
    ids: new Uint8Array(row[12]),
    resentAt: row[13],
    recentAt: row[14],
    changed: row[15],
    listed: row[16],
    lived: row[17] === 1
  };
}
function save(sql, state) {
  const { head } = state;
  sql.exec(
    SAVE2,
    state.name,
    head?.version ?? 0,
    head?.incarnation ?? NONE,
    head?.tip ?? NONE,
    head?.lastDelete ?? 0,
    head?.createdAt ?? 0,
    head?.updatedAt ?? 0,
    head?.expiresAt ?? null,
    head?.meta ?? NONE,
    head?.metaVersion ?? 0,
    head?.labels.length ? JSON.stringify(head.labels) : "",
    state.ids,
    state.resentAt,
    state.recentAt,
    state.changed,
    state.listed
  );
}
function saveCommit(sql, before, state) {
  const { head } = state;
  if (!before || !head || head.meta !== before.meta || head.labels !== before.labels) {
    save(sql, state);
    return;
  }
  sql.exec(
    SAVE_COMMIT,
    head.version,
    head.tip,
    head.lastDelete,
    head.updatedAt,
    head.expiresAt,
    state.ids,
    state.resentAt,
    state.recentAt,
    state.changed
  );
}
function labelsOf(text2) {
  return text2 === "" ? [] : JSON.parse(text2);
}
function hasExpired(head, now) {
  return head.expiresAt !== null && head.expiresAt <= now;
}
function presentHead(state, now) {
  return state?.head && !hasExpired(state.head, now) ? state.head : null;
}
function headFields(head) {
  return head && [
    head.version,
    head.incarnation,
    head.tip,
    head.lastDelete,
    head.createdAt,
    head.updatedAt,
    head.expiresAt,
    head.meta,
    head.metaVersion,
    head.labels
  ];
}

// src/session/commit.ts
var ITEM_VERSION = "SELECT version FROM items WHERE key = ?";
var PUTS = [16, 4, 1].map((rows) => ({
  rows,
  statement: `REPLACE INTO items (key, version, value) VALUES ${Array(rows).fill("(?, ?, ?)")}`
}));
var DELETE_ITEM = "DELETE FROM items WHERE key = ?";
var DELETE_ITEMS = "DELETE FROM items WHERE key >= ? AND key < ?";
function applyCommit(sql, state, commit, now) {
  const { head } = state;
  const earlier = recall(sql, state, commit.id);
  if (earlier) {
    if (!earlier.digest || !sameBytes2(earlier.digest, commit.digest)) {
      throw new Refused("commit_id_reused", "this commit id was used before for other content");
    }
    const { version: version2, incarnation: incarnation2 } = earlier;
    return { state, body: committed(sql, version2, incarnation2, head, now, true, commit) };
  }
  if (mayBeRepeated(state, commit, now) && !remembersSince(sql, state, commit, now)) {
    throw new Refused(
      "forgotten",
      "too many commits followed to tell whether this one was applied"
    );
  }
  if (commit.incarnation && !(head && sameBytes2(head.incarnation, commit.incarnation))) {
    throw new Refused(
      "session_deleted",
      "the session was deleted or has expired; nothing was written",
      headFields(head)
    );
  }
  const complaint = unexpected(head, commit.expect) ?? unmet(sql, head, commit);
  if (complaint) {
    const rows = rowsOf(sql, head, commit.returning);
    throw new Refused("conflict", `${complaint}; nothing was written`, headFields(head), rows);
  }
  const made = nextHead(head, commit, now);
  for (const stage of commit.stages) {
    if (!isStaged(sql, made.incarnation, stage)) {
      throw new Refused(
        "stage_missing",
        "a stage named by the commit does not exist (any more)"
      );
    }
  }
  const next = nextState(state, made, commit, now);
  write(sql, made, commit);
  saveCommit(sql, head, next);
  const { version, incarnation } = made;
  return { state: next, body: committed(sql, version, incarnation, made, now, false, commit) };
}
function unexpected(head, expect2) {
  if (expect2 === "any") return null;
  if (expect2 === "absent") return head ? "the session exists already" : null;
  if (!head) return "there is no such session";
  if (expect2 === "present") return null;
  if (head.version === expect2.version && sameBytes2(head.tip, expect2.tip)) return null;
  return `the session is at version ${head.version}, not at version ${expect2.version} as this writer has seen it`;
}
function unmet(sql, head, { conditions }) {
  for (const { key, version } of conditions) {
    let actual = 0;
    if (head && key === null) actual = head.metaVersion;
    else if (head) actual = sql.exec(ITEM_VERSION, key).raw().next().value?.[0] ?? 0;
    if (actual !== version) {
      return `what this writer requires to be at version ${version} is at version ${actual} (0: absent)`;
    }
  }
  return null;
}
function nextHead(head, commit, now) {
  const made = commit.restored ?? {
    version: (head?.version ?? 0) + 1,
    createdAt: now,
    updatedAt: now
  };
  let expiresAt = head?.expiresAt ?? null;
  if (commit.expiresIn !== null) expiresAt = now + commit.expiresIn;
  else if (commit.expiresAt !== null) expiresAt = commit.expiresAt === 0 ? null : commit.expiresAt;
  return {
    version: made.version,
    // Copies: what was sent is not to be held in memory as long as the head.
    incarnation: head?.incarnation ?? commit.newIncarnation.slice(),
    tip: commit.id.slice(),
    lastDelete: commit.deletes.length ? made.version : head?.lastDelete ?? 0,
    createdAt: head?.createdAt ?? made.createdAt,
    updatedAt: made.updatedAt,
    expiresAt,
    meta: commit.meta?.slice() ?? head?.meta ?? NONE,
    metaVersion: commit.meta ? made.version : head?.metaVersion ?? 0,
    labels: commit.labels ?? head?.labels ?? []
  };
}
function nextState(state, made, commit, now) {
  const { head } = state;
  const known2 = head !== null && sameTexts(head.labels, made.labels);
  const recent = known2 && Math.abs(made.updatedAt - state.recentAt) < RECENCY_LAG_MS;
  return {
    ...state,
    head: made,
    ids: remember(head && !commit.restored ? state.ids : NONE, commit, now),
    resentAt: commit.resend ? now : state.resentAt,
    recentAt: recent ? state.recentAt : made.updatedAt,
    changed: recent ? state.changed : Math.max(state.changed + 1, now)
  };
}
function sameTexts(a, b) {
  return a.length === b.length && a.every((text2, n) => text2 === b[n]);
}
function write(sql, { version, incarnation }, commit) {
  for (const target of commit.deletes) {
    if (target instanceof Uint8Array) sql.exec(DELETE_ITEM, target);
    else sql.exec(DELETE_ITEMS, target.start, target.stop ?? BEYOND);
  }
  for (const stage of commit.stages) adopt(sql, incarnation, stage, version);
  const parameters = [];
  for (const { key, value } of commit.puts) parameters.push(key, version, value);
  for (const { prefix, values } of commit.appends) {
    for (const [ordinal, value] of values.entries()) {
      parameters.push(appendKey(prefix, version, ordinal), version, value);
    }
  }
  let at = 0;
  for (const { rows, statement } of PUTS) {
    for (; parameters.length - at >= 3 * rows; at += 3 * rows) {
      sql.exec(statement, ...parameters.slice(at, at + 3 * rows));
    }
  }
}
function appendKey(prefix, version, ordinal) {
  const key = new Uint8Array(prefix.length + APPENDED_BYTES);
  key.set(prefix);
  writeInteger(key, prefix.length, 8, version);
  writeInteger(key, prefix.length + 8, 4, ordinal);
  return key;
}
function committed(sql, version, incarnation, head, now, replayed, { returning }) {
  const writer = new Writer();
  writer.arrayOf(7);
  writer.write(version);
  writer.write(incarnation);
  writer.write(headFields(head));
  writer.write(now);
  writer.write(replayed);
  writeRows(sql, writer, head, returning);
  writer.write(NONE);
  return writer.finish();
}

// src/session/removal.ts
var INSERT_LIFE = `
INSERT INTO lives (incarnation, version, ids, deletion, ended_at) VALUES (?, ?, ?, ?, ?)`;
var DELETE_LIVES = "DELETE FROM lives WHERE ended_at < ?";
var OLDEST_LIFE = "SELECT min(ended_at) FROM lives";
var DELETE_ITEMS2 = "DELETE FROM items";
function buryExpired(sql, state, now) {
  return state.head && hasExpired(state.head, now) ? bury(sql, state, null, now) : state;
}
function applyDeletion(sql, state, { id: id2, expect: expect2, incarnation }, now) {
  const { head } = state;
  const earlier = recall(sql, state, id2);
  if (earlier) {
    if (earlier.digest) throw new Refused("commit_id_reused", "this id was used by a commit");
    return { state, deleted: true };
  }
  if (!head || incarnation && !sameBytes2(head.incarnation, incarnation)) {
    return { state, deleted: false };
  }
  const complaint = unexpected(head, expect2);
  if (complaint) {
    throw new Refused("conflict", `${complaint}; nothing was deleted`, headFields(head));
  }
  return { state: bury(sql, state, id2, now), deleted: true };
}
function bury(sql, state, deletion, now) {
  const { head, ids } = state;
  if (!head) return state;
  sql.exec(DELETE_LIVES, now - LIFE_MS);
  sql.exec(INSERT_LIFE, head.incarnation, head.version, ids, deletion, now);
  sql.exec(DELETE_ITEMS2);
  dropStages(sql, head.incarnation);
  const changed = Math.max(state.changed + 1, now);
  const buried = { ...state, head: null, ids: NONE, recentAt: 0, changed, lived: true };
  save(sql, buried);
  return buried;
}
function sweep(sql, before, now) {
  const state = before && buryExpired(sql, before, now);
  sql.exec(DELETE_LIVES, now - LIFE_MS);
  dropStagesBefore(sql, now - STAGE_MS);
  const life = sql.exec(OLDEST_LIFE).raw().next().value?.[0] ?? null;
  const stage = oldestStage(sql);
  const resent = state && state.resentAt > now - TOMBSTONE_MS ? state.resentAt : null;
  const times = [
    state?.head?.expiresAt ?? null,
    life === null ? null : life + LIFE_MS + 1,
    stage === null ? null : stage + STAGE_MS + 1,
    state?.head || resent === null ? null : resent + TOMBSTONE_MS + 1
  ].filter((time) => time !== null);
  const unlisted = state !== null && state.changed > state.listed;
  return {
    state,
    due: times.length ? Math.min(...times) : null,
    empty: !state?.head && times.length === 0 && !unlisted
  };
}

// src/session/waiting.ts
var DONE = 1e3;
function differs(head, after2) {
  if (!head || !after2) return head !== after2;
  return !(head.version === after2.version && sameBytes2(head.tip, after2.tip) && sameBytes2(head.incarnation, after2.incarnation));
}
function admit(ctx, socket, head, wait, now) {
  ctx.acceptWebSocket(socket);
  if (differs(head, wait.after) || now >= wait.until) {
    finish(socket, head);
    return false;
  }
  socket.serializeAttachment(wait);
  return true;
}
function release(ctx, head, now) {
  let next = null;
  for (const { socket, wait } of waiting(ctx)) {
    if (differs(head, wait.after) || now >= wait.until) finish(socket, head);
    else next = Math.min(next ?? wait.until, wait.until);
  }
  return next;
}
function waiting(ctx) {
  return ctx.getWebSockets().map((socket) => ({ socket, wait: socket.deserializeAttachment() })).filter((waiter) => waiter.wait !== null);
}
function finish(socket, head) {
  try {
    socket.serializeAttachment(null);
    socket.send(encode(headFields(head)));
    socket.close(DONE);
  } catch {
  }
}

// src/session/object.ts
var RETRY_MS2 = 1e3;
var LONGEST_RETRY_MS = 6e4;
var DIRECTORY_MS = 2e3;
var LISTED = "UPDATE session SET listed = max(listed, ?) WHERE one = 1";
var Session = class extends DurableObject2 {
  agenda;
  /** Whether there are tables. */
  stored = false;
  /** The row of `session`; nobody else changes it. `undefined`: not read yet. */
  known;
  /** Whether anybody may be waiting: who sleeps with the object is there when it wakes. */
  awaited;
  telling = Promise.resolve();
  failures = 0;
  constructor(ctx, env) {
    super(ctx, env);
    this.agenda = new Agenda(ctx.storage);
    this.awaited = ctx.getWebSockets().length > 0;
    void ctx.blockConcurrencyWhile(async () => {
      this.stored = hasSchema(this.sql);
      await this.agenda.load();
    });
  }
  get sql() {
    return this.ctx.storage.sql;
  }
  async fetch(request) {
    try {
      const { path, query } = targetOf(request.url);
      const [, , tenant, kind, id2, operation] = path.split("/");
      if (operation === "wait") return this.wait(query, request);
      const body = new Uint8Array(await request.arrayBuffer());
      if (body.length > MAX_BODY_BYTES) throw new Refused("too_large", "the body is too long");
      return answer(await this.apply(operation, `${tenant}/${kind}/${id2}`, body));
    } catch (error) {
      return answerTo(error);
    }
  }
  /** The head as it travels, and the labels; `null` if there is no session. For lists. */
  shown() {
    const head = this.head(clock.now());
    return head && { head: encode(headFields(head)), labels: head.labels };
  }
  async alarm() {
    this.agenda.clear();
    try {
      await this.wake();
    } catch (error) {
      console.error(error);
      this.agenda.wakeAt(clock.now() + LONGEST_RETRY_MS);
    }
  }
  webSocketMessage(socket) {
    socket.close(1008, "nothing is to be said here");
  }
  webSocketClose(socket) {
    socket.close();
  }
  async wake() {
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
  async apply(operation, name2, body) {
    switch (operation) {
      case "read":
        return this.read(body);
      case "commit":
        return await this.commit(name2, body);
      case "stage":
        return this.stage(body);
      case "delete":
        return await this.delete(body);
      default:
        throw new Refused("not_found", "a session has no such operation");
    }
  }
  read(body) {
    const reads2 = decodeReads(body);
    const now = clock.now();
    const head = this.head(now);
    const writer = new Writer();
    writer.arrayOf(4);
    writer.write(headFields(head));
    writer.write(now);
    writeRows(this.sql, writer, head, reads2);
    writer.write(NONE);
    return writer.finish();
  }
  async commit(name2, bytes) {
    const commit = decodeCommit(bytes);
    const now = clock.now();
    const { before, state, body } = this.transact(() => {
      const before2 = buryExpired(this.sql, this.state() ?? unknownState(name2), now);
      return { before: before2, ...applyCommit(this.sql, before2, commit, now) };
    });
    this.known = state;
    const expiresAt = state.head?.expiresAt ?? null;
    if (expiresAt !== null) this.agenda.wakeAt(expiresAt);
    await this.changed(before, state, now);
    return body;
  }
  stage(body) {
    const stage = decodeStage(body);
    const now = clock.now();
    this.transact(() => applyStage(this.sql, stage, now));
    this.agenda.wakeAt(now + STAGE_MS + 1);
    return encode(null);
  }
  async delete(body) {
    const deletion = decodeDeletion(body);
    const now = clock.now();
    const found = this.state();
    if (!found) return encode(false);
    const { before, state, deleted } = this.transact(() => {
      const before2 = buryExpired(this.sql, found, now);
      return { before: before2, ...applyDeletion(this.sql, before2, deletion, now) };
    });
    this.known = state;
    await this.changed(before, state, now);
    return encode(deleted);
  }
  wait(query, request) {
    const { after: after2, timeout } = decodeWait(query);
    if (request.headers.get("upgrade")?.toLowerCase() !== "websocket") {
      throw new Malformed("to wait is to upgrade to a WebSocket");
    }
    const { 0: client, 1: server } = new WebSocketPair();
    const now = clock.now();
    const head = this.head(now);
    const wait = { after: after2, until: now + timeout };
    if (admit(this.ctx, server, head, wait, now)) {
      this.awaited = true;
      this.agenda.wakeAt(wait.until);
    }
    return new Response(null, { status: 101, webSocket: client });
  }
  /** Lets everyone know who must; nothing of it can fail. */
  async changed(before, state, now) {
    if (state !== before) this.release(state.head);
    if (state.changed <= state.listed) return;
    this.agenda.wakeAt(now + RETRY_MS2);
    const told2 = this.tellDirectory();
    const touched = before.head && state.head && before.head.labels === state.head.labels;
    if (touched) this.ctx.waitUntil(told2);
    else await soon(told2, DIRECTORY_MS);
  }
  /** Answers those who have waited for this head, or long enough. */
  release(head) {
    if (!this.awaited) return;
    const next = release(this.ctx, head, clock.now());
    this.awaited = next !== null;
    if (next !== null) this.agenda.wakeAt(next);
  }
  /** Tells the directory what it does not know yet, one thing after another. */
  tellDirectory() {
    this.telling = this.telling.then(() => this.tellOnce());
    return this.telling;
  }
  async tellOnce() {
    const state = this.state();
    if (!state || state.changed <= state.listed) return;
    const { name: name2, changed } = state;
    const head = presentHead(state, clock.now());
    const place = placeOfSession(name2);
    const present = head && { recentAt: state.recentAt, labels: head.labels };
    try {
      const directory = directoryNamed(this.env, place.directory);
      await directory.record(place.directory, { name: place.name, changed, present });
    } catch {
      this.failures += 1;
      const pause = Math.min(RETRY_MS2 * 2 ** this.failures, LONGEST_RETRY_MS);
      this.agenda.wakeAt(clock.now() + pause);
      return;
    }
    this.failures = 0;
    const now = this.state();
    if (!now) return;
    this.sql.exec(LISTED, changed);
    this.known = { ...now, listed: Math.max(now.listed, changed) };
  }
  sweep() {
    const before = this.state();
    if (!this.stored) return { due: null, empty: false };
    const remains = this.transact(() => sweep(this.sql, before, clock.now()));
    this.known = remains.state;
    return remains;
  }
  state() {
    if (this.known === void 0) this.known = this.stored ? load(this.sql) : null;
    return this.known;
  }
  head(now) {
    return presentHead(this.state(), now);
  }
  /** Runs `change` whole or not at all, on tables that are there. Throws `Refused`. */
  transact(change) {
    let result;
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
};
async function soon(promise, ms) {
  const patience = new AbortController();
  const impatient = scheduler.wait(ms, { signal: patience.signal }).catch(() => void 0);
  await Promise.race([promise, impatient]);
  patience.abort();
}

// src/index.ts
var index_default = { fetch: respond };
export {
  Directory,
  Session,
  index_default as default
};
