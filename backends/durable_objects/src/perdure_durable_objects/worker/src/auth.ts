/**
 * Keys: who may ask, and for what. Without keys nobody may ask for anything.
 *
 * A bearer sends the secret itself; who signs sends an HMAC over the method, the path, the time
 * and the body's digest.
 */

import { clock } from "./clock.ts";
import { Refused } from "./refusals.ts";

const SIGNATURE_WINDOW_MS = 300_000;
const MIN_SECRET_CHARACTERS = 32;

const BEARER = /^Bearer ([A-Za-z0-9_-]{1,64})\.([!-~]{1,512})$/;
const SIGNED = /^Perdure-HMAC-SHA256 ([A-Za-z0-9_-]{1,64}):(\d{1,15}):([0-9a-f]{64})$/;
const KEY_ID = /^[A-Za-z0-9_-]{1,64}$/;
const SECRET = new RegExp(`^[!-~]{${MIN_SECRET_CHARACTERS},512}$`);

export interface Key {
  readonly id: string;
  readonly secret: string;
  /** The only tenants that it may name. `null`: any, and what concerns all of them. */
  readonly tenants: ReadonlySet<string> | null;
  readonly mode: "bearer" | "hmac";
}

export type Keys = ReadonlyMap<string, Key>;

const encoder = new TextEncoder();

/** From the JSON of `PERDURE_KEYS`. Throws `Refused`; what it says quotes no secret. */
export function parseKeys(text: string | undefined): Keys {
  if (!text?.trim()) {
    throw new Refused("unavailable", "no secret is set on this server: it serves nobody");
  }
  const keys = new Map<string, Key>();
  for (const entry of listOf(text)) {
    const key = keyOf(entry);
    if (!key || keys.has(key.id)) throw malformedKeys();
    keys.set(key.id, key);
  }
  if (keys.size === 0) throw malformedKeys();
  return keys;
}

function listOf(text: string): unknown[] {
  try {
    const list: unknown = JSON.parse(text);
    if (Array.isArray(list)) return list;
  } catch {
    // Not JSON: as malformed as any other.
  }
  throw malformedKeys();
}

function keyOf(entry: unknown): Key | null {
  if (typeof entry !== "object" || entry === null || Array.isArray(entry)) return null;
  const members = new Map<string, unknown>(Object.entries(entry));
  const id = members.get("id");
  const secret = members.get("secret");
  const tenants = members.get("tenants") ?? null;
  const mode = members.get("mode") ?? "bearer";
  for (const name of members.keys()) {
    if (!["id", "secret", "tenants", "mode"].includes(name)) return null;
  }
  if (typeof id !== "string" || !KEY_ID.test(id)) return null;
  if (typeof secret !== "string" || !SECRET.test(secret)) return null;
  if (mode !== "bearer" && mode !== "hmac") return null;
  if (tenants !== null && !isTexts(tenants)) return null;
  return { id, secret, tenants: tenants && new Set(tenants), mode };
}

function isTexts(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((member) => typeof member === "string");
}

function malformedKeys(): Refused {
  return new Refused("unavailable", "PERDURE_KEYS is not a list of keys: this serves nobody");
}

/** What an `Authorization` header claims, as far as it can be checked without the body. */
export interface Claim {
  readonly key: Key;
  /** What must still be verified; `null`: a bearer, and proven. */
  readonly signed: { readonly time: number; readonly signature: Uint8Array } | null;
}

/** Throws `Refused`: `unauthorized` or `clock_skew`. */
export function claimOf(keys: Keys, authorization: string | null): Claim {
  const bearer = BEARER.exec(authorization ?? "");
  if (bearer) {
    const key = keys.get(bearer[1] ?? "");
    const sent = encoder.encode(bearer[2]);
    const expected = encoder.encode(key?.mode === "bearer" ? key.secret : "");
    if (sameBytes(sent, expected) && key?.mode === "bearer") return { key, signed: null };
  }
  const signed = SIGNED.exec(authorization ?? "");
  const key = keys.get(signed?.[1] ?? "");
  if (signed && key?.mode === "hmac") {
    const time = Number(signed[2]);
    const now = clock.now();
    if (Math.abs(time - now) > SIGNATURE_WINDOW_MS) {
      throw new Refused(
        "clock_skew",
        `signed at ${time}, but the server's clock says ${now} (ms since the epoch); they may ` +
          `differ by ${SIGNATURE_WINDOW_MS / 1000} s`,
      );
    }
    return { key, signed: { time, signature: fromHex(signed[3] ?? "") } };
  }
  throw unauthorized();
}

/** Throws `Refused` unless the signature is good. `target`: the path with its query. */
export async function verify(
  { key, signed }: Claim,
  method: string,
  target: string,
  body: Uint8Array,
): Promise<void> {
  if (!signed) return;
  const digest = toHex(await sha256(body));
  const content = `perdure1\n${method}\n${target}\n${signed.time}\n${digest}`;
  const algorithm = { name: "HMAC", hash: "SHA-256" };
  const secret = encoder.encode(key.secret);
  const hmac = await crypto.subtle.importKey("raw", secret, algorithm, false, ["sign"]);
  const expected = await crypto.subtle.sign("HMAC", hmac, encoder.encode(content));
  if (!sameBytes(new Uint8Array(expected), signed.signature)) throw unauthorized();
}

function unauthorized(): Refused {
  return new Refused(
    "unauthorized",
    "the key is not known here, not of this mode, or its secret is another",
  );
}

async function sha256(bytes: Uint8Array): Promise<Uint8Array> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
}

/** Whether they are equal, in a time that tells nothing of the second but its length. */
function sameBytes(sent: Uint8Array, expected: Uint8Array): boolean {
  const same = sent.length === expected.length;
  return crypto.subtle.timingSafeEqual(sent, same ? expected : sent) && same;
}

function fromHex(text: string): Uint8Array {
  return Uint8Array.from(text.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
}

function toHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
