/** The Worker in front of the objects: who asks, for what, and whether they may. */

import { claimOf, type Keys, parseKeys, verify } from "./auth.ts";
import { NONE } from "./bytes.ts";
import type { Env } from "./env.ts";
import { hello } from "./hello.ts";
import { MAX_BODY_BYTES } from "./limits.ts";
import { listKinds, listOwnTenants, listSessions, listTenants } from "./listing.ts";
import { encode } from "./msgpack.ts";
import { identifierOf, type Operation, route, targetOf, writes } from "./path.ts";
import { answer, answerTo, refusal, Refused } from "./refusals.ts";
import { decodeList, decodeNames, decodeSweep } from "./requests.ts";

let known: { text: string | undefined; keys: Keys } | null = null;

function keysOf(env: Env): Keys {
  if (!known || known.text !== env.PERDURE_KEYS) {
    known = { text: env.PERDURE_KEYS, keys: parseKeys(env.PERDURE_KEYS) };
  }
  return known.keys;
}

/** The answer to any request. */
export async function respond(
  request: Request,
  env: Env,
  ctx: ExecutionContext,
): Promise<Response> {
  let operation: Operation = "hello";
  try {
    const keys = keysOf(env);
    const { path, target } = targetOf(request.url);
    const asked = route(request.method, path);
    operation = asked.operation;
    const claim = claimOf(keys, request.headers.get("authorization"));
    checkLength(request);
    let body: Uint8Array | null = null;
    if (claim.signed) {
      body = await bodyOf(request);
      await verify(claim, request.method, target, body);
    }
    const { tenants } = claim.key;
    const [tenant, kind] = asked.scope;
    if (tenants && !allows(tenants, operation, tenant)) {
      throw new Refused("forbidden", "this key is for other tenants");
    }
    if (asked.scope.length === 3) {
      const id = env.SESSIONS.idFromName(asked.scope.join("/"));
      const forwarded = body?.length ? new Request(request, { body }) : request;
      return await env.SESSIONS.get(id).fetch(forwarded);
    }
    body ??= await bodyOf(request);
    switch (operation) {
      case "list":
        return answer(await listSessions(env, ctx, tenant ?? "", kind ?? "", decodeList(body)));
      case "kinds": {
        const { cursor, limit } = decodeNames(body);
        return answer(await listKinds(env, tenant ?? "", cursor, limit));
      }
      case "tenants": {
        const { cursor, limit } = decodeNames(body);
        return answer(
          tenants
            ? await listOwnTenants(env, cursor, limit, tenants)
            : await listTenants(env, cursor, limit),
        );
      }
      case "sweep":
        // Each object wakes by itself when it has something to remove.
        decodeSweep(body);
        return answer(encode(0));
      default:
        return answer(hello(env));
    }
  } catch (error) {
    return failed(error, operation);
  }
}

function allows(
  tenants: ReadonlySet<string>,
  operation: Operation,
  tenant: string | undefined,
): boolean {
  if (tenant === undefined) return operation !== "sweep";
  return tenants.has(identifierOf(tenant));
}

/** What `checkLength` has bounded: that of a `GET`, which it has not, is not read. */
async function bodyOf(request: Request): Promise<Uint8Array> {
  return request.method === "POST" ? new Uint8Array(await request.arrayBuffer()) : NONE;
}

function checkLength(request: Request): void {
  if (request.method !== "POST") return;
  const length = request.headers.get("content-length");
  if (length === null || !/^\d{1,15}$/.test(length)) {
    throw new Refused("invalid", "the request has no Content-Length");
  }
  if (Number(length) > MAX_BODY_BYTES) {
    throw new Refused("too_large", `a body has more than ${MAX_BODY_BYTES} bytes`);
  }
}

/** What a failure means to the client, also one of the object or of the way to it. */
function failed(error: unknown, operation: Operation): Response {
  try {
    return answerTo(error);
  } catch {
    console.error(error);
  }
  if (isOverloaded(error)) {
    return refusal(new Refused("overloaded", "the object has more to do than it can"));
  }
  if (writes(operation)) {
    return refusal(new Refused("unknown", "the object failed; this may have been applied"));
  }
  return refusal(new Refused("unavailable", "the object failed"));
}

/** https://developers.cloudflare.com/durable-objects/best-practices/error-handling/ */
function isOverloaded(error: unknown): boolean {
  return error instanceof Error && "overloaded" in error && error.overloaded === true;
}
