/**
 * Paths: what is asked for, and of which session.
 *
 * Every part that a user has chosen is base64url without padding of its UTF-8 text. Only its
 * canonical form is accepted, so that a session has one path, and its path can be its name.
 */

import { MAX_IDENTIFIER_BYTES, VERSION } from "./limits.ts";
import { Malformed, textOf } from "./msgpack.ts";
import { Refused } from "./refusals.ts";

export type Operation =
  | "hello"
  | "read"
  | "commit"
  | "stage"
  | "delete"
  | "wait"
  | "list"
  | "kinds"
  | "tenants"
  | "sweep";

export interface Route {
  readonly operation: Operation;
  /** Tenant, kind and id, as many as the operation has, each as in the path. */
  readonly scope: readonly string[];
}

/** By the number of parts behind the version: what the last one may be, and its method. */
const OPERATIONS: readonly ReadonlyMap<string, string>[] = [
  new Map(),
  new Map([
    ["tenants", "POST"],
    ["sweep", "POST"],
  ]),
  new Map([["kinds", "POST"]]),
  new Map([["list", "POST"]]),
  new Map([
    ["read", "POST"],
    ["commit", "POST"],
    ["stage", "POST"],
    ["delete", "POST"],
    ["wait", "GET"],
  ]),
];

/** Operations whose outcome is unknown if no answer comes. */
export function writes(operation: Operation): boolean {
  return operation === "commit" || operation === "stage" || operation === "delete";
}

/** Path and query of a URL, as the client sent them. */
export function targetOf(url: string): { path: string; query: string; target: string } {
  const target = url.slice(url.indexOf("/", url.indexOf("//") + 2));
  const end = target.indexOf("?");
  if (end < 0) return { path: target, query: "", target };
  return { path: target.slice(0, end), query: target.slice(end + 1), target };
}

/** What a request asks for. Throws `Refused`. */
export function route(method: string, path: string): Route {
  const versioned = /^\/v(\d{1,9})(?:\/|$)/.exec(path);
  if (versioned && Number(versioned[1]) !== VERSION) {
    throw new Refused(
      "unsupported_version",
      `this server speaks version ${VERSION} of the protocol, not ${Number(versioned[1])}`,
    );
  }
  if (path === `/v${VERSION}` && method === "GET") return { operation: "hello", scope: [] };
  const parts = path.split("/").slice(2);
  const last = parts.pop() ?? "";
  if (!versioned || OPERATIONS[parts.length + 1]?.get(last) !== method) {
    throw new Refused("not_found", "the protocol has no such method and path");
  }
  for (const part of parts) identifierOf(part);
  return { operation: last as Operation, scope: parts };
}

/** The text that one part of a path is. Throws `Refused`. */
export function identifierOf(part: string): string {
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

const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const SEXTETS = new Int8Array(128).fill(-1);
for (const [sextet, character] of [...ALPHABET].entries()) {
  SEXTETS[character.charCodeAt(0)] = sextet;
}

/** The bytes that canonical base64url stands for. Throws `Refused`. */
export function bytesOf(part: string): Uint8Array {
  const bytes = new Uint8Array(Math.floor((part.length * 3) / 4));
  let at = 0;
  let bits = 0;
  let left = 0;
  let sound = part.length % 4 !== 1;
  for (let n = 0; n < part.length; n += 1) {
    const sextet = SEXTETS[part.charCodeAt(n)] ?? -1;
    sound &&= sextet >= 0;
    bits = (bits << 6) | (sextet & 63);
    left += 6;
    if (left >= 8) {
      left -= 8;
      bytes[at] = bits >> left;
      at += 1;
    }
    bits &= (1 << left) - 1;
  }
  // Bits that are left over could be anything; only one spelling is canonical.
  if (!sound || bits !== 0) throw new Refused("invalid", "not canonical base64url");
  return bytes;
}

/** The inverse of `bytesOf`. */
export function partOf(bytes: Uint8Array): string {
  let binary = "";
  for (const byte of bytes) binary += String.fromCharCode(byte);
  return btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
