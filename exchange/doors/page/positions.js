/** What the account holds and has earned: head, positions, equity curve. */

import { mark, realizedBySymbol, valueOf } from "./account.js";
import { byId, makeButton, put, Rows } from "./dom.js";
import { tickOf } from "./market.js";
import { drawCurve } from "./spark.js";
import {
  showAverage,
  showPosition,
  showProfit,
  showTime,
  unitOfAll,
} from "./words.js";

/** @import { Account } from "./account.js" */
/** @import { Instruments } from "./board.js" */
/** @import { Exchange } from "./exchange.js" */

/** @param {Exchange} exchange */
export function drawAccount({ account, symbol, instruments, tickers }) {
  if (!account || symbol === null) return;
  const money = unitOfAll(instruments);
  const profit = account.profit(tickers, instruments);
  const others = Object.entries(account.positions)
    .filter(([name, lots]) => lots && name !== symbol)
    .map(([name, lots]) => `${name} ${showPosition(lots)}`);
  const own = showPosition(account.lots(symbol));
  put(byId("own-title"), account.user);
  put(byId("position"), [`${symbol} ${own}`, ...others].join(", "));
  put(byId("profit"), showProfit(money, profit));
  put(byId("cash"), money.show(account.cash));
  put(byId("equity"), money.show(account.worth(tickers, instruments)));
  byId("profit").className = profit < 0 ? "sell" : profit > 0 ? "buy" : "";
}

/** A row for each instrument that is held or has realized a profit. */
export class Positions {
  /**
   * @param {Exchange} exchange
   * @param {(symbol: string) => void} flatten
   */
  constructor(exchange, flatten) {
    this.exchange = exchange;
    const classes = ["name", ...Array(5).fill("number"), "buttons"];
    this.rows = new Rows(byId("positions"), classes);
    this.flatten = flatten;
    /** @type {Map<string, number>} by symbol */
    this.realized = new Map();
    /** @type {{ made: string, fills: unknown } | null} the fills that this was computed from */
    this.madeOf = null;
  }

  draw() {
    const { account, instruments, round } = this.exchange;
    if (!account || byId("panel-positions").hidden) return;
    const money = unitOfAll(instruments);
    this.#realize(account, instruments, round);
    const symbols = [...instruments.keys()].filter(
      (symbol) => account.lots(symbol) || this.realized.get(symbol),
    );
    let [open, closed] = [0, 0];
    const items = symbols.map((symbol) => {
      const [unrealized, texts] = this.#texts(symbol, account);
      const realized = this.realized.get(symbol) ?? 0;
      open += unrealized;
      closed += realized;
      texts.push(showProfit(money, realized));
      return { className: "", texts };
    });
    const rest = account.realized - closed;
    const blanks = ["", "", "", ""];
    if (rest) {
      const texts = ["Other", ...blanks, showProfit(money, rest)];
      items.push({ className: "", texts });
    }
    if (items.length) {
      const sum = [showProfit(money, open), showProfit(money, account.realized)];
      items.push({ className: "sum", texts: ["All", "", "", "", ...sum] });
    }
    this.rows.draw(items);
    this.#drawButtons(symbols, account);
  }

  /**
   * Compute what fills realized, if there are new ones.
   * @param {Account} account
   * @param {Instruments} instruments
   * @param {number} round
   */
  #realize(account, instruments, round) {
    const made = `${account.fills.length} ${account.fills.at(-1)?.seq} ${round}`;
    if (made === this.madeOf?.made && this.madeOf.fills === account.fills) {
      return;
    }
    this.madeOf = { made, fills: account.fills };
    this.realized = realizedBySymbol(account.fills, instruments, round);
  }

  /**
   * Return the profit that is not realized, and the texts of a row.
   * @param {string} symbol
   * @param {Account} account
   * @returns {[number, string[]]}
   */
  #texts(symbol, account) {
    const { instruments, tickers } = this.exchange;
    const instrument = instruments.get(symbol);
    const [tick, money] = [tickOf(instrument), unitOfAll(instruments)];
    const lots = account.lots(symbol);
    if (!lots) return [0, [symbol, "0", "", "", ""]];
    const cost = account.costs.get(symbol);
    const price = mark(tickers.get(symbol));
    const value = valueOf(instrument);
    const isKnown = cost !== undefined && price !== undefined;
    const unrealized = isKnown ? lots * price * value - cost : 0;
    return [
      unrealized,
      [
        symbol,
        showPosition(lots),
        cost === undefined ? "" : showAverage(tick, cost / lots / value),
        price === undefined ? "" : tick.show(price),
        isKnown ? showProfit(money, unrealized) : "",
      ],
    ];
  }

  /**
   * @param {string[]} symbols
   * @param {Account} account
   */
  #drawButtons(symbols, account) {
    for (const [n, row] of this.rows.rows.entries()) {
      const symbol = symbols[n];
      const isHeld = !row.hidden && symbol && account.lots(symbol) !== 0;
      let button = row.lastChild.firstChild;
      if (!button && isHeld) {
        button = makeButton("Flatten", () => this.flatten(button.value));
        row.lastChild.append(button);
      }
      if (!button) continue;
      button.hidden = !isHeld;
      button.value = symbol;
      button.setAttribute("aria-label", `Flatten ${symbol}`);
    }
  }
}

/**
 * Draw how the equity went, points of [ts, equity].
 * @param {Exchange} exchange
 * @param {[number, number][]} curve
 */
export function drawEquity({ account, instruments }, curve) {
  if (!account || byId("panel-curve").hidden) return;
  const money = unitOfAll(instruments);
  drawCurve(byId("curve"), curve);
  if (curve.length < 2) {
    put(byId("curve-words"), "The curve begins with the next second");
    return;
  }
  const values = curve.map(([, equity]) => equity);
  const [first, last] = [values[0], values[values.length - 1]];
  const low = values.reduce((a, b) => Math.min(a, b));
  const high = values.reduce((a, b) => Math.max(a, b));
  put(
    byId("curve-words"),
    `Since ${showTime(curve[0][0])}: from ${money.show(first)} to ` +
      `${money.show(last)}, between ${money.show(low)} and ` +
      `${money.show(high)}`,
  );
}
