/**
 * MessagePack (https://github.com/msgpack/msgpack/blob/master/spec.md), as far as the protocol
 * uses it: nil, booleans, integers from 0 to 2^53 - 1, binaries, text, arrays, and, in what is
 * written, maps. Everything else is malformed. Nothing read here ever becomes an object's
 * property, and no length is believed before the bytes are there.
 */

/** What a message is read into. Binaries are views of the message itself, not copies. */
export type Message = null | boolean | number | string | Uint8Array | Message[];

/** What can be written. Blobs from SQLite are `ArrayBuffer`s. */
export type Writable =
  | null
  | boolean
  | number
  | string
  | Uint8Array
  | ArrayBuffer
  | Encoded
  | readonly Writable[]
  | { readonly [name: string]: Writable };

/** A value that is MessagePack already. */
export class Encoded {
  constructor(readonly bytes: Uint8Array) {}
}

/** Deepest nesting of arrays. The deepest message of the protocol has four. */
export const MAX_DEPTH = 8;

/** Most values of a message. A commit or read of 10 000 items has some 70 000. */
export const MAX_VALUES = 250_000;

/** Bytes that are not the message they should be. What it says quotes none of them. */
export class Malformed extends Error {}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const encoder = new TextEncoder();

/** The one message that `bytes` are. Throws `Malformed`. */
export function decode(bytes: Uint8Array): Message {
  const reader = new Reader(bytes);
  const message = reader.read(0);
  if (!reader.ended) throw new Malformed("there are bytes behind the message");
  return message;
}

/** Text from its UTF-8 form. Throws `Malformed`. */
export function textOf(bytes: Uint8Array): string {
  try {
    return utf8.decode(bytes);
  } catch {
    throw new Malformed("a text is not UTF-8");
  }
}

class Reader {
  private readonly view: DataView;
  private at = 0;
  private values = 0;

  constructor(private readonly bytes: Uint8Array) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get ended(): boolean {
    return this.at === this.bytes.length;
  }

  read(depth: number): Message {
    const type = this.unsigned(1);
    if (type < 0x80) return type;
    if (type >= 0x90 && type < 0xa0) return this.array(type - 0x90, depth);
    if (type >= 0xa0 && type < 0xc0) return textOf(this.take(type - 0xa0));
    switch (type) {
      case 0xc0:
        return null;
      case 0xc2:
        return false;
      case 0xc3:
        return true;
      case 0xc4:
        return this.take(this.unsigned(1));
      case 0xc5:
        return this.take(this.unsigned(2));
      case 0xc6:
        return this.take(this.unsigned(4));
      case 0xcc:
        return this.unsigned(1);
      case 0xcd:
        return this.unsigned(2);
      case 0xce:
        return this.unsigned(4);
      case 0xcf:
        return this.integer();
      case 0xd0:
        return this.positive(1);
      case 0xd1:
        return this.positive(2);
      case 0xd2:
        return this.positive(4);
      case 0xd3:
        // Of negative ones the first bit is set, which is far above 2^53.
        return this.integer();
      case 0xd9:
        return textOf(this.take(this.unsigned(1)));
      case 0xda:
        return textOf(this.take(this.unsigned(2)));
      case 0xdb:
        return textOf(this.take(this.unsigned(4)));
      case 0xdc:
        return this.array(this.unsigned(2), depth);
      case 0xdd:
        return this.array(this.unsigned(4), depth);
      default:
        throw new Malformed("a value is of a type that the protocol does not use");
    }
  }

  private need(length: number): void {
    if (length > this.bytes.length - this.at) throw new Malformed("the message is cut short");
  }

  private unsigned(length: 1 | 2 | 4): number {
    this.need(length);
    const at = this.at;
    this.at += length;
    if (length === 1) return this.view.getUint8(at);
    return length === 2 ? this.view.getUint16(at) : this.view.getUint32(at);
  }

  /** An integer of a signed type. */
  private positive(length: 1 | 2 | 4): number {
    const value = this.unsigned(length);
    if (value >= 2 ** (8 * length - 1)) throw new Malformed("an integer is below 0");
    return value;
  }

  private integer(): number {
    const value = this.unsigned(4) * 2 ** 32 + this.unsigned(4);
    if (!Number.isSafeInteger(value)) throw new Malformed("an integer is not from 0 to 2^53 - 1");
    return value;
  }

  private take(length: number): Uint8Array {
    this.need(length);
    this.at += length;
    return this.bytes.subarray(this.at - length, this.at);
  }

  private array(length: number, depth: number): Message[] {
    if (depth >= MAX_DEPTH) throw new Malformed("arrays are nested too deep");
    this.need(length); // each element takes a byte at least
    this.values += length;
    if (this.values > MAX_VALUES) throw new Malformed(`there are more than ${MAX_VALUES} values`);
    const items: Message[] = [];
    for (let n = 0; n < length; n += 1) items.push(this.read(depth + 1));
    return items;
  }
}

/** `value` as MessagePack, in the shortest forms. */
export function encode(value: Writable): Uint8Array {
  const writer = new Writer();
  writer.write(value);
  return writer.finish();
}

/** Collects a message. Also by parts, where its values are not all at hand at once. */
export class Writer {
  private bytes = new Uint8Array(1024);
  private view = new DataView(this.bytes.buffer);
  private at = 0;

  finish(): Uint8Array {
    return this.bytes.subarray(0, this.at);
  }

  write(value: Writable): void {
    if (value === null) this.byte(0xc0);
    else if (typeof value === "boolean") this.byte(value ? 0xc3 : 0xc2);
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
      this.byte(0x80 + entries.length);
      for (const [name, member] of entries) {
        this.text(name);
        this.write(member);
      }
    }
  }

  /** Begins an array; its `length` values follow. */
  arrayOf(length: number): void {
    if (length < 16) this.byte(0x90 + length);
    else if (length < 0x10000) this.sized(0xdc, 2, length);
    else this.sized(0xdd, 4, length);
  }

  private integer(value: number): void {
    if (!Number.isSafeInteger(value) || value < 0) throw new RangeError("not an integer to send");
    if (value < 0x80) this.byte(value);
    else if (value < 0x100) this.sized(0xcc, 1, value);
    else if (value < 0x10000) this.sized(0xcd, 2, value);
    else if (value < 2 ** 32) this.sized(0xce, 4, value);
    else {
      this.reserve(9);
      this.view.setUint8(this.at, 0xcf);
      this.view.setUint32(this.at + 1, Math.floor(value / 2 ** 32));
      this.view.setUint32(this.at + 5, value % 2 ** 32);
      this.at += 9;
    }
  }

  private text(value: string): void {
    const bytes = encoder.encode(value);
    const length = bytes.length;
    if (length < 32) this.byte(0xa0 + length);
    else if (length < 0x100) this.sized(0xd9, 1, length);
    else if (length < 0x10000) this.sized(0xda, 2, length);
    else this.sized(0xdb, 4, length);
    this.append(bytes);
  }

  private binary(bytes: Uint8Array): void {
    const length = bytes.length;
    if (length < 0x100) this.sized(0xc4, 1, length);
    else if (length < 0x10000) this.sized(0xc5, 2, length);
    else this.sized(0xc6, 4, length);
    this.append(bytes);
  }

  private byte(value: number): void {
    this.reserve(1);
    this.bytes[this.at] = value;
    this.at += 1;
  }

  private sized(type: number, length: 1 | 2 | 4, value: number): void {
    this.reserve(1 + length);
    this.view.setUint8(this.at, type);
    if (length === 1) this.view.setUint8(this.at + 1, value);
    else if (length === 2) this.view.setUint16(this.at + 1, value);
    else this.view.setUint32(this.at + 1, value);
    this.at += 1 + length;
  }

  private append(bytes: Uint8Array): void {
    this.reserve(bytes.length);
    this.bytes.set(bytes, this.at);
    this.at += bytes.length;
  }

  /** Makes room for so many bytes at once: to grow copies what is written. */
  reserve(length: number): void {
    if (this.at + length <= this.bytes.length) return;
    const grown = new Uint8Array(Math.max(2 * this.bytes.length, this.at + length));
    grown.set(this.bytes.subarray(0, this.at));
    this.bytes = grown;
    this.view = new DataView(grown.buffer);
  }
}

function isArray(value: unknown): value is readonly Writable[] {
  return Array.isArray(value);
}
