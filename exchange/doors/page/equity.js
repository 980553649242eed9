/**
 * How the equity of the leaders went. Pure: no socket, no clock, no document.
 */

export const SHOWN = 10; // leaders with a curve
const KEPT = 40; // leaders whose values are kept
const SECONDS = [
  ...[1, 2, 5, 10, 15, 30], // and minutes, hours, a day
  ...[1, 2, 5, 10, 15, 30].map((minutes) => 60 * minutes),
  ...[1, 2, 3, 6, 12, 24].map((hours) => 3_600 * hours),
];
const SAMPLES = 480; // of each; then every second one goes

/** @import { Leader } from "./board.js" */
/** @typedef {{ name: string, colour: number, points: [number, number][] }} Curve */

export class Equities {
  name = "";
  /** @type {number[]} of the samples, in microseconds */
  times = [];
  /** @type {Map<string, (number | undefined)[]>} by user: one for each time */
  values = new Map();
  /** @type {Map<string, number>} by user: the number of its curve */
  colours = new Map();
  step = 1; // leaderboards for each sample
  skipped = 0;

  /**
   * Forget all values; `name` says what is played from now on.
   * @param {string} name
   */
  clear(name) {
    Object.assign(this, new Equities(), { name });
  }

  /**
   * Take a leaderboard of that time, the richest first.
   * @param {number} ts
   * @param {Leader[]} rows
   */
  take(ts, rows) {
    const { times } = this;
    if (ts <= (times.at(-1) ?? 0)) return;
    this.#choose(rows.slice(0, SHOWN).map(({ user }) => user));
    // The newest sample is replaced until the next one is due.
    const isFull = this.skipped + 1 < this.step && times.length > 1;
    this.skipped = isFull ? this.skipped + 1 : 0;
    const index = isFull ? times.length - 1 : times.length;
    times[index] = ts;
    for (const list of this.values.values()) list[index] = undefined;
    for (const { user, equity } of rows.slice(0, KEPT)) {
      const list = this.values.get(user) ?? Array(times.length).fill(undefined);
      list[index] = equity;
      this.values.set(user, list);
    }
    this.#forgetLosers();
    if (times.length > SAMPLES) this.#thin();
  }

  /**
   * Return colour, name and points, [ts, equity], of these leaders.
   * @param {Leader[]} leaders
   * @returns {Curve[]}
   */
  curves(leaders) {
    return leaders.map(({ rank, user }) => ({
      name: `${rank} ${user}`,
      colour: this.colours.get(user) ?? 0,
      points: (this.values.get(user) ?? []).flatMap((value, index) =>
        value === undefined ? [] : [[this.times[index], value]],
      ),
    }));
  }

  /** Return all as text, for `restore`. */
  save() {
    return JSON.stringify({
      name: this.name,
      times: this.times,
      values: [...this.values],
      colours: [...this.colours],
      step: this.step,
    });
  }

  /**
   * Take what `save` returned, if it is of the same match and time.
   * @param {string | null} text null: nothing was saved
   * @param {number} ts
   */
  restore(text, ts) {
    try {
      const { name, times, values, colours, step } = JSON.parse(text ?? "{}");
      if (name !== this.name || times.at(-1) > ts) return;
      this.times = times;
      this.values = new Map(values.map(([user, list]) => [
        user,
        list.map((value) => value ?? undefined), // JSON has no undefined
      ]));
      this.colours = new Map(colours);
      this.step = step;
    } catch {
      // Nothing was saved, or by another version of this page.
    }
  }

  /**
   * Give each leader a number that no other leader has; keep known ones.
   * @param {string[]} users
   */
  #choose(users) {
    const taken = users.map((user) => this.colours.get(user));
    const free = Array.from({ length: SHOWN }, (_, index) => index).filter(
      (index) => !taken.includes(index),
    );
    for (const user of this.colours.keys()) {
      if (!users.includes(user)) this.colours.delete(user);
    }
    for (const user of users) {
      if (!this.colours.has(user)) this.colours.set(user, free.shift() ?? 0);
    }
  }

  #forgetLosers() {
    for (const [user, list] of this.values) {
      if (list.every((value) => value === undefined)) {
        this.values.delete(user);
      }
    }
  }

  #thin() {
    const isKept = (_, index, { length }) =>
      index % 2 === 0 || index === length - 1;
    this.times = this.times.filter(isKept);
    for (const [user, list] of this.values) {
      this.values.set(user, list.filter(isKept));
    }
    this.step *= 2;
    this.skipped = 0;
  }
}

/** Return round numbers that divide a range into about `most` parts. */
export function marksOf(low, high, most) {
  const rough = Math.max(1, (high - low) / most);
  const power = 10 ** Math.floor(Math.log10(rough));
  return multiples(low, high, [1, 2, 5, 10].map((n) => n * power), rough);
}

/** Return round times, in seconds, that divide a span. */
export function timesOf(start, end, most) {
  return multiples(start, end, SECONDS, (end - start) / most);
}

/** Return the multiples of the first step that is not below `rough`. */
function multiples(low, high, steps, rough) {
  const step = steps.find((size) => size >= rough) ?? steps.at(-1);
  const marks = [];
  for (let at = Math.ceil(low / step) * step; at <= high; at += step) {
    marks.push(at);
  }
  return marks;
}

/** Move places apart so that two are `least` or more apart; keep the order. */
export function spread(places, least, low, high) {
  const order = places.map((_, index) => index);
  order.sort((a, b) => places[a] - places[b]);
  const moved = [...places];
  let next = low;
  for (const index of order) {
    moved[index] = Math.max(moved[index], next);
    next = moved[index] + least;
  }
  next = high;
  for (const index of order.reverse()) {
    moved[index] = Math.min(moved[index], next);
    next = moved[index] - least;
  }
  return moved;
}
