/**
 * The Worker as tests run it: its clock can be moved on, its objects can be put out of memory,
 * its directories can fail, and the rows that it writes are counted. Nothing of this is in the
 * Worker that is shipped.
 */

import { clock } from "worker/clock.ts";
import type { Change } from "worker/directory/entries.ts";
import type { Env } from "worker/env.ts";
import * as worker from "worker/index.ts";

type Namespace = "SESSIONS" | "DIRECTORIES";

let ahead = 0;
/** What the clock shows while it is being moved, so that this takes none of its time. */
let still: number | null = null;
clock.now = () => still ?? Date.now() + ahead;
clock.toAlarm = (at) => at - ahead;
clock.fromAlarm = (time) => time + ahead;

/** Of each object that has an alarm: how to reach it, and when, by our clock, it is due. */
const alarms = new Map<string, { namespace: Namespace; at: number }>();
let rowsWritten = 0;
let directoriesFail = false;

/** Must come before anything else is done with the object's storage. */
function observe({ id, storage }: DurableObjectState, namespace: Namespace): void {
  const setAlarm = storage.setAlarm.bind(storage);
  storage.setAlarm = (time, options) => {
    alarms.set(id.toString(), { namespace, at: clock.fromAlarm(Number(time)) });
    rowsWritten += 1;
    return setAlarm(time, options);
  };
  const { sql } = storage;
  const exec = sql.exec.bind(sql);
  sql.exec = (...parameters) => {
    const cursor = exec(...parameters);
    rowsWritten += cursor.rowsWritten;
    return cursor as never;
  };
}

export class Session extends worker.Session {
  constructor(ctx: DurableObjectState, env: Env) {
    observe(ctx, "SESSIONS");
    super(ctx, env);
  }

  async ring(): Promise<void> {
    await this.alarm();
  }

  evict(): void {
    this.ctx.abort("a test has evicted it");
  }

  tables(): string[] {
    const rows = this.ctx.storage.sql.exec("SELECT name FROM sqlite_master WHERE name NOT LIKE '_cf%'");
    return Array.from(rows.raw<[string]>(), ([name]) => name);
  }
}

export class Directory extends worker.Directory {
  constructor(ctx: DurableObjectState, env: Env) {
    observe(ctx, "DIRECTORIES");
    super(ctx, env);
  }

  override async record(name: string, change: Change): Promise<void> {
    if (directoriesFail) throw new Error("a test has broken it");
    await super.record(name, change);
  }

  async ring(): Promise<void> {
    await this.alarm();
  }
}

interface TestEnv extends Env {
  readonly SESSIONS: DurableObjectNamespace<Session>;
  readonly DIRECTORIES: DurableObjectNamespace<Directory>;
}

async function ring(env: TestEnv, id: string, namespace: Namespace): Promise<void> {
  alarms.delete(id);
  if (namespace === "SESSIONS") await env.SESSIONS.get(env.SESSIONS.idFromString(id)).ring();
  else await env.DIRECTORIES.get(env.DIRECTORIES.idFromString(id)).ring();
}

async function control(url: URL, env: TestEnv): Promise<Response> {
  const [, , action = "", ...name] = url.pathname.split("/");
  switch (action) {
    case "advance": {
      const now = clock.now() + Number(url.searchParams.get("ms"));
      still = now;
      ahead = now - Date.now();
      const due = [...alarms].filter(([, { at }]) => at <= now);
      await Promise.all(due.map(([id, { namespace }]) => ring(env, id, namespace)));
      ahead = now - Date.now();
      still = null;
      return new Response();
    }
    case "evict": {
      const session = env.SESSIONS.get(env.SESSIONS.idFromName(name.join("/")));
      await session.evict().catch(() => undefined);
      return new Response();
    }
    case "directories":
      directoriesFail = name[0] === "fail";
      return new Response();
    case "tables": {
      const session = env.SESSIONS.get(env.SESSIONS.idFromName(name.join("/")));
      return new Response((await session.tables()).join(" "));
    }
    case "rows":
      return new Response(String(rowsWritten));
    default:
      return new Response("no such action", { status: 404 });
  }
}

export default {
  async fetch(request, env, ctx) {
    const url = new URL(request.url);
    if (url.pathname.startsWith("/test/")) return await control(url, env);
    return await worker.default.fetch(request, env, ctx);
  },
} satisfies ExportedHandler<TestEnv>;
