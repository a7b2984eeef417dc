/** Byte strings: compared as unsigned bytes, and as keys of a `Set`. */

export type Bytes = Uint8Array;

export const NONE: Bytes = new Uint8Array(0);

export function sameBytes(a: Bytes, b: Bytes): boolean {
  return a.length === b.length && compareBytes(a, b) === 0;
}

/** Below, at or above 0 as `a` comes before, is, or comes after `b`. */
export function compareBytes(a: Bytes, b: Bytes): number {
  const length = Math.min(a.length, b.length);
  for (let n = 0; n < length; n += 1) {
    const difference = (a[n] ?? 0) - (b[n] ?? 0);
    if (difference !== 0) return difference;
  }
  return a.length - b.length;
}

export function joinBytes(a: Bytes, b: Bytes): Bytes {
  const joined = new Uint8Array(a.length + b.length);
  joined.set(a);
  joined.set(b, a.length);
  return joined;
}

/** Writes `value`, an integer below 2^53, as `length` bytes, the most significant first. */
export function writeInteger(into: Bytes, at: number, length: number, value: number): void {
  let rest = value;
  for (let n = at + length - 1; n >= at; n -= 1) {
    into[n] = rest % 0x100;
    rest = Math.floor(rest / 0x100);
  }
}

export function readInteger(from: Bytes, at: number, length: number): number {
  let value = 0;
  for (let n = at; n < at + length; n += 1) value = value * 0x100 + (from[n] ?? 0);
  return value;
}

/** Text of one character a byte: equal for equal bytes only. */
export function textKey(bytes: Bytes): string {
  return String.fromCharCode(...bytes);
}

/** Whether none is there twice. */
export function allDistinct(names: readonly Bytes[]): boolean {
  return names.length < 2 || new Set(names.map(textKey)).size === names.length;
}

/**
 * The smallest byte string above all that start with `prefix`; `null` if there is none.
 */
export function prefixStop(prefix: Bytes): Bytes | null {
  let length = prefix.length;
  while (length > 0 && prefix[length - 1] === 0xff) length -= 1;
  if (length === 0) return null;
  const stop = prefix.slice(0, length);
  stop[length - 1] = (stop[length - 1] ?? 0) + 1;
  return stop;
}
