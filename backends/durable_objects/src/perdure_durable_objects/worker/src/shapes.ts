/** Checking that a message has the shape it should have. All of these throw `Malformed`. */

import type { Bytes } from "./bytes.ts";
import { Malformed, type Message } from "./msgpack.ts";

const encoder = new TextEncoder();

/** An array of exactly `length`. */
export function tuple(message: Message | undefined, length: number): readonly Message[] {
  const items = list(message);
  if (items.length !== length) throw new Malformed(`an array has not ${length} elements`);
  return items;
}

export function list(message: Message | undefined): readonly Message[] {
  if (!Array.isArray(message)) throw new Malformed("there should be an array");
  return message;
}

export function integer(
  message: Message | undefined,
  least = 0,
  most = Number.MAX_SAFE_INTEGER,
): number {
  if (typeof message !== "number" || message < least || message > most) {
    throw new Malformed(`there should be an integer from ${least} to ${most}`);
  }
  return message;
}

export function flag(message: Message | undefined): boolean {
  if (typeof message !== "boolean") throw new Malformed("there should be true or false");
  return message;
}

export function binary(message: Message | undefined, most = Number.MAX_SAFE_INTEGER): Bytes {
  if (!(message instanceof Uint8Array)) throw new Malformed("there should be a binary");
  if (message.length > most) throw new Malformed(`a binary has more than ${most} bytes`);
  return message;
}

/** A binary of exactly `length`. */
export function digest(message: Message | undefined, length: number): Bytes {
  const bytes = binary(message);
  if (bytes.length !== length) throw new Malformed(`a binary has not ${length} bytes`);
  return bytes;
}

/** Text that can name something: not empty, without NUL, of at most `most` UTF-8 bytes. */
export function name(message: Message | undefined, most: number): string {
  const value = text(message, most);
  if (value === "" || value.includes("\0")) throw new Malformed("a name is empty or holds NUL");
  return value;
}

export function text(message: Message | undefined, most: number): string {
  if (typeof message !== "string") throw new Malformed("there should be a text");
  if (encoder.encode(message).length > most) {
    throw new Malformed(`a text has more than ${most} bytes`);
  }
  return message;
}

/** What `parse` makes of it, or `null` for nil. */
export function optional<T>(
  message: Message | undefined,
  parse: (message: Message | undefined) => T,
): T | null {
  return message === null ? null : parse(message);
}
