/** Lists: pages of directories' shards, merged; and of sessions, as they are now. */

import { type Bytes, compareBytes, NONE, prefixStop } from "./bytes.ts";
import type { Bounds, Entry } from "./directory/entries.ts";
import { directoryNamed, sessionShard, SHARDS, tenantShard } from "./directory/names.ts";
import { after, BEYOND_NAMES, type Directory } from "./directory/object.ts";
import type { Env } from "./env.ts";
import { MAX_PAGE } from "./limits.ts";
import { encode, Encoded, Malformed, textOf, type Writable } from "./msgpack.ts";
import { partOf } from "./path.ts";
import type { ListQuery } from "./requests.ts";

/** A request may make 1 000 others (developers.cloudflare.com/workers/platform/limits). */
const MAX_REQUESTS = 1000;

const encoder = new TextEncoder();

type Shard = DurableObjectStub<Directory>;

/** One page of what several shards know, in order. */
interface Merged<T> {
  readonly items: readonly { readonly item: T; readonly shard: Shard }[];
  readonly more: boolean;
}

/**
 * Merges pages of at most `limit` from each shard. What lies behind the end of a page that is
 * full waits for the next, since that shard may have something before it.
 */
async function merge<T>(
  shards: readonly Shard[],
  ask: (shard: Shard) => Promise<readonly T[]>,
  limit: number,
  compare: (a: T, b: T) => number,
): Promise<Merged<T>> {
  const pages = await Promise.all(
    shards.map(async (shard) => ({ shard, items: await ask(shard) })),
  );
  let end: T | null = null;
  for (const { items } of pages) {
    const last = items.at(-1);
    if (items.length >= limit && last && (end === null || compare(last, end) < 0)) end = last;
  }
  const items = pages
    .flatMap(({ shard, items }) => items.map((item) => ({ item, shard })))
    .filter(({ item }) => end === null || compare(item, end) <= 0)
    .sort((a, b) => compare(a.item, b.item));
  return { items, more: end !== null };
}

/** The answer to `list`. `tenant` and `kind` as in paths. */
export async function listSessions(
  env: Env,
  ctx: ExecutionContext,
  tenant: string,
  kind: string,
  query: ListQuery,
): Promise<Bytes> {
  const limit = Math.min(query.limit, MAX_PAGE);
  const byId = query.order === "id";
  const shards = Array.from({ length: SHARDS }, (_, shard) =>
    directoryNamed(env, sessionShard(tenant, kind, shard)),
  );
  const compare = byId
    ? (a: Entry, b: Entry) => compareBytes(a.name, b.name)
    : (a: Entry, b: Entry) => b.recentAt - a.recentAt || compareBytes(b.name, a.name);

  const found: Writable[] = [];
  let cursor = query.cursor;
  let more = true;
  let asked = 0;
  while (more && found.length < limit) {
    const wanted = limit - found.length;
    // Of each entry the session is asked, and if it has gone, the directory is told.
    if (asked + SHARDS + 2 * wanted > MAX_REQUESTS) break;
    const each = Math.ceil(wanted / SHARDS) + 4;
    const bounds = boundsOf(query, cursor);
    const merged = await merge<Entry>(
      shards,
      async (shard) => await shard.page(query.label, bounds, each),
      each,
      compare,
    );
    const entries = merged.items.slice(0, wanted);
    more = merged.more || merged.items.length > wanted;
    asked += SHARDS + entries.length;
    const heads = await Promise.all(
      entries.map(({ item }) => sessionHead(env, `${tenant}/${kind}/${partOf(item.name)}`)),
    );
    for (const [n, { item, shard }] of entries.entries()) {
      const shown = heads[n];
      if (!shown) {
        asked += 1;
        ctx.waitUntil(shard.forget(item.name, item.changed));
      } else if (query.label === null || shown.labels.includes(query.label)) {
        found.push([textOf(item.name), new Encoded(shown.head)]);
      }
      cursor = byId ? textOf(item.name) : `${item.recentAt} ${textOf(item.name)}`;
    }
  }
  return encode([found, more ? cursor : null]);
}

async function sessionHead(
  env: Env,
  name: string,
): Promise<{ head: Bytes; labels: readonly string[] } | null> {
  return await env.SESSIONS.get(env.SESSIONS.idFromName(name)).shown();
}

/** What is left to be listed. Throws `Malformed` if the cursor is not of such a list. */
export function boundsOf({ order, prefix }: ListQuery, cursor: string | null): Bounds {
  if (order === "id") {
    const first = encoder.encode(prefix);
    const next = cursor === null ? first : encoder.encode(`${cursor}\0`);
    return {
      start: compareBytes(next, first) < 0 ? first : next,
      stop: prefixStop(first) ?? BEYOND_NAMES,
    };
  }
  if (cursor === null) return { recentAt: Number.MAX_SAFE_INTEGER, name: BEYOND_NAMES };
  const match = /^(\d{1,16}) ([^]*)$/.exec(cursor);
  if (!match) throw new Malformed("this cursor is not of a list by recency");
  return { recentAt: Number(match[1]), name: encoder.encode(match[2]) };
}

/** The answer to `tenants`. */
export async function listTenants(
  env: Env,
  cursor: string | null,
  limit: number,
): Promise<Bytes> {
  const shards = Array.from({ length: SHARDS }, (_, shard) =>
    directoryNamed(env, tenantShard(shard)),
  );
  return await listNames(shards, cursor, limit);
}

/**
 * The answer to `tenants` for a key that is for `own` only. Looked up one by one: pages of all
 * tenants, and so their cursors, would tell of others.
 */
export async function listOwnTenants(
  env: Env,
  cursor: string | null,
  limit: number,
  own: ReadonlySet<string>,
): Promise<Bytes> {
  const start = cursor === null ? NONE : after(encoder.encode(cursor));
  const rest = [...own]
    .map((tenant) => encoder.encode(tenant))
    .filter((name) => compareBytes(name, start) >= 0)
    .sort(compareBytes);
  const asked = rest.slice(0, Math.min(limit, MAX_PAGE));
  const kinds = await Promise.all(
    asked.map((name) => directoryNamed(env, partOf(name)).names(NONE, 1)),
  );
  const names = asked.filter((_, n) => kinds[n]?.length).map(textOf);
  const last = asked.at(-1);
  return encode([names, last && rest.length > asked.length ? textOf(last) : null]);
}

/** The answer to `kinds`; `tenant` as in paths. */
export async function listKinds(
  env: Env,
  tenant: string,
  cursor: string | null,
  limit: number,
): Promise<Bytes> {
  return await listNames([directoryNamed(env, tenant)], cursor, limit);
}

async function listNames(
  shards: readonly Shard[],
  cursor: string | null,
  limit: number,
): Promise<Bytes> {
  const most = Math.min(limit, MAX_PAGE);
  const start = cursor === null ? NONE : after(encoder.encode(cursor));
  const { items, more } = await merge<Bytes>(
    shards,
    async (shard) => await shard.names(start, most),
    most,
    compareBytes,
  );
  const names = items.slice(0, most).map(({ item }) => textOf(item));
  const next = more || items.length > most ? (names.at(-1) ?? null) : null;
  return encode([names, next]);
}
