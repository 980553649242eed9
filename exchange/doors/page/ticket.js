/** The order ticket: every kind of order, what it costs, and sending it once. */

import { takerFee, valueOf } from "./account.js";
import { boundPrice, byId, offer, onClose, onSubmit, put } from "./dom.js";
import { tickOf } from "./market.js";
import { reporter, showResult } from "./trade.js";
import { showPosition, showOrderPrice, unitOfAll } from "./words.js";

// The times in force of each type of order, the default first.
const TIMES = {
  limit: ["gtc", "gtd", "ioc", "fok"],
  market: ["ioc", "fok", "auction"],
  stop: ["gtc", "gtd"],
  stop_limit: ["gtc", "gtd", "ioc", "fok"],
};
const STP = "cancel_oldest"; // what the exchange does without `stp`
const CONFIRM = "exchange-confirm"; // in localStorage
const LARGE = 10; // times the usual size: ask once
const SIZES = 20; // orders that make the usual size

/** @import { Side } from "./account.js" */
/** @import { Exchange, Order } from "./exchange.js" */
/** @import { Book, Tick } from "./market.js" */
/**
 * What the fields describe: a bad price is null, `seconds` until it expires.
 * @typedef {Omit<Order, "price" | "trigger_price"> & { symbol: string,
 *   price?: number | null, trigger_price?: number | null, seconds?: number }} Draft
 */

export class Ticket {
  /** @param {Exchange} exchange */
  constructor(exchange) {
    this.exchange = exchange;
    this.form = byId("ticket-form");
    this.fields = this.form.elements;
    this.report = reporter(exchange);
    /** @type {string | null} the instrument of the price in the form */
    this.symbol = null;
    this.isOurs = false; // the price was typed, stepped or clicked
    /** @type {[Side, number] | null} filled from the ladder */
    this.armed = null;
    this.isSending = false;
    /** @type {number[]} lots of the orders sent */
    this.sizes = [];
    this.pending = () => {}; // what the answer to a question lets happen
    this.asked = 0; // the largest size that was confirmed
    const { order_type: type, time_in_force: time } = this.fields;
    type.oninput = () => (time.value = TIMES[type.value][0]);
    this.form.addEventListener("input", ({ target }) => this.#typed(target));
    this.form.addEventListener("click", ({ target }) => this.#step(target));
    onSubmit(
      this.form,
      () => this.#submit(),
      () => showResult(""),
    );
    const confirm = byId("confirm");
    confirm.checked = localStorage.getItem(CONFIRM) === "yes";
    confirm.onchange = () =>
      localStorage.setItem(CONFIRM, confirm.checked ? "yes" : "no");
    this.dialog = byId("confirm-dialog");
    onClose(this.dialog);
    onSubmit(this.dialog.querySelector("form"), () => this.#confirmed());
    byId("flatten").onclick = () => {
      if (exchange.symbol !== null) this.flatten(exchange.symbol);
    };
    byId("quick-buy").onclick = () => this.open("buy");
    byId("quick-sell").onclick = () => this.open("sell");
    byId("ticket-close").onclick = () => {
      byId("ticket").classList.remove("open");
      byId("quick-buy").focus();
    };
  }

  // What others ask for -----------------------------------------------------

  /**
   * Show the ticket with this side; the focus is on the lots.
   * @param {Side} side
   */
  open(side) {
    this.#setSide(side);
    byId("ticket").classList.add("open");
    this.fields.qty.focus();
    this.fields.qty.select();
  }

  /**
   * Fill a price in, and a side if there is one: a limit order.
   * @param {Side | null} side
   * @param {number} price
   */
  fill(side, price) {
    const { order_type: type, price: field } = this.fields;
    if (side) this.#setSide(side);
    if (type.value === "market" || type.value === "stop") {
      type.value = "limit";
      type.oninput();
    }
    this.draw();
    field.value = tickOf(this.exchange.instrument).plain(price);
    this.isOurs = true;
    this.armed = side ? [side, price] : null;
    byId("ticket").classList.add("open");
    showResult("");
    this.draw();
  }

  /**
   * Return whether a second click on this price of the ladder sends.
   * @param {Side} side
   * @param {number} price
   */
  isArmed(side, price) {
    return this.armed?.[0] === side && this.armed[1] === price;
  }

  /** Send the order, if its fields are valid. */
  send() {
    this.form.requestSubmit();
  }

  /** Empty the ticket: no price of ours, nothing armed, no result. */
  clear() {
    this.isOurs = false;
    this.armed = null;
    this.fields.price.value = "";
    showResult("");
    this.draw();
  }

  /**
   * Close the position of a symbol with a market order.
   * @param {string} symbol
   */
  flatten(symbol) {
    const { account, instruments } = this.exchange;
    const lots = account?.lots(symbol) ?? 0;
    const instrument = instruments.get(symbol);
    if (!lots || !instrument) return;
    const qty = Math.min(Math.abs(lots), instrument.max_qty);
    const side = lots > 0 ? "sell" : "buy";
    this.#ask({ symbol, side, qty, order_type: "market" });
  }

  // Drawing -----------------------------------------------------------------

  /** Offer valid combinations, for the instrument shown. */
  draw() {
    const { instrument } = this.exchange;
    if (!instrument) return;
    const { qty, price, order_type, time_in_force, stp } = this.fields;
    const { post_only, trigger_price, display_qty, seconds } = this.fields;
    const type = order_type.value;
    const hasPrice = type === "limit" || type === "stop_limit";
    if (instrument.symbol !== this.symbol) {
      price.value = trigger_price.value = "";
      this.isOurs = false;
      this.armed = null;
    }
    this.symbol = instrument.symbol;
    boundPrice(price, instrument);
    boundPrice(trigger_price, instrument);
    qty.max = display_qty.max = instrument.max_qty;
    offer(price, hasPrice);
    offer(trigger_price, type.startsWith("stop"));
    for (const option of time_in_force.options) {
      option.disabled = !TIMES[type].includes(option.value);
    }
    const time = time_in_force.value;
    const mayRest = hasPrice && (time === "gtc" || time === "gtd");
    offer(seconds, time === "gtd");
    offer(post_only, mayRest);
    offer(display_qty, mayRest);
    stp.options[3].disabled = !instrument.self_trades;
    this.update();
  }

  /** Draw what follows the book and the account, which change often. */
  update() {
    const { instrument } = this.exchange;
    if (!instrument || instrument.symbol !== this.symbol) return;
    if (!this.fields.price.disabled) this.#followPrice();
    this.#drawWords();
  }

  /** Show the best opposite price until a price is chosen. */
  #followPrice() {
    const { price, side } = this.fields;
    if (this.isOurs || this.form.matches(":focus-within, :hover")) {
      if (price.value !== "" || this.isOurs) return;
    }
    const { book, instrument } = this.exchange;
    const opposite = side.value === "buy" ? book.asks : book.bids;
    const [[best] = []] = opposite.top(1);
    price.value = best === undefined ? "" : tickOf(instrument).plain(best);
  }

  /** Say on the button what is sent, what it costs, and what is held then. */
  #drawWords() {
    const { exchange, form, fields } = this;
    const { instrument, account, instruments, book } = exchange;
    if (!instrument) return;
    const { symbol } = instrument;
    const order = this.#order();
    const isBuy = order.side === "buy";
    const tick = tickOf(instrument);
    const prices = [order.price, order.trigger_price];
    const isKnown = !prices.includes(null) && order.qty > 0;
    const price = isKnown ? ` at ${showOrderPrice(order, tick)}` : "";
    const button = form.querySelector("[type=submit]");
    const [what, costs] = button.children;
    put(what, `${isBuy ? "Buy" : "Sell"} ${order.qty || ""} ${symbol}${price}`);
    button.dataset.side = order.side;
    const [[best] = []] = (isBuy ? book.asks : book.bids).top(1);
    const paid = order.price ?? order.trigger_price ?? best;
    const lots = account?.lots(symbol) ?? 0;
    const after = lots + (isBuy ? 1 : -1) * order.qty;
    const words = [];
    if (isKnown && paid !== null && paid !== undefined) {
      const fee = takerFee(instrument, order.qty, paid);
      const value = paid * order.qty * valueOf(instrument);
      const cash = isBuy ? value + fee : value - fee;
      const unit = unitOfAll(instruments);
      const about = order.price === undefined ? "about " : "";
      words.push(`${isBuy ? "costs" : "gives"} ${about}${unit.show(cash)}`);
      if (fee) words.push(`fee ${unit.show(fee)} of it`);
    }
    words.push(`position ${showPosition(lots)} → ${showPosition(after)}`);
    put(costs, words.join(" · "));
    const flatten = byId("flatten");
    flatten.disabled = !lots;
    put(
      flatten,
      lots
        ? `Flatten: ${lots > 0 ? "sell" : "buy"} ${Math.abs(lots)} at market`
        : "Flatten: no position",
    );
    const more = [fields.order_type, fields.time_in_force]
      .map(({ selectedOptions: [option] }) => option.text.toLowerCase());
    if (order.display_qty) more.push(`${order.display_qty} shown`);
    if (order.post_only) more.push("post only");
    put(byId("more-words"), more.join(", "));
    this.#drawQuick(book, tick);
  }

  /**
   * @param {Book} book
   * @param {Tick} tick
   */
  #drawQuick(book, tick) {
    const [[ask] = []] = book.asks.top(1);
    const [[bid] = []] = book.bids.top(1);
    const at = (price) => (price === undefined ? "" : ` ${tick.show(price)}`);
    put(byId("quick-buy"), `▲ Buy${at(ask)}`);
    put(byId("quick-sell"), `▼ Sell${at(bid)}`);
  }

  // The fields --------------------------------------------------------------

  #setSide(side) {
    const { side: sides } = this.fields;
    if (sides.value !== side) {
      this.isOurs = false;
      this.fields.price.value = ""; // the best opposite is another one
    }
    sides.value = side;
    this.armed = null;
    this.draw();
  }

  #typed(field) {
    showResult("");
    this.armed = null;
    if (field.name === "price") this.isOurs = field.value !== "";
    if (field.name === "side" && !this.isOurs) this.fields.price.value = "";
    this.draw();
  }

  /** Step a field by a tick or a lot. */
  #step(target) {
    const { field: name, by } = target.dataset;
    if (!name) return;
    const field = this.fields[name];
    if (Number(by) > 0) field.stepUp();
    else field.stepDown();
    this.#typed(field);
  }

  /** @returns {Draft} the order that the fields describe */
  #order() {
    const { instrument } = this.exchange;
    const { side, qty, price, order_type, time_in_force, stp } = this.fields;
    const { post_only, trigger_price, display_qty, seconds } = this.fields;
    const tick = tickOf(instrument);
    /** @type {Draft} */
    const order = {
      symbol: instrument?.symbol ?? "",
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
    if (stp.value !== STP) order.stp = stp.value;
    if (!seconds.disabled) order.seconds = Number(seconds.value);
    return order;
  }

  // Sending -----------------------------------------------------------------

  #submit() {
    // What the button says must be what is sent.
    if (this.symbol !== this.exchange.symbol) this.draw();
    else if (!this.isSending) this.#ask(this.#order());
  }

  /**
   * Send an order, or ask first: if wanted, or if it is unusually large.
   * @param {Draft} order
   */
  #ask(order) {
    if (!this.exchange.trader) return;
    const usual = [...this.sizes].sort((a, b) => a - b)[this.sizes.length >> 1];
    const isLarge = order.qty > LARGE * usual && order.qty > this.asked;
    const { side, qty, symbol } = order;
    const tick = tickOf(this.exchange.instruments.get(symbol));
    const words = [`${side} ${qty} ${symbol} at ${showOrderPrice(order, tick)}.`];
    if (isLarge) words.push(`You usually send ${usual} at a time.`);
    const act = () => {
      if (isLarge) this.asked = qty;
      this.#place(order);
    };
    this.confirm(words.join(" "), act, isLarge);
  }

  /** Call `act` at once, or after the answer if that is wanted. */
  confirm(words, act, isNeeded = false) {
    if (!byId("confirm").checked && !isNeeded) {
      act();
      return;
    }
    put(byId("confirm-words"), words);
    this.pending = act;
    this.dialog.showModal();
    this.dialog.querySelector("[type=submit]").focus();
  }

  #confirmed() {
    this.dialog.close();
    this.pending();
  }

  /** @param {Draft} draft */
  #place({ seconds, ...fields }) {
    const order = /** @type {Order} */ (fields); // its prices are valid
    if (seconds) {
      order.expire_ts = this.exchange.now() + seconds * 1_000_000;
    }
    this.sizes.push(order.qty);
    this.sizes.splice(0, this.sizes.length - SIZES);
    this.isSending = true;
    this.armed = null;
    this.exchange.place(order, (reply) => {
      this.isSending = false;
      this.report(reply);
    });
    this.draw();
  }
}
