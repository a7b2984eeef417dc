// An agent in another language, which knows docs/protocol.md and docs/format.md and nothing else:
//
//     node agent.mjs ORIGIN KEY_ID SECRET TENANT SESSION
//
// It reads the session's log, appends an answer to its last entry and sets a cell, if nobody was
// faster; prints, as JSON, what it has read and what became of both its attempts.

import { createHash, createHmac, randomBytes } from "node:crypto";

const [origin, keyId, secret, tenant, session] = process.argv.slice(2);

// MessagePack, as far as it is needed: Buffer is bin, string is str.

function encode(value) {
  if (value === null) return Buffer.from([0xc0]);
  if (typeof value === "boolean") return Buffer.from([value ? 0xc3 : 0xc2]);
  if (Number.isInteger(value)) return encodeInteger(value);
  if (typeof value === "string") {
    const text = Buffer.from(value);
    const size = text.length;
    const head = size < 32 ? [0xa0 | size] : size < 256 ? [0xd9, size] : [0xda, size >> 8, size];
    return Buffer.concat([Buffer.from(head), text]);
  }
  if (Buffer.isBuffer(value)) {
    const head = Buffer.from([0xc6, 0, 0, 0, 0]);
    head.writeUInt32BE(value.length, 1);
    return Buffer.concat([head, value]);
  }
  if (Array.isArray(value)) {
    const size = value.length;
    const head = size < 16 ? [0x90 | size] : [0xdc, size >> 8, size];
    return Buffer.concat([Buffer.from(head), ...value.map(encode)]);
  }
  const members = Object.entries(value).flat();
  return Buffer.concat([Buffer.from([0x80 | (members.length / 2)]), ...members.map(encode)]);
}

function encodeInteger(value) {
  if (value >= 0 && value < 128) return Buffer.from([value]);
  const wide = Buffer.from([0xcf, 0, 0, 0, 0, 0, 0, 0, 0]);
  wide.writeBigUInt64BE(BigInt(value), 1);
  return wide;
}

function decode(bytes) {
  let at = 0;
  const take = (size) => bytes.subarray(at, (at += size));
  const uint = (size) => Number(BigInt("0x" + take(size).toString("hex")));
  const array = (size) => Array.from({ length: size }, next);
  const map = (size) => Object.fromEntries(Array.from({ length: size }, () => [next(), next()]));
  function next() {
    const type = uint(1);
    if (type < 0x80) return type;
    if (type < 0x90) return map(type & 15);
    if (type < 0xa0) return array(type & 15);
    if (type < 0xc0) return take(type & 31).toString();
    if (type >= 0xe0) return type - 256;
    switch (type) {
      case 0xc0: return null;
      case 0xc2: return false;
      case 0xc3: return true;
      case 0xc4: case 0xc5: case 0xc6: return take(uint(1 << (type - 0xc4)));
      case 0xcb: return take(8).readDoubleBE();
      case 0xcc: case 0xcd: case 0xce: case 0xcf: return uint(1 << (type - 0xcc));
      case 0xd0: return take(1).readInt8();
      case 0xd1: return take(2).readInt16BE();
      case 0xd9: case 0xda: case 0xdb: return take(uint(1 << (type - 0xd9))).toString();
      case 0xdc: case 0xdd: return array(uint(2 << (type - 0xdc)));
      case 0xde: case 0xdf: return map(uint(2 << (type - 0xde)));
      default: throw new Error(`MessagePack type ${type}`);
    }
  }
  const value = next();
  if (at !== bytes.length) throw new Error("bytes behind the message");
  return value;
}

// Requests, signed.

async function ask(operation, message) {
  const parts = [tenant, "session", session].map((part) => Buffer.from(part).toString("base64url"));
  const target = `/v1/${parts.join("/")}/${operation}`;
  const body = encode(message);
  const time = Date.now();
  const digest = createHash("sha256").update(body).digest("hex");
  const signed = ["perdure1", "POST", target, time, digest].join("\n");
  const signature = createHmac("sha256", secret).update(signed).digest("hex");
  const response = await fetch(origin + target, {
    method: "POST",
    headers: {
      Authorization: `Perdure-HMAC-SHA256 ${keyId}:${time}:${signature}`,
      "Content-Type": "application/msgpack",
    },
    body,
  });
  return [response.status, decode(Buffer.from(await response.arrayBuffer()))];
}

// Rows.

const LOG = Buffer.from("l\0");
const LOG_END = Buffer.from("l\x01");

function entriesOf(row) {
  if (row[0] !== 1 || row[1] !== 0) throw new Error("not a plain log row of format 1");
  return decode(row.subarray(26));
}

function logRow(commitId, entries) {
  const header = Buffer.alloc(26);
  header[0] = 1;
  commitId.copy(header, 2);
  header.writeUInt32BE(entries.length, 22);
  return Buffer.concat([header, encode(entries)]);
}

const cellRow = (value) => Buffer.concat([Buffer.from([1, 0x40]), encode(value)]);

function commit(head, entry) {
  const [version, incarnation, tip] = head;
  const id = randomBytes(16);
  const row = logRow(id, [entry]);
  const digest = createHash("sha256").update(row).digest().subarray(0, 8);
  return [
    id, digest, randomBytes(16), null, [version, tip], incarnation, [], version, false, null,
    [], [[Buffer.from("cspoken"), cellRow("node")]], [[LOG, [row]]], [], null, null, null, null, [],
  ];
}

const [status, [head, , [[items]]]] = await ask("read", [[LOG, LOG_END, null, false, 0, null]]);
const read = items.flatMap(([, row]) => entriesOf(row));
const answer = { role: "assistant", content: `${read.at(-1).content}? Schöne Grüße 👋`, n: 300 };
const [applied, committed] = await ask("commit", commit(head, answer));
const [late, refusal] = await ask("commit", commit(head, answer));
console.log(JSON.stringify({
  read,
  statuses: [status, applied, late],
  version: committed[0],
  refused: refusal[0],
  refusedAt: refusal[2][0],
}));
