/** A directory: one Durable Object that knows a part of what there is. See names.ts. */

import { DurableObject } from "cloudflare:workers";

import { Agenda } from "../agenda.ts";
import { type Bytes, joinBytes } from "../bytes.ts";
import { clock } from "../clock.ts";
import type { Env } from "../env.ts";
import { MAX_IDENTIFIER_BYTES } from "../limits.ts";
import {
  applyChange,
  type Bounds,
  type Change,
  type Entry,
  isEmpty,
  page,
  SCHEMA,
} from "./entries.ts";
import { directoryNamed, placeOfDirectory } from "./names.ts";

/** How long a directory stays known after its last entry has gone. */
const EMPTY_MS = 3600_000;

/** Pause before it is tried again to be gone. */
const RETRY_MS = 60_000;

const HAS_SCHEMA = "SELECT 1 FROM sqlite_master WHERE name = 'directory'";
const LOAD = "SELECT name, known, changed, empty_since FROM directory WHERE one = 1";
const SAVE = `
REPLACE INTO directory (one, name, known, changed, empty_since) VALUES (1, ?, ?, ?, ?)`;

/** Above every name, its NUL and what follows included. */
export const BEYOND_NAMES: Bytes = new Uint8Array(MAX_IDENTIFIER_BYTES + 8).fill(0xff);

interface Self {
  readonly name: string;
  readonly known: boolean;
  readonly changed: number;
  readonly emptySince: number | null;
}

export class Directory extends DurableObject<Env> {
  private readonly agenda: Agenda;
  private stored = false;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    this.agenda = new Agenda(ctx.storage);
    void ctx.blockConcurrencyWhile(async () => {
      this.stored = !this.sql.exec(HAS_SCHEMA).next().done;
      await this.agenda.load();
    });
  }

  private get sql(): SqlStorage {
    return this.ctx.storage.sql;
  }

  /**
   * Notes a change; `name` is this directory's own. Returns once those above know of this one.
   * May be repeated, and come late.
   */
  async record(name: string, change: Change): Promise<void> {
    if (!this.stored && !change.present) return;
    this.ctx.storage.transactionSync(() => {
      if (!this.stored) this.sql.exec(SCHEMA);
      const self = this.load() ?? { name, known: false, changed: 0, emptySince: null };
      applyChange(this.sql, change);
      const emptySince = isEmpty(this.sql) ? (self.emptySince ?? clock.now()) : null;
      if (!this.stored || emptySince !== self.emptySince) this.save({ ...self, emptySince });
    });
    this.stored = true;
    const self = this.load();
    if (self?.emptySince) this.agenda.wakeAt(self.emptySince + EMPTY_MS);
    if (self && !self.known && change.present) await this.tellAbove(self, true);
  }

  /** Drops a name that turned out not to be there, unless something was heard of it since. */
  async forget(name: Bytes, changed: number): Promise<void> {
    const self = this.stored ? this.load() : null;
    if (self) await this.record(self.name, { name, changed, present: null });
  }

  /** At most `limit` entries. */
  page(label: string | null, bounds: Bounds, limit: number): Entry[] {
    return this.stored ? page(this.sql, label, bounds, limit) : [];
  }

  /** At most `limit` names of directories below, from `start` on: each up to its NUL, once. */
  names(start: Bytes, limit: number): Bytes[] {
    const found: Bytes[] = [];
    let from = start;
    while (this.stored && found.length < limit) {
      const [entry] = page(this.sql, null, { start: from, stop: BEYOND_NAMES }, 1);
      if (!entry) break;
      const name = entry.name.slice(0, entry.name.indexOf(0));
      found.push(name);
      from = after(name);
    }
    return found;
  }

  override async alarm(): Promise<void> {
    this.agenda.clear();
    try {
      await this.retire();
    } catch (error) {
      // An alarm that fails too often is given up by the platform.
      console.error(error);
      this.agenda.wakeAt(clock.now() + RETRY_MS);
    }
  }

  /** Is gone, if it has been empty for long. */
  private async retire(): Promise<void> {
    const self = this.stored ? this.load() : null;
    if (!self || self.emptySince === null) return;
    if (clock.now() < self.emptySince + EMPTY_MS) {
      this.agenda.wakeAt(self.emptySince + EMPTY_MS);
      return;
    }
    await this.tellAbove(self, false);
    if (this.load()?.known === false && isEmpty(this.sql)) {
      const removed = this.ctx.storage.deleteAll();
      this.stored = false;
      this.agenda.clear();
      await removed;
    }
  }

  /** Tells the directory above whether this one has anything. Throws if it cannot be told. */
  private async tellAbove(self: Self, present: boolean): Promise<void> {
    const place = placeOfDirectory(self.name);
    const changed = Math.max(self.changed + 1, clock.now());
    // Before it is told that this one is empty: what comes meanwhile must tell it otherwise.
    if (!present) this.save({ ...self, known: false, changed });
    if (place) {
      await directoryNamed(this.env, place.directory).record(place.directory, {
        name: place.name,
        changed,
        present: present ? { recentAt: 0, labels: [] } : null,
      });
    }
    const now = this.load();
    if (present && now) this.save({ ...now, known: true, changed: Math.max(changed, now.changed) });
  }

  private load(): Self | null {
    type Row = [name: string, known: number, changed: number, emptySince: number | null];
    const row = this.sql.exec(LOAD).raw<Row>().next().value;
    if (!row) return null;
    return { name: row[0], known: row[1] === 1, changed: row[2], emptySince: row[3] };
  }

  private save({ name, known, changed, emptySince }: Self): void {
    this.sql.exec(SAVE, name, known ? 1 : 0, changed, emptySince);
  }
}

/** Below every name above `name`, and above all that its directories are known by. */
export function after(name: Bytes): Bytes {
  return joinBytes(name, new Uint8Array([1]));
}
