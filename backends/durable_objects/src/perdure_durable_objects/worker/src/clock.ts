/** The clock that all objects go by. In milliseconds since the epoch. */
export const clock = {
  now: (): number => Date.now(),
  /** When, in the time that alarms are set by, `now` will be `at`; and the inverse. */
  toAlarm: (at: number): number => at,
  fromAlarm: (time: number): number => time,
};
