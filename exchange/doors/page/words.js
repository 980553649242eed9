/** Values as people read them. Pure but for the local time zone. */

import { Tick, tickOf, unitOf } from "./market.js";

/** @import { Instruments } from "./board.js" */

export const SIDES = { buy: "▲ buy", sell: "▼ sell" };
/** @type {Record<string, string>} */
const PHASES = {
  pre_open: "◔ Not open yet",
  auction: "⇄ Auction",
  open: "● Open",
  halted: "❙❙ Halted",
  closed: "■ Closed",
};
/** @type {Record<string, string>} */
const DONE = { new: "accepted", amended: "amended" }; // by exec_type

const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });

export const showTime = (ts) => clock.format(ts / 1_000);
const numbers = new Intl.NumberFormat("en");
export const showLots = (lots) => numbers.format(lots).replace("-", "−");
const compact = new Intl.NumberFormat("en", { notation: "compact" });
/** Show lots in at most four letters, such as 7.7K. */
export const showRoughly = (lots) => compact.format(lots);
export const showPosition = (lots) => (lots > 0 ? "+" : "") + showLots(lots);

/** Show money with its sign. */
export const showProfit = (unit, cash) =>
  (cash > 0 ? "+" : "") + unit.show(cash);

/** Show a length of time in minutes and seconds. */
export function showLength(ms) {
  const seconds = Math.max(0, Math.ceil(ms / 1_000));
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

/**
 * Return the whole seconds until a time in ms since the epoch, 0 if it is over.
 * @param {number | null} time null: not known
 */
export const secondsUntil = (time) =>
  Math.max(0, Math.ceil(((time ?? 0) - Date.now()) / 1_000));

export const showPhase = (phase) => PHASES[phase] ?? phase.replaceAll("_", " ");

/**
 * Return why a phase is in force and when it ends; "" if nothing is known.
 * @param {Wire.Instrument} instrument
 * @param {number} now
 */
export function showWhy({ phase, reason, reopen_ts: reopens }, now) {
  if (phase === "open") return "";
  const words = reason ? [reason] : [];
  if (reopens !== undefined) {
    words.push(`opens in ${showLength((reopens - now) / 1_000)}`);
  }
  return words.join(", ");
}

/**
 * Return the unit of cash, as a tick; 1 if the instruments share none.
 * @param {Instruments} instruments
 */
export function unitOfAll(instruments) {
  const units = [...instruments.values()].map(unitOf);
  const [first] = units;
  const isShared = units.every((unit) => unit.equals(first));
  return first && isShared ? first : new Tick("1");
}

/** Show a price that may be between two ticks, such as an average. */
export function showAverage(tick, ticks) {
  const money = ticks * Number(tick.plain(1));
  return money.toFixed(tick.places + 1).replace("-", "−");
}

/**
 * Show a price of a binary as a probability.
 * @param {Wire.Instrument | undefined} instrument
 * @param {number | undefined} price
 */
export function showOdds(instrument, price) {
  const { kind, pays = 1 } = instrument ?? {};
  if (kind !== "binary" || price === undefined) return "";
  return `${((100 * price) / pays).toFixed(pays < 100 ? 0 : 1)} %`;
}

/**
 * Return the price of an order in words, with its trigger.
 * @param {{ price?: number | null, trigger_price?: number | null }} order
 * @param {Tick} tick
 */
export function showOrderPrice({ price, trigger_price: trigger }, tick) {
  const limit = price == null ? "market" : tick.show(price);
  return trigger == null ? limit : `${limit} stop ${tick.show(trigger)}`;
}

/**
 * Say what an instrument is; "" if it is spot.
 * @param {Wire.Instrument} instrument
 */
export function describeTerms(instrument) {
  const { kind, strike, underlying, expire_ts: end } = instrument;
  if (!kind || kind === "spot") return "";
  const words = [kind];
  if (strike !== undefined) words.push(tickOf(instrument).show(strike));
  if (underlying !== undefined) words.push(`of ${underlying}`);
  if (end !== undefined) words.push(`until ${showTime(end)}`);
  const { question } = instrument;
  return words.join(" ") + (question === undefined ? "" : `: ${question}`);
}

/**
 * Describe the reply to a request in words.
 * @param {Wire.Reply} reply
 * @param {Instruments} instruments
 */
export function describe(reply, instruments) {
  if (reply.type === "error") return `Refused: ${reply.message}`;
  if (reply.type === "ok") return `${reply.count} canceled`;
  const tick = tickOf(instruments.get(reply.symbol ?? ""));
  const price = `at ${showOrderPrice(reply, tick)}`;
  const status = DONE[reply.exec_type ?? ""] ?? reply.order_status;
  const words = [status, reply.reason].filter(Boolean);
  return (
    `Order ${reply.order_id}: ${reply.side} ${reply.qty} ${reply.symbol}` +
    ` ${price}: ${words.join(", ").replaceAll("_", " ")}`
  );
}

/**
 * @param {Wire.Exec[]} fills of one order
 * @param {Instruments} instruments
 */
export function describeFills(fills, instruments) {
  const { side, symbol } = fills[0];
  const tick = tickOf(instruments.get(symbol));
  const lots = fills.reduce((sum, { last_qty: qty = 0 }) => sum + qty, 0);
  const prices = fills.map(({ last_price: price = 0 }) => price);
  const ends = new Set([Math.min(...prices), Math.max(...prices)]);
  const range = [...ends].map((price) => tick.show(price)).join(" to ");
  return `${side === "buy" ? "Bought" : "Sold"} ${lots} ${symbol} at ${range}`;
}
