/** Reads of a session that is present: its items, by key and by range. */

import type { Bytes } from "../bytes.ts";
import { MAX_ANSWER_BYTES, MAX_BOUND_BYTES, MAX_READ_BYTES } from "../limits.ts";
import { Encoded, Writer } from "../msgpack.ts";
import { Refused } from "../refusals.ts";
import type { Read, Scan } from "../requests.ts";
import type { Head } from "./state.ts";

const GET = "SELECT key, value, version FROM items WHERE key = ?";
const SCAN = `
SELECT key, value, version FROM items
WHERE key >= ? AND key < ? AND version > ? ORDER BY key LIMIT ?`;
const SCAN_REVERSE = `
SELECT key, value, version FROM items
WHERE key >= ? AND key < ? AND version > ? ORDER BY key DESC LIMIT ?`;

/** Above every item key, and every bound that a request may name. */
export const BEYOND: Bytes = new Uint8Array(MAX_BOUND_BYTES + 1).fill(0xff);

/** About what an item takes in an answer besides its value. */
const ITEM_OVERHEAD = 64;

type ItemRow = [key: ArrayBuffer, value: ArrayBuffer, version: number];

/** What one answer may still hold. */
class Allowance {
  bytes = MAX_ANSWER_BYTES;

  /** Throws `Refused` well beyond it: a read that found something cannot be without items. */
  spend(bytes: number): void {
    this.bytes -= bytes;
    if (this.bytes < -MAX_READ_BYTES) {
      throw new Refused("too_large", "these items are too many bytes for one answer");
    }
  }
}

/** Writes an array with what each read finds; nothing where `head` is `null`. */
export function writeRows(
  sql: SqlStorage,
  writer: Writer,
  head: Head | null,
  reads: readonly Read[],
): void {
  const allowance = new Allowance();
  writer.arrayOf(reads.length);
  for (const read of reads) {
    if (head === null) writeFound(writer, null);
    else if (read instanceof Uint8Array) {
      const row = sql.exec(GET, read).raw<ItemRow>().next().value ?? null;
      allowance.spend(row ? row[1].byteLength : 0);
      writeFound(writer, row);
    } else if (head.version <= read.since) writeFound(writer, null);
    else writeScan(sql, writer, read, allowance);
  }
}

/** The array that `writeRows` writes, as a value. */
export function rowsOf(sql: SqlStorage, head: Head | null, reads: readonly Read[]): Encoded {
  const writer = new Writer();
  writeRows(sql, writer, head, reads);
  return new Encoded(writer.finish());
}

function writeFound(writer: Writer, row: ItemRow | null): void {
  writer.write([row ? [row] : [], false]);
}

function writeScan(sql: SqlStorage, writer: Writer, scan: Scan, allowance: Allowance): void {
  // One item is always returned, since `more` never comes with none.
  const wanted = Math.min(scan.maxBytes ?? MAX_READ_BYTES, MAX_READ_BYTES, allowance.bytes);
  const most = Math.max(1, wanted);
  const limit = scan.limit ?? Number.MAX_SAFE_INTEGER - 1;
  const rows = sql
    .exec(
      scan.reverse ? SCAN_REVERSE : SCAN,
      scan.start,
      scan.stop ?? BEYOND,
      scan.since,
      limit + 1, // to know whether there is more
    )
    .raw<ItemRow>();
  const found: ItemRow[] = [];
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
