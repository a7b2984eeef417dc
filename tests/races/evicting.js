/** perdure's Worker, and beside it paths that count its objects' births and evict them all. */

import worker, {
  Directory as WholeDirectory,
  Session as WholeSession,
} from "../../backends/durable_objects/src/perdure_durable_objects/worker/src/index.ts";

let born = 0;
const seen = { SESSIONS: new Set(), DIRECTORIES: new Set() };

export class Session extends WholeSession {
  constructor(ctx, env) {
    super(ctx, env);
    born += 1;
    seen.SESSIONS.add(ctx.id.toString());
  }

  evict() {
    this.ctx.abort("evicted by a test");
  }
}

export class Directory extends WholeDirectory {
  constructor(ctx, env) {
    super(ctx, env);
    seen.DIRECTORIES.add(ctx.id.toString());
  }

  evict() {
    this.ctx.abort("evicted by a test");
  }
}

async function evictAll(env) {
  for (const [binding, ids] of Object.entries(seen)) {
    const evicting = [...ids].map((id) => env[binding].get(env[binding].idFromString(id)).evict());
    ids.clear();
    await Promise.allSettled(evicting);
  }
}

export default {
  async fetch(request, env, ctx) {
    const { pathname } = new URL(request.url);
    if (pathname === "/evict") await evictAll(env);
    else if (pathname !== "/born") return worker.fetch(request, env, ctx);
    return new Response(String(born));
  },
};
