/** When an object is to be woken: the earliest of all times that anything asked for. */

import { clock } from "./clock.ts";

/** The runtime counts nanoseconds in 64 bits, which end in 2262; an expiry may be later. */
const LATEST = Date.UTC(2200);

export class Agenda {
  private at: number | null = null;

  constructor(private readonly storage: DurableObjectStorage) {}

  /** To be awaited before anything else, so that the rest can go with other writes. */
  async load(): Promise<void> {
    const time = await this.storage.getAlarm();
    this.at = time === null ? null : clock.fromAlarm(time);
  }

  /** The alarm has gone off, or was removed with all else. */
  clear(): void {
    this.at = null;
  }

  /**
   * Wakes the object at `time` or before. Atomic with what was written since the last `await`.
   * An alarm costs a row, so one that is set already is never moved to later.
   */
  wakeAt(time: number): void {
    const at = Math.min(time, LATEST);
    if (this.at !== null && this.at <= at) return;
    this.at = at;
    void this.storage.setAlarm(clock.toAlarm(at));
  }
}
