/** What the Worker is bound to: see wrangler.jsonc. */

import type { Directory } from "./directory/object.ts";
import type { Session } from "./session/object.ts";

export interface Env {
  readonly SESSIONS: DurableObjectNamespace<Session>;
  readonly DIRECTORIES: DurableObjectNamespace<Directory>;
  /** Who may ask: a secret, the JSON list that docs/protocol.md describes. */
  readonly PERDURE_KEYS?: string;
  /** Set where the Worker runs outside Cloudflare, to say where. */
  readonly PERDURE_LOCAL?: string;
}
