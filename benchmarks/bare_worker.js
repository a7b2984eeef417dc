// The floor of Durable Objects: keeps bodies as they come, a row each, and gives them back as
// the elements of one MessagePack array. POST /session, GET /session, GET /session?last=5.

import { DurableObject } from "cloudflare:workers";

export class Turns extends DurableObject {
  constructor(context, environment) {
    super(context, environment);
    this.sql = context.storage.sql;
    this.sql.exec("CREATE TABLE IF NOT EXISTS turns (turn INTEGER PRIMARY KEY, body BLOB NOT NULL)");
  }

  async fetch(request) {
    if (request.method === "POST") {
      const body = await request.arrayBuffer();
      const written = this.sql.exec("INSERT INTO turns (body) VALUES (?)", body).rowsWritten;
      return new Response(null, { status: 204, headers: { "rows-written": String(written) } });
    }
    const last = new URL(request.url).searchParams.get("last");
    const rows =
      last === null
        ? this.sql.exec("SELECT body FROM turns ORDER BY turn").toArray()
        : this.sql.exec("SELECT body FROM turns ORDER BY turn DESC LIMIT ?", last).toArray().reverse();
    const header = new DataView(new ArrayBuffer(5));
    header.setUint8(0, 0xdd); // an array with its length in 32 bits
    header.setUint32(1, rows.length);
    return new Response(new Blob([header, ...rows.map((row) => row.body)]));
  }
}

export default {
  fetch(request, environment) {
    const session = environment.TURNS.idFromName(new URL(request.url).pathname);
    return environment.TURNS.get(session).fetch(request);
  },
};
