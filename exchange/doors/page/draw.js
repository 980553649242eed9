/** State -> document. Only text, in a bounded number of reused rows. */

import { LIVE } from "./exchange.js";
import { describeNews, Tick, tickOf, unitOf } from "./market.js";

export { tickOf };

const LEVELS = 12; // of each side; small screens hide the outer ones
const TAPE_ROWS = 40;
const LEADERS = 20;
const ORDERS_SHOWN = 50;
const FILLS_SHOWN = 30;
export const SIDES = { buy: "▲ buy", sell: "▼ sell" };
const PHASES = {
  pre_open: "◔ Not open yet",
  auction: "⇄ Auction",
  open: "● Open",
  halted: "❙❙ Halted",
  closed: "■ Closed",
};

const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });

export const byId = (id) => document.getElementById(id);

/** Change the text of an element if it differs. */
export function put(node, text) {
  if (node.shownText === text) return;
  node.shownText = text;
  node.textContent = text;
}

export function make(tag, className = "", text = "") {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text) put(node, text);
  return node;
}

export const showTime = (ts) => clock.format(ts / 1_000);
export const showLots = (lots) => lots.toLocaleString("en").replace("-", "−");
const showPosition = (lots) => (lots > 0 ? "+" : "") + showLots(lots);
/** Show a length of time in minutes and seconds. */
export function showLength(ms) {
  const seconds = Math.max(0, Math.ceil(ms / 1_000));
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

/** Show the position of a leader; "" if the exchange does not tell it. */
const showHeld = (positions, symbol) =>
  Object.keys(positions).length ? showPosition(positions[symbol] ?? 0) : "";

export const showPhase = (phase) => PHASES[phase] ?? phase.replaceAll("_", " ");

/** Return the unit of cash, as a tick; 1 if the instruments share none. */
export function unitOfAll(instruments) {
  const units = [...instruments.values()].map(unitOf);
  const [first] = units;
  const isShared = units.every((unit) => unit.equals(first));
  return first && isShared ? first : new Tick("1");
}

/** Return the price of an order in words, with its trigger. */
export function showOrderPrice({ price, trigger_price: trigger }, tick) {
  const limit = price === undefined ? "market" : tick.show(price);
  return trigger === undefined ? limit : `${limit} stop ${tick.show(trigger)}`;
}

/** Say what an instrument is; "" if it is spot. */
function describeTerms(instrument) {
  const { kind, strike, underlying, expire_ts: end } = instrument;
  if (!kind || kind === "spot") return "";
  const words = [kind];
  if (strike !== undefined) words.push(tickOf(instrument).show(strike));
  if (underlying !== undefined) words.push(`of ${underlying}`);
  if (instrument.question !== undefined) words.push(instrument.question);
  if (end !== undefined) words.push(`until ${showTime(end)}`);
  return words.join(" ");
}

/** Rows of cells with these classes; the first cell may be a heading. */
export class Rows {
  constructor(body, count, classes) {
    this.rows = Array.from({ length: count }, () => {
      const row = make("tr");
      row.hidden = true;
      row.append(...classes.map((name) => make("td", name)));
      body.append(row);
      return row;
    });
  }

  /** Show the texts of each row, and its class. */
  draw(items) {
    for (const [index, row] of this.rows.entries()) {
      const item = items[index];
      row.hidden = !item;
      if (!item) continue;
      item.texts.forEach((text, column) => put(row.cells[column], text));
      if (row.className !== item.className) row.className = item.className;
    }
  }
}

// The market ------------------------------------------------------------------

/** The list of instruments; a click calls `choose(symbol)`. */
export class Instruments {
  constructor(nav, choose) {
    this.nav = nav;
    this.choose = choose;
    this.buttons = new Map();
  }

  draw({ instruments, tickers, symbol: shown }) {
    if ([...instruments.keys()].join() !== [...this.buttons.keys()].join()) {
      this.buttons.clear();
      for (const symbol of instruments.keys()) {
        const button = make("button");
        button.type = "button";
        button.append(make("b", "", symbol), make("span"), make("i"));
        button.title = describeTerms(instruments.get(symbol));
        button.onclick = () => this.choose(symbol);
        this.buttons.set(symbol, button);
      }
      this.nav.replaceChildren(...this.buttons.values());
    }
    for (const [symbol, button] of this.buttons) {
      const instrument = instruments.get(symbol);
      const { last } = tickers.get(symbol) ?? {};
      const [, price, phase] = button.children;
      const isOpen = instrument.phase === "open";
      put(price, last === undefined ? "" : tickOf(instrument).show(last));
      put(phase, isOpen ? "" : showPhase(instrument.phase));
      button.setAttribute("aria-pressed", symbol === shown);
    }
  }
}

/** The head of the chart: name, last price and its direction, phase. */
export function drawHead({ symbol, instrument, trades }) {
  const valid = trades.rows.filter(({ busted }) => !busted);
  const last = valid.at(-1)?.price;
  const before = valid.findLast(({ price }) => price !== last)?.price;
  const change = before === undefined ? 0 : last - before;
  const arrow = change > 0 ? " ▲" : change < 0 ? " ▼" : "";
  put(byId("chart-title"), symbol ?? "");
  put(
    byId("last"),
    last === undefined ? "no trade yet" : tickOf(instrument).show(last) + arrow,
  );
  byId("last").className = change > 0 ? "buy" : change < 0 ? "sell" : "";
  put(byId("phase"), instrument ? showPhase(instrument.phase) : "");
  byId("phase").className = instrument?.phase ?? "";
  const terms = instrument ? describeTerms(instrument) : "";
  put(byId("terms"), terms);
  byId("terms").hidden = !terms;
}

/** What is played, and the trading time that is left. */
export function drawMatch({ match, closes, symbol, seen, speed }) {
  const { close_ts: end, close_left_ms: rest } = closes.get(symbol) ?? {};
  const passed = (Date.now() - seen.at) * Number(speed);
  const left = end === undefined ? rest : (end - seen.ts) / 1_000 - passed;
  const words = [];
  if (match) words.push(match.name);
  if (match?.round) words.push(`round ${match.round}`);
  if (left !== undefined) words.push(`${showLength(left)} left`);
  put(byId("match"), words.join(" · "));
  byId("match").hidden = !words.length;
}

/** The book: asks above, bids below, the best prices in the middle. */
export class Ladder {
  constructor(body) {
    const side = (name) =>
      Array.from({ length: LEVELS }, (_, index) => {
        const row = make("tr", index >= LEVELS - 4 ? `${name} outer` : name);
        const cells = ["bid", "price", "ask", "mine"].map((column) =>
          make("td", column),
        );
        const cell = cells[name === "bids" ? 0 : 2];
        const bar = make("span", "bar");
        const qty = make("span", "qty");
        cell.append(bar, qty);
        row.append(...cells);
        return { row, bar, qty, price: cells[1], mine: cells[3] };
      });
    this.asks = side("asks");
    this.bids = side("bids");
    const middle = make("tr", "middle");
    this.spread = make("td");
    this.spread.colSpan = 3;
    middle.append(this.spread, make("td", "mine"));
    body.append(
      ...this.asks.map(({ row }) => row).reverse(),
      middle,
      ...this.bids.map(({ row }) => row),
    );
  }

  draw({ book, instrument, account, symbol }) {
    const tick = tickOf(instrument);
    const bids = book.bids.top(LEVELS);
    const asks = book.asks.top(LEVELS);
    const most = Math.max(1, ...[...bids, ...asks].map(([, qty]) => qty));
    const own = { buy: new Map(), sell: new Map() };
    for (const order of account?.orders.values() ?? []) {
      if (order.symbol !== symbol || order.price === undefined) continue;
      if (order.order_status === "waiting") continue;
      const levels = own[order.side];
      const before = levels.get(order.price) ?? 0;
      levels.set(order.price, before + order.leaves_qty);
    }
    this.#drawSide(this.bids, bids, most, tick, own.buy);
    this.#drawSide(this.asks, asks, most, tick, own.sell);
    put(
      this.spread,
      bids.length && asks.length
        ? `spread ${tick.show(asks[0][0] - bids[0][0])}`
        : "no spread",
    );
  }

  #drawSide(rows, levels, most, tick, own) {
    for (const [index, { bar, qty, price, mine }] of rows.entries()) {
      const level = levels[index];
      const share = level ? (level[1] / most).toFixed(3) : "0";
      put(price, level ? tick.show(level[0]) : "");
      put(qty, level ? showLots(level[1]) : "");
      put(mine, level && own.has(level[0]) ? showLots(own.get(level[0])) : "");
      if (bar.share !== share) {
        bar.share = share;
        bar.style.transform = `scaleX(${share})`;
      }
    }
  }
}

/** The newest trades. */
export class Tape {
  constructor(body) {
    this.rows = new Rows(body, TAPE_ROWS, ["", "", "number", "number"]);
  }

  draw({ trades, instrument }) {
    const tick = tickOf(instrument);
    this.rows.draw(
      trades.rows
        .slice(-TAPE_ROWS)
        .reverse()
        .map(({ ts, side, price, qty, busted }) => ({
          className: busted ? `${side} busted` : side,
          texts: [showTime(ts), SIDES[side], tick.show(price), showLots(qty)],
        })),
    );
  }
}

export class Leaderboard {
  constructor(body) {
    this.rows = new Rows(body, LEADERS, ["", "name", "number", "number"]);
  }

  draw({ leaderboard, account, symbol, instruments }) {
    const money = unitOfAll(instruments);
    put(byId("leaders-symbol"), symbol ?? "");
    this.rows.draw(
      leaderboard.slice(0, LEADERS).map((row) => {
        const isUs = row.user === account?.user;
        return {
          className: isUs ? "us" : "",
          texts: [
            String(row.rank),
            row.user + (isUs ? " (you)" : ""),
            showHeld(row.positions, symbol),
            money.show(row.equity),
          ],
        };
      }),
    );
  }
}

export function drawMessages({ messages }) {
  const list = byId("messages");
  while (list.children.length < messages.length) list.append(make("li"));
  for (const [index, { ts, text, isBad }] of messages.entries()) {
    const item = list.children[index];
    put(item, `${showTime(ts)} ${text}`);
    item.className = isBad ? "bad" : "";
  }
}

export function drawNews({ news, round }) {
  const headline = byId("headline");
  put(headline, news ? `${showTime(news.ts)} ${describeNews(news)}` : "");
  headline.title = news?.body ?? "";
  headline.hidden = !news;
  put(byId("round"), `Round ${round}`);
  byId("round").hidden = round === 1;
}

export function drawConnection({ isLive, retryAt, trouble, speed, word }) {
  const node = byId("connection");
  const seconds = Math.max(0, Math.ceil((retryAt - Date.now()) / 1_000));
  const why = trouble && `: ${trouble}`;
  const isFast = word === LIVE && speed !== "1"; // a replay shows its speed
  const pace = isFast ? `, time ×${speed}` : "";
  put(
    node,
    isLive
      ? `● ${word}${pace}`
      : retryAt === null
        ? "○ Connecting …"
        : `○ Not connected${why}, next try in ${seconds} s`,
  );
  node.className = isLive ? "good" : "bad";
  byId("main").classList.toggle("stale", !isLive);
}

// The account -----------------------------------------------------------------

export function drawAccount({ account, symbol, instruments, tickers }) {
  if (!account) return;
  const money = unitOfAll(instruments);
  const profit = account.profit(tickers, instruments);
  const others = Object.entries(account.positions)
    .filter(([name, lots]) => lots && name !== symbol)
    .map(([name, lots]) => `${name} ${showPosition(lots)}`);
  const own = showPosition(account.positions[symbol] ?? 0);
  put(byId("own-title"), account.user);
  put(byId("position"), [`${symbol} ${own}`, ...others].join(", "));
  put(byId("profit"), (profit > 0 ? "+" : "") + money.show(profit));
  put(byId("cash"), money.show(account.cash));
  byId("profit").className = profit < 0 ? "sell" : profit > 0 ? "buy" : "";
}

export class Fills {
  constructor(body) {
    this.rows = new Rows(body, FILLS_SHOWN, ["", "", "number", "number"]);
  }

  draw({ account, instruments }) {
    if (!account) return;
    this.rows.draw(
      account.fills
        .slice(-FILLS_SHOWN)
        .reverse()
        .map((fill) => ({
          className: fill.busted ? `${fill.side} busted` : fill.side,
          texts: [
            showTime(fill.ts),
            `${SIDES[fill.side]} ${fill.symbol}`,
            tickOf(instruments.get(fill.symbol)).show(fill.last_price),
            showLots(fill.last_qty),
          ],
        })),
    );
  }
}

/**
 * The open orders. A row stays with its order, so that no button means
 * another order than the one that was aimed at.
 */
export class Orders {
  constructor(body, amend, cancel) {
    this.body = body;
    this.amend = amend;
    this.cancel = cancel;
    this.rows = new Map(); // by order_id
  }

  draw({ account, instruments }) {
    const orders = [...(account?.orders.values() ?? [])];
    const shown = new Map(
      orders.slice(0, ORDERS_SHOWN).map((order) => [order.order_id, order]),
    );
    for (const [id, row] of this.rows) {
      if (!shown.has(id)) this.#remove(id, row);
    }
    for (const [id, order] of shown) {
      const row = this.rows.get(id) ?? this.#add(id);
      const tick = tickOf(instruments.get(order.symbol));
      const texts = [
        String(id),
        `${SIDES[order.side]} ${order.symbol}`,
        showOrderPrice(order, tick),
        `${showLots(order.cum_qty)}/${showLots(order.qty)}`,
      ];
      row.className = order.side;
      texts.forEach((text, column) => put(row.cells[column], text));
    }
    const more = orders.length - shown.size;
    put(
      byId("orders-title"),
      more ? `Open orders: ${shown.size} and ${more} more` : "Open orders",
    );
    byId("cancel-all").hidden = !orders.length;
  }

  #add(id) {
    const row = make("tr");
    for (const name of ["id", "", "number", "number", "buttons"]) {
      row.append(make("td", name));
    }
    const button = (text, act) => {
      const node = make("button", "", text);
      node.type = "button";
      node.setAttribute("aria-label", `${text} order ${id}`);
      node.onclick = () => act(id);
      return node;
    };
    row.lastChild.append(
      button("Amend", this.amend),
      button("Cancel", this.cancel),
    );
    this.rows.set(id, row);
    this.body.append(row);
    return row;
  }

  #remove(id, row) {
    const hadFocus = row.contains(document.activeElement);
    this.rows.delete(id);
    row.remove();
    if (hadFocus) byId("orders-title").focus();
  }
}
