/** All instruments at a glance; options by strike. */

import { byId, make, put, Rows } from "./dom.js";
import { tickOf } from "./market.js";
import { drawCurve, makeSpark } from "./spark.js";
import {
  describeTerms,
  showLots,
  showOdds,
  showPhase,
  showPosition,
} from "./words.js";

const N = "number";
const CLASSES = ["", N, N, N, N, N, N, "wide", "wide"];

export const OVERVIEW = "overview"; // in the address; no symbol is lower case

/** @import { Account } from "./account.js" */
/** @import { Instruments } from "./board.js" */
/** @import { Exchange } from "./exchange.js" */

export class Overview {
  /** @param {Exchange} exchange */
  constructor(exchange) {
    this.exchange = exchange;
    this.rows = new Rows(byId("overview-rows"), CLASSES);
    this.chains = byId("chains");
    /** @type {Map<string, { rows: Rows }>} of options, by underlying and end */
    this.tables = new Map();
  }

  draw() {
    const { exchange } = this;
    put(byId("overview-symbol"), exchange.symbol ?? "");
    if (byId("overview").hidden) return;
    const { instruments, account } = exchange;
    const symbols = [...instruments.keys()];
    this.rows.draw(
      [...instruments].map(([symbol, instrument]) => ({
        className: "",
        texts: this.#texts(symbol, instrument, account),
      })),
    );
    for (const [n, symbol] of symbols.entries()) this.#decorate(n, symbol);
    this.#drawChains(instruments, account);
  }

  /**
   * @param {string} symbol
   * @param {Wire.Instrument} instrument
   * @param {Account | null} account
   */
  #texts(symbol, instrument, account) {
    const tick = tickOf(instrument);
    const { last, open } = this.exchange.prices.of(symbol);
    const { bid, ask, volume } = this.exchange.tickers.get(symbol) ?? {};
    const show = (price) => {
      if (price === undefined) return "–";
      const odds = showOdds(instrument, price);
      return tick.show(price) + (odds && ` (${odds})`);
    };
    const change = last === undefined || open === undefined ? 0 : last - open;
    const arrow = change > 0 ? "▲ +" : change < 0 ? "▼ " : "";
    return [
      "",
      show(last),
      last === undefined ? "–" : arrow + tick.show(change),
      show(bid),
      show(ask),
      showLots(volume ?? 0),
      account ? showPosition(account.lots(symbol)) : "",
      "",
      showPhase(instrument.phase),
    ];
  }

  /**
   * The name as a link, the change in colour, the spark line.
   * @param {number} n
   * @param {string} symbol
   */
  #decorate(n, symbol) {
    const { cells } = this.rows.rows[n];
    const { instruments, prices } = this.exchange;
    let link = cells[0].querySelector("a");
    if (!link) {
      link = make("a");
      cells[0].replaceChildren(link, make("small"));
      cells[7].replaceChildren(makeSpark());
    }
    link.href = `#${encodeURIComponent(symbol)}`;
    put(link, symbol);
    const instrument = instruments.get(symbol);
    put(cells[0].lastChild, instrument ? describeTerms(instrument) : "");
    const { last, open, points } = prices.of(symbol);
    const change = last === undefined || open === undefined ? 0 : last - open;
    const side = change > 0 ? "buy" : change < 0 ? "sell" : "";
    cells[2].className = `number ${side}`;
    drawCurve(cells[7].firstChild, points);
  }

  // Options -----------------------------------------------------------------

  /**
   * A table for the calls and puts of each underlying and end, by strike.
   * @param {Instruments} instruments
   * @param {Account | null} account
   */
  #drawChains(instruments, account) {
    const options = [...instruments.values()].filter(
      ({ kind }) => kind === "call" || kind === "put",
    );
    const chains = Map.groupBy(
      options,
      ({ underlying, expires }) => `${underlying} ${expires}`,
    );
    if ([...chains.keys()].join() !== [...this.tables.keys()].join()) {
      this.tables.clear();
      const nodes = [...chains].map(([key, [one]]) => this.#add(key, one));
      this.chains.replaceChildren(...nodes);
    }
    for (const [key, chain] of chains) {
      const strikes = Map.groupBy(chain, ({ strike = 0 }) => strike);
      const sorted = [...strikes].sort(([a], [b]) => a - b);
      this.tables.get(key)?.rows.draw(
        sorted.map(([strike, pair]) => ({
          className: "",
          texts: this.#chainTexts(strike, pair, account),
        })),
      );
    }
  }

  /**
   * @param {number} strike
   * @param {Wire.Instrument[]} pair
   * @param {Account | null} account
   */
  #chainTexts(strike, pair, account) {
    const side = (kind) => {
      const option = pair.find((one) => one.kind === kind);
      if (!option) return ["", "", ""];
      const tick = tickOf(option);
      const { bid, ask } = this.exchange.tickers.get(option.symbol) ?? {};
      const show = (price) => (price === undefined ? "–" : tick.show(price));
      const lots = account?.lots(option.symbol) ?? 0;
      return [lots ? showPosition(lots) : "", show(bid), show(ask)];
    };
    const [lots, bid, ask] = side("put");
    const price = tickOf(pair[0]).show(strike);
    return [...side("call"), price, bid, ask, lots];
  }

  /**
   * @param {string} key
   * @param {Wire.Instrument} option
   */
  #add(key, { underlying, expires }) {
    const section = make("div", "chain");
    const end = expires === "round" ? "" : `, ${expires} s after they open`;
    const title = make("h3", "", `Options on ${underlying}${end}`);
    const table = make("table");
    const head = make("tr");
    const names = ["Yours", "Call bid", "Call ask", "Strike"];
    for (const name of [...names, "Put bid", "Put ask", "Yours"]) {
      const cell = make("th", "number", name);
      cell.scope = "col";
      head.append(cell);
    }
    const body = make("tbody");
    const headRows = make("thead");
    headRows.append(head);
    table.append(headRows, body);
    section.append(title, table);
    this.tables.set(key, { rows: new Rows(body, Array(7).fill("number")) });
    return section;
  }
}
