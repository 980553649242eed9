/** Amending and canceling orders, and what came of requests, in words. */

import { boundPrice, byId, offer, onClose, onSubmit, put } from "./dom.js";
import { tickOf } from "./market.js";
import { describe, describeFills } from "./words.js";

/** Show what came of a request, or clear it. */
export function showResult(text, isBad = false) {
  const place = byId("ticket-result");
  put(place, text);
  place.classList.toggle("bad", isBad);
}

/** @import { Axis } from "./axis.js" */
/** @import { Side } from "./account.js" */
/** @import { Answered, Exchange } from "./exchange.js" */

/**
 * Return a function that shows the reply to a request in these places.
 * @param {Exchange} exchange
 * @param {Element[]} places
 * @returns {Answered}
 */
export function reporter(exchange, ...places) {
  return (reply) => {
    const text = describe(reply, exchange.instruments);
    const isBad = reply.type === "error";
    for (const place of places) put(place, text);
    showResult(text, isBad);
    exchange.note(text, isBad);
  };
}

/**
 * Show unsolicited reports: fills, and orders that ended.
 * @param {Exchange} exchange
 * @param {Wire.Exec[]} reports
 */
export function noteReports(exchange, reports) {
  const byOrder = Map.groupBy(reports, (report) => report.order_id);
  for (const events of byOrder.values()) {
    const fills = events.filter(({ exec_type: type }) => type === "trade");
    const { instruments } = exchange;
    const texts = fills.length ? [describeFills(fills, instruments)] : [];
    const last = events[events.length - 1];
    if (last.reason) texts.push(describe(last, instruments));
    showResult(texts.join(". "));
    exchange.note(texts.join(". "));
  }
}

/** Amends and cancels; `amend` and `cancel` take an order_id. */
export class Changes {
  /** @param {Exchange} exchange */
  constructor(exchange) {
    this.exchange = exchange;
    this.dialog = byId("amend-dialog");
    this.form = this.dialog.querySelector("form");
    this.result = this.form.querySelector(".result");
    /** @type {Wire.Exec | null} in the dialog */
    this.order = null;
    onSubmit(
      this.form,
      () => this.#amend(),
      () => put(this.result, ""),
    );
    onClose(this.dialog);
    this.report = reporter(exchange);
    /** @type {(id: number) => void} */
    this.cancel = (id) =>
      exchange.change({ type: "cancel", order_id: id }, this.report);
    byId("cancel-all").onclick = () => this.cancelAll();
    /** @type {(id: number) => void} */
    this.amend = (id) => this.#open(id);
  }

  cancelAll() {
    if (!this.exchange.trader) return;
    this.exchange.change({ type: "cancel_all" }, this.report);
  }

  /**
   * Amend the price of an order, or its trigger while it waits.
   * @param {Wire.Exec} order
   * @param {number} price
   */
  move({ order_id: id, order_status: status }, price) {
    const name = status === "waiting" ? "trigger_price" : "price";
    this.exchange.change(
      { type: "amend", order_id: id, [name]: price },
      this.report,
    );
  }

  /**
   * Cancel own orders of a side in the row of the ladder at a price.
   * @param {Side} side
   * @param {number} price
   * @param {Axis} axis
   */
  cancelAt(side, price, axis) {
    const { account, symbol } = this.exchange;
    const name = side === "buy" ? "bids" : "asks";
    const resting = account?.resting(symbol ?? "")[side] ?? [];
    for (const [level, orders] of resting) {
      if (axis.floor(level, name) !== price) continue;
      for (const order of orders) this.cancel(order.order_id);
    }
  }

  /** @param {number} id */
  #open(id) {
    const { account, instruments } = this.exchange;
    const order = account?.orders.get(id);
    const instrument = instruments.get(order?.symbol ?? "");
    if (!order || !instrument) return; // it has just ended
    const { qty, price, trigger_price, display_qty } = this.form.elements;
    const tick = tickOf(instrument);
    this.order = order;
    put(this.result, "");
    put(
      byId("amend-title"),
      `Amend order ${id}: ${order.side} ${order.symbol}`,
    );
    boundPrice(price, instrument);
    boundPrice(trigger_price, instrument);
    qty.max = display_qty.max = instrument.max_qty;
    qty.value = order.qty;
    const isWaiting = order.order_status === "waiting";
    offer(price, order.price !== undefined);
    offer(trigger_price, isWaiting);
    offer(display_qty, order.display_qty !== undefined);
    price.value = tick.plain(order.price ?? 0);
    trigger_price.value = tick.plain(order.trigger_price ?? 0);
    display_qty.value = order.display_qty ?? "";
    this.dialog.showModal();
    qty.select();
  }

  #amend() {
    const { order } = this;
    if (!order) return;
    const { qty, price, trigger_price, display_qty } = this.form.elements;
    const tick = tickOf(this.exchange.instruments.get(order.symbol));
    const report = reporter(this.exchange, this.result);
    /** @type {Pick<Wire.Exec, "qty" | "price" | "trigger_price" | "display_qty">} */
    const wanted = { qty: Number(qty.value) };
    if (!price.disabled) {
      wanted.price = tick.parse(price.value) ?? order.price;
    }
    if (!trigger_price.disabled) {
      wanted.trigger_price =
        tick.parse(trigger_price.value) ?? order.trigger_price;
    }
    if (!display_qty.disabled) wanted.display_qty = Number(display_qty.value);
    const before = new Map(Object.entries(order));
    const changes = Object.entries(wanted).filter(
      ([name, value]) => value !== before.get(name),
    );
    if (!changes.length) {
      this.dialog.close();
      return;
    }
    const changed = Object.fromEntries(changes);
    /** @type {Wire.Amend} */
    const request = { type: "amend", order_id: order.order_id, ...changed };
    this.exchange.change(request, (reply) => {
      report(reply);
      if (reply.type !== "error") this.dialog.close();
    });
  }
}
