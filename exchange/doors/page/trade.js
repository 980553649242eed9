/** Signing in, and placing, amending and canceling orders. */

import { byId, put, showOrderPrice, tickOf } from "./draw.js";

const KEY = "exchange-login"; // in sessionStorage, which ends with the tab
// The times in force of each type of order, the default first.
const TIMES = {
  limit: ["gtc", "ioc", "fok"],
  market: ["ioc", "fok", "auction"],
  stop: ["gtc"],
  stop_limit: ["gtc", "ioc", "fok"],
};
const DONE = { new: "accepted", amended: "amended" }; // by exec_type

/** Call `act` with the fields of a form instead of leaving the page. */
function onSubmit(form, act) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    act(form.elements);
  });
}

function onClose(dialog) {
  dialog.querySelector("[value=close]").onclick = () => dialog.close();
}

/** Give a field the bounds of an instrument's price. */
function boundPrice(field, instrument) {
  const tick = tickOf(instrument);
  field.step = tick.size;
  field.min = tick.plain(instrument.min_price);
  field.max = tick.plain(instrument.max_price);
}

/** Show a field, or hide it where it means nothing. */
function offer(field, isOffered) {
  field.disabled = !isOffered;
  field.closest("label").hidden = !isOffered;
}

/** Connect the sign-in dialog and buttons; sign in again after a reload. */
export function setUpLogin(exchange) {
  const dialog = byId("sign-in-dialog");
  const form = dialog.querySelector("form");
  const result = dialog.querySelector(".result");
  const saved = JSON.parse(sessionStorage.getItem(KEY));

  function login(user, token) {
    put(result, "Signing in …");
    exchange.login(user, token, (reply) => {
      if (reply.type === "error") {
        put(result, reply.message);
        sessionStorage.removeItem(KEY);
        return;
      }
      dialog.close();
      sessionStorage.setItem(KEY, JSON.stringify({ user, token }));
    });
  }

  byId("sign-in").onclick = () => {
    put(result, "");
    dialog.showModal();
  };
  byId("sign-out").onclick = () => {
    sessionStorage.removeItem(KEY);
    form.reset();
    exchange.logout();
  };
  onSubmit(form, ({ user, token }) => login(user.value, token.value));
  onClose(dialog);
  if (saved) login(saved.user, saved.token);
}

export function drawLogin({ account }) {
  const isOurs = account !== null;
  byId("sign-in").hidden = isOurs;
  byId("sign-out").hidden = !isOurs;
  byId("ticket").hidden = byId("own").hidden = !isOurs;
  document.body.classList.toggle("signed-in", isOurs);
}

/** Describe the reply to a request in words. */
function describe(reply, instruments) {
  if (reply.type === "error") return `Refused: ${reply.message}`;
  if (reply.type === "ok") return `${reply.count} canceled`;
  const tick = tickOf(instruments.get(reply.symbol));
  const price = `at ${showOrderPrice(reply, tick)}`;
  const status = DONE[reply.exec_type] ?? reply.order_status;
  const words = [status, reply.reason].filter(Boolean);
  return (
    `Order ${reply.order_id}: ${reply.side} ${reply.qty} ${reply.symbol}` +
    ` ${price}: ${words.join(", ").replaceAll("_", " ")}`
  );
}

/** Return a function that shows the reply to a request in these places. */
function reporter(exchange, ...places) {
  return (reply) => {
    const text = describe(reply, exchange.instruments);
    const isBad = reply.type === "error";
    for (const place of places) {
      put(place, text);
      place.classList.toggle("bad", isBad);
    }
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
    put(byId("ticket-result"), texts.join(". "));
    exchange.note(texts.join(". "));
  }
}

function describeFills(fills, instruments) {
  const { side, symbol } = fills[0];
  const tick = tickOf(instruments.get(symbol));
  const lots = fills.reduce((sum, fill) => sum + fill.last_qty, 0);
  const prices = fills.map((fill) => fill.last_price);
  const ends = new Set([Math.min(...prices), Math.max(...prices)]);
  const range = [...ends].map((price) => tick.show(price)).join(" to ");
  return `${side === "buy" ? "Bought" : "Sold"} ${lots} ${symbol} at ${range}`;
}

export class Ticket {
  constructor(exchange) {
    this.exchange = exchange;
    this.form = byId("ticket-form");
    this.fields = this.form.elements;
    this.report = reporter(exchange, byId("ticket-result"));
    this.symbol = null; // the instrument of the price in the form
    const { order_type: type, time_in_force: time } = this.fields;
    type.oninput = () => (time.value = TIMES[type.value][0]);
    this.form.addEventListener("input", () => this.draw());
    onSubmit(this.form, () => this.#place());
  }

  /** Offer valid combinations, for the instrument shown. */
  draw() {
    const { instrument } = this.exchange;
    if (!instrument) return;
    const { side, qty, price, order_type, time_in_force } = this.fields;
    const { post_only, trigger_price, display_qty } = this.fields;
    const type = order_type.value;
    const hasPrice = type === "limit" || type === "stop_limit";
    if (instrument.symbol !== this.symbol) {
      price.value = trigger_price.value = "";
    }
    this.symbol = instrument.symbol;
    boundPrice(price, instrument);
    boundPrice(trigger_price, instrument);
    qty.max = display_qty.max = instrument.max_qty;
    price.disabled = !hasPrice;
    offer(trigger_price, type.startsWith("stop"));
    for (const option of time_in_force.options) {
      option.disabled = !TIMES[type].includes(option.value);
    }
    const mayRest = hasPrice && time_in_force.value === "gtc";
    post_only.disabled = !mayRest;
    display_qty.disabled = !mayRest;
    const button = this.form.querySelector("[type=submit]");
    const verb = side.value === "buy" ? "Buy" : "Sell";
    put(button, `${verb} ${instrument.symbol}`);
    button.dataset.side = side.value;
  }

  #place() {
    const { instrument } = this.exchange;
    const { side, qty, price, order_type, time_in_force } = this.fields;
    const { post_only, trigger_price, display_qty } = this.fields;
    const tick = tickOf(instrument);
    const order = {
      symbol: instrument.symbol,
      side: side.value,
      qty: Number(qty.value),
      order_type: order_type.value,
      time_in_force: time_in_force.value,
    };
    if (!price.disabled) order.price = tick.parse(price.value);
    if (!trigger_price.disabled) {
      order.trigger_price = tick.parse(trigger_price.value);
    }
    if (!display_qty.disabled && display_qty.value) {
      order.display_qty = Number(display_qty.value);
    }
    if (!post_only.disabled && post_only.checked) order.post_only = true;
    this.exchange.place(order, this.report);
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
    onSubmit(this.form, () => this.#amend());
    onClose(this.dialog);
    const report = reporter(exchange, byId("ticket-result"));
    this.cancel = (id) =>
      exchange.change({ type: "cancel", order_id: id }, report);
    byId("cancel-all").onclick = () =>
      exchange.change({ type: "cancel_all" }, report);
    this.amend = (id) => this.#open(id);
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
    const report = reporter(this.exchange, this.result, byId("ticket-result"));
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
