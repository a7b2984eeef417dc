/**
 * Which directory knows of what. Three levels, each told only when it does not know already:
 *
 * - of each kind of a tenant, `SHARDS` directories hold its sessions, by a digest of their ids;
 * - of each tenant, one holds its kinds;
 * - `SHARDS` directories hold the tenants, by a digest.
 *
 * A directory that is empty for long tells the one above, and is gone.
 */

import { type Bytes, joinBytes } from "../bytes.ts";
import type { Env } from "../env.ts";
import { bytesOf } from "../path.ts";
import type { Directory } from "./object.ts";

export const SHARDS = 8;

const encoder = new TextEncoder();
const NUL = new Uint8Array(1);

/** Where a directory is known, and under which name. */
export interface Place {
  readonly directory: string;
  readonly name: Bytes;
}

export function directoryNamed(env: Env, name: string): DurableObjectStub<Directory> {
  return env.DIRECTORIES.get(env.DIRECTORIES.idFromName(name));
}

/** The directory of one session; all three are parts of a path. */
export function placeOfSession(path: string): Place {
  const [tenant = "", kind = "", id = ""] = path.split("/");
  const name = bytesOf(id);
  return { directory: sessionShard(tenant, kind, shardOf(name)), name };
}

export function sessionShard(tenant: string, kind: string, shard: number): string {
  return `${tenant}/${kind}/${shard}`;
}

export function tenantShard(shard: number): string {
  return `:${shard}`;
}

/** Where a directory itself is known; `null`: nowhere above. Names end at their NUL. */
export function placeOfDirectory(directory: string): Place | null {
  if (directory.startsWith(":")) return null;
  const [tenant = "", kind, shard = ""] = directory.split("/");
  if (kind === undefined) {
    const name = bytesOf(tenant);
    return { directory: tenantShard(shardOf(name)), name: joinBytes(name, NUL) };
  }
  return { directory: tenant, name: joinBytes(bytesOf(kind), encoder.encode(`\0${shard}`)) };
}

/** FNV-1a (http://www.isthe.com/chongo/tech/comp/fnv/), folded. Never to be changed. */
export function shardOf(name: Bytes): number {
  let hash = 0x811c9dc5;
  for (const byte of name) hash = Math.imul(hash ^ byte, 0x01000193);
  return ((hash ^ (hash >>> 16)) >>> 0) % SHARDS;
}
