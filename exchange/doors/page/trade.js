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

/** Return a function that shows the reply to a request in these places. */
export function reporter(exchange, ...places) {
  return (reply) => {
    const text = describe(reply, exchange.instruments);
    const isBad = reply.type === "error";
    for (const place of places) put(place, text);
    showResult(text, isBad);
    exchange.note(text, isBad);
  };
}

/** Show unsolicited reports: fills, and orders that ended. */
export function noteReports(exchange, reports) {
  const byOrder = Map.groupBy(reports, (report) => report.order_id);
  for (const events of byOrder.values()) {
    const fills = events.filter(({ exec_type: type }) => type === "trade");
    const { instruments } = exchange;
    const texts = fills.length ? [describeFills(fills, instruments)] : [];
    const last = events.at(-1);
    if (last.reason) texts.push(describe(last, instruments));
    showResult(texts.join(". "));
    exchange.note(texts.join(". "));
  }
}

/** Amends and cancels; `amend` and `cancel` take an order_id. */
export class Changes {
  constructor(exchange) {
    this.exchange = exchange;
    this.dialog = byId("amend-dialog");
    this.form = this.dialog.querySelector("form");
    this.result = this.form.querySelector(".result");
    this.order = null; // in the dialog
    onSubmit(
      this.form,
      () => this.#amend(),
      () => put(this.result, ""),
    );
    onClose(this.dialog);
    this.report = reporter(exchange);
    this.cancel = (id) =>
      exchange.change({ type: "cancel", order_id: id }, this.report);
    byId("cancel-all").onclick = () => this.cancelAll();
    this.amend = (id) => this.#open(id);
  }

  cancelAll() {
    this.exchange.change({ type: "cancel_all" }, this.report);
  }

  /** Amend the price of an order, or its trigger while it waits. */
  move({ order_id: id, order_status: status }, price) {
    const name = status === "waiting" ? "trigger_price" : "price";
    this.exchange.change(
      { type: "amend", order_id: id, [name]: price },
      this.report,
    );
  }

  /** Cancel own orders of a side in the row of the ladder at a price. */
  cancelAt(side, price, axis) {
    const { account, symbol } = this.exchange;
    const name = side === "buy" ? "bids" : "asks";
    for (const [level, orders] of account?.resting(symbol)[side] ?? []) {
      if (axis.floor(level, name) !== price) continue;
      for (const order of orders) this.cancel(order.order_id);
    }
  }

  #open(id) {
    const { account, instruments } = this.exchange;
    const order = account.orders.get(id);
    if (!order) return; // it has just ended
    const { qty, price, trigger_price, display_qty } = this.form.elements;
    const instrument = instruments.get(order.symbol);
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
    offer(price, order.price !== undefined);
    offer(trigger_price, order.order_status === "waiting");
    offer(display_qty, order.display_qty !== undefined);
    if (!price.disabled) price.value = tick.plain(order.price);
    if (!trigger_price.disabled) {
      trigger_price.value = tick.plain(order.trigger_price);
    }
    if (!display_qty.disabled) display_qty.value = order.display_qty;
    this.dialog.showModal();
    qty.select();
  }

  #amend() {
    const { order } = this;
    const { qty, price, trigger_price, display_qty } = this.form.elements;
    const tick = tickOf(this.exchange.instruments.get(order.symbol));
    const report = reporter(this.exchange, this.result);
    const request = { type: "amend", order_id: order.order_id };
    const wanted = { qty: Number(qty.value) };
    if (!price.disabled) wanted.price = tick.parse(price.value);
    if (!trigger_price.disabled) {
      wanted.trigger_price = tick.parse(trigger_price.value);
    }
    if (!display_qty.disabled) wanted.display_qty = Number(display_qty.value);
    const changes = Object.entries(wanted).filter(
      ([name, value]) => value !== order[name],
    );
    if (!changes.length) {
      this.dialog.close();
      return;
    }
    Object.assign(request, Object.fromEntries(changes));
    this.exchange.change(request, (reply) => {
      report(reply);
      if (reply.type !== "error") this.dialog.close();
    });
  }
}
