// perdure's Worker, which also tells how many rows its objects have written: GET /rows-written.

import worker, {
  Directory as Directories,
  Session as Sessions,
} from "../backends/durable_objects/src/perdure_durable_objects/worker/src/index.ts";

let written = 0;
let counting = false;

/** Have every statement counted: `sql` is of the class that all storage has. */
function count(sql) {
  if (counting) return;
  counting = true;
  const storage = Object.getPrototypeOf(sql);
  const { exec } = storage;
  storage.exec = function (...statement) {
    const cursor = exec.apply(this, statement);
    written += cursor.rowsWritten;
    return cursor;
  };
}

export class Session extends Sessions {
  constructor(context, environment) {
    count(context.storage.sql);
    super(context, environment);
  }
}

export class Directory extends Directories {
  constructor(context, environment) {
    count(context.storage.sql);
    super(context, environment);
  }
}

export default {
  fetch(request, environment, context) {
    if (new URL(request.url).pathname === "/rows-written") return new Response(String(written));
    return worker.fetch(request, environment, context);
  },
};
