/** Offers of the exchange to accept, and conversions. */

import { byId, make, makeButton, onSubmit, put } from "./dom.js";
import { tickOf } from "./market.js";
import { showResult } from "./trade.js";
import { showLength, showLots, unitOfAll } from "./words.js";

/** @import { Answered, Exchange } from "./exchange.js" */

/**
 * Return a function that shows what came of a request, in these words.
 * @param {Exchange} exchange
 * @param {string} words
 * @returns {Answered}
 */
function telling(exchange, words) {
  return (reply) => {
    const isBad = reply.type === "error";
    const text = isBad ? `Refused: ${reply.message}` : words;
    showResult(text, isBad);
    exchange.note(text, isBad);
  };
}

/** The open offers; each has a button that accepts it. */
export class Tenders {
  /** @param {Exchange} exchange */
  constructor(exchange) {
    this.exchange = exchange;
    this.list = byId("tenders");
    this.items = new Map(); // by tender_id
  }

  draw() {
    const { account, instruments } = this.exchange;
    const now = this.exchange.now();
    const open = new Map(
      [...(account?.tenders ?? [])].filter(
        ([, { expire_ts: end }]) => end > now,
      ),
    );
    for (const [name, item] of this.items) {
      if (open.has(name)) continue;
      this.items.delete(name);
      item.remove();
    }
    for (const [name, { side, qty, symbol, price, expire_ts: end }] of open) {
      const item = this.items.get(name) ?? this.#add(name);
      const terms = `${side} ${showLots(qty)} ${symbol}`;
      const at = tickOf(instruments.get(symbol)).show(price);
      const left = showLength((end - now) / 1_000);
      put(item.firstChild, `Offer: ${terms} at ${at}, ${left} left`);
    }
  }

  #add(name) {
    const item = make("li");
    const accept = () =>
      this.exchange.accept(
        name,
        telling(this.exchange, `Offer ${name} accepted`),
      );
    const button = makeButton("Accept", accept);
    button.setAttribute("aria-label", `Accept offer ${name}`);
    item.append(make("span"), button);
    this.items.set(name, item);
    this.list.append(item);
    return item;
  }
}

/** Converting lots of an instrument and its basket into each other. */
export class Conversion {
  /** @param {Exchange} exchange */
  constructor(exchange) {
    this.exchange = exchange;
    this.box = byId("convert");
    this.form = this.box.querySelector("form");
    onSubmit(
      this.form,
      ({ lots }, { value: side }) => this.#send(side, Number(lots.value)),
      () => showResult(""),
    );
    this.symbol = ""; // the instrument of the lots in the form
  }

  draw() {
    const { instrument, instruments } = this.exchange;
    const terms = instrument?.convert;
    this.box.hidden = !terms;
    if (!terms) return;
    const { lot, fee, basket, per = 1 } = terms;
    const { symbol } = instrument;
    const { lots } = this.form.elements;
    if (symbol !== this.symbol) lots.value = lot;
    this.symbol = symbol;
    lots.min = lots.step = lot;
    lots.max = instrument.max_qty;
    const legs = Object.entries(basket).map(([name, n]) => `${n} ${name}`);
    const cost = unitOfAll(instruments).show(fee);
    put(
      byId("convert-words"),
      `${per} ${symbol} = ${legs.join(" + ")}; fee ${cost} each time`,
    );
    const [make, take] = this.form.querySelectorAll("[type=submit]");
    put(make, `Make ${symbol}: give the basket`);
    put(take, `Take ${symbol} apart: get the basket`);
  }

  #send(side, qty) {
    const { symbol } = this;
    const words =
      side === "buy" ? `${qty} ${symbol} made` : `${qty} ${symbol} taken apart`;
    const terms = { symbol, side, qty };
    this.exchange.convert(terms, telling(this.exchange, words));
  }
}
