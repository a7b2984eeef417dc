/** The Worker: see README.md. */

import type { Env } from "./env.ts";
import { respond } from "./front.ts";

export { Directory } from "./directory/object.ts";
export { Session } from "./session/object.ts";

export default { fetch: respond } satisfies ExportedHandler<Env>;
