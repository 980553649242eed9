/** What everybody may see -> document, in a bounded number of reused rows. */

import { LIVE } from "./board.js";
import { byId, make, put, Rows } from "./dom.js";
import { describeNews, tickOf } from "./market.js";
import {
  describeTerms,
  secondsUntil,
  showLength,
  showLots,
  showOdds,
  showPhase,
  showPosition,
  showTime,
  showWhy,
  SIDES,
  unitOfAll,
} from "./words.js";

export { byId, make, put, showTime, tickOf };

const TAPE_ROWS = 40;
const LEADERS = 20;
const SCROLL = 0.8; // of the width of the tabs, by one click

/** @import { Account } from "./account.js" */
/** @import { Exchange } from "./exchange.js" */

// The market ------------------------------------------------------------------

/** The list of instruments; a click calls `choose(symbol)`. */
export class Instruments {
  /**
   * @param {HTMLElement} nav
   * @param {(symbol: string) => void} choose
   */
  constructor(nav, choose) {
    this.nav = nav;
    this.choose = choose;
    /** @type {Map<string, HTMLButtonElement>} by symbol */
    this.buttons = new Map();
    /** @type {string | null} */
    this.shown = null;
    const [left, right] = [byId("tabs-left"), byId("tabs-right")];
    left.onclick = () => this.#scroll(-1);
    right.onclick = () => this.#scroll(1);
    nav.onscroll = () => this.#arrows();
    this.isMoved = false; // by hand, away from the instrument shown
    nav.onwheel = nav.onpointerdown = () => (this.isMoved = true);
    // It is called after the layout, so that reading sizes costs none.
    this.sizes = new ResizeObserver(() => {
      if (!this.isMoved) this.#follow();
      this.#arrows();
    });
    this.sizes.observe(nav);
  }

  /** @param {Exchange} exchange */
  draw({ instruments, prices, symbol: shown }) {
    if ([...instruments.keys()].join() !== [...this.buttons.keys()].join()) {
      this.buttons.clear();
      for (const [symbol, instrument] of instruments) {
        const button = make("button");
        button.type = "button";
        button.append(make("b", "", symbol), make("span"), make("i"));
        button.title = describeTerms(instrument);
        button.onclick = () => this.choose(symbol);
        this.buttons.set(symbol, button);
      }
      this.sizes.disconnect();
      for (const one of [this.nav, ...this.buttons.values()]) {
        this.sizes.observe(one);
      }
      this.nav.replaceChildren(...this.buttons.values());
      this.shown = null;
    }
    for (const [symbol, button] of this.buttons) {
      const instrument = instruments.get(symbol);
      if (!instrument) continue;
      const { last } = prices.of(symbol);
      const [, price, phase] = button.children;
      const isOpen = instrument.phase === "open";
      put(price, last === undefined ? "" : tickOf(instrument).show(last));
      put(phase, isOpen ? "" : showPhase(instrument.phase));
      button.setAttribute("aria-pressed", String(symbol === shown));
    }
    if (shown !== this.shown) {
      this.shown = shown;
      this.isMoved = false;
      this.#follow();
    }
  }

  /** Scroll to the instrument shown. */
  #follow() {
    const button = this.buttons.get(this.shown ?? "");
    button?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  #scroll(direction) {
    this.isMoved = true;
    this.nav.scrollBy({ left: direction * SCROLL * this.nav.clientWidth });
  }

  /** Offer to scroll where there is more. */
  #arrows() {
    const { scrollLeft, scrollWidth, clientWidth } = this.nav;
    const isLong = scrollWidth > clientWidth + 1;
    const [left, right] = [byId("tabs-left"), byId("tabs-right")];
    left.hidden = right.hidden = !isLong;
    left.disabled = scrollLeft < 1;
    right.disabled = scrollLeft + clientWidth > scrollWidth - 2;
  }
}

/**
 * The head of the chart: name, last price and its direction, phase.
 * @param {Exchange} exchange
 */
export function drawHead(exchange) {
  const { symbol, instrument, prices } = exchange;
  const { last, before } = prices.of(symbol);
  const change =
    last === undefined || before === undefined ? 0 : last - before;
  const arrow = change > 0 ? " ▲" : change < 0 ? " ▼" : "";
  const shown = last === undefined ? "" : tickOf(instrument).show(last);
  const odds = showOdds(instrument, last);
  put(byId("chart-title"), symbol ?? "");
  put(
    byId("last"),
    shown
      ? shown + arrow + (odds && ` · ${odds}`)
      : instrument
        ? "no trade yet"
        : "",
  );
  byId("last").className = change > 0 ? "buy" : change < 0 ? "sell" : "";
  put(byId("phase"), instrument ? showPhase(instrument.phase) : "");
  byId("phase").className = instrument?.phase ?? "";
  const terms = instrument ? describeTerms(instrument) : "";
  put(byId("terms"), terms);
  byId("terms").hidden = !terms;
  const title = [shown, symbol, "Exchange"].filter(Boolean).join(" ");
  if (document.title !== title) document.title = title;
}

/**
 * What is played, why a phase is in force, and the time that is left.
 * @param {Exchange} exchange
 */
export function drawMatch(exchange) {
  const { match, instrument, speed } = exchange;
  const now = exchange.now();
  const { close_ts: end, close_left_ms: rest } = instrument ?? {};
  const left = end === undefined ? rest : (end - now) / 1_000;
  const words = [];
  if (match) words.push(match.name);
  if (match?.round) words.push(`round ${match.round}`);
  if (left !== undefined) words.push(`${showLength(left)} left`);
  put(byId("match"), words.join(" · "));
  byId("match").hidden = !words.length;
  const why = instrument ? showWhy(instrument, now) : "";
  put(byId("why"), why);
  byId("why").hidden = !why;
}

/** The newest trades of the round. */
export class Tape {
  constructor(body) {
    this.rows = new Rows(body, ["", "", "number", "number"], TAPE_ROWS);
  }

  /** @param {Exchange} exchange */
  draw(exchange) {
    const { trades, instrument } = exchange;
    const tick = tickOf(instrument);
    this.rows.draw(
      trades.rows
        .slice(-TAPE_ROWS)
        .filter((trade) => exchange.isShown(trade))
        .reverse()
        .map(({ ts, side, price, qty, busted }) => ({
          className: busted ? `${side} busted` : side,
          texts: [showTime(ts), SIDES[side], tick.show(price), showLots(qty)],
        })),
    );
  }
}

/** Show the position of a leader; "" if the exchange does not tell it. */
const showHeld = (positions, symbol) =>
  Object.keys(positions).length ? showPosition(positions[symbol] ?? 0) : "";

/**
 * The leaderboard. Our own row has the equity and position that our panel
 * shows, so that the two agree, and stands last if we are far behind.
 */
export class Leaderboard {
  constructor(body) {
    this.rows = new Rows(body, ["", "name", "number", "number"], LEADERS + 1);
  }

  /** @param {Exchange} exchange */
  draw({ leaderboard, account, symbol, instruments, tickers }) {
    const money = unitOfAll(instruments);
    put(byId("leaders-symbol"), symbol ?? "");
    const rows = leaderboard.map((row) => {
      if (row.user !== account?.user) return row;
      const equity = account.worth(tickers, instruments);
      return { ...row, equity, positions: account.positions };
    });
    rows.sort((a, b) => b.equity - a.equity);
    const ranks = rows.map(({ equity }) =>
      1 + rows.findIndex((other) => other.equity === equity),
    );
    const own = rows.findIndex(({ user }) => user === account?.user);
    const shown = [...rows.keys()].slice(0, LEADERS);
    if (own >= LEADERS) shown.push(own);
    this.rows.draw(
      shown.map((n) => {
        const { user, positions, equity } = rows[n];
        const isUs = n === own;
        return {
          className: isUs ? "us" : "",
          texts: [
            String(ranks[n]),
            user + (isUs ? " (you)" : ""),
            showHeld(positions, symbol),
            money.show(equity),
          ],
        };
      }),
    );
  }
}

/** @param {Exchange} exchange */
export function drawMessages({ messages }) {
  const list = byId("messages");
  while (list.children.length < messages.length) {
    const item = make("li");
    item.append(make("span"), make("small"));
    list.append(item);
  }
  for (const [index, item] of [...list.children].entries()) {
    const message = messages[index];
    item.hidden = !message;
    if (!message) continue;
    const { ts, text, isBad, body } = message;
    const [line, more] = item.children;
    put(line, `${showTime(ts)} ${isBad ? "! " : ""}${text}`);
    put(more, body);
    item.className = isBad ? "bad" : "";
  }
  list.parentNode.querySelector(".empty").hidden = messages.length > 0;
}

/** @param {Exchange} exchange */
export function drawNews({ news, round, showsEarlier }) {
  const headline = byId("headline");
  put(headline, news ? `${showTime(news.ts)} ${describeNews(news)}` : "");
  headline.title = news?.body ?? "";
  headline.hidden = !news;
  put(byId("round"), `Round ${round}`);
  byId("round").hidden = byId("earlier").hidden = round === 1;
  byId("earlier").querySelector("input").checked = showsEarlier;
}

/** @param {Exchange} exchange */
export function drawConnection(exchange) {
  const { isLive, retryAt, trouble, speed, word } = exchange;
  const node = byId("connection");
  const seconds = secondsUntil(retryAt);
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
  const { classList } = byId("main");
  classList.toggle("stale", !isLive);
  if (isLive) classList.remove("unknown");
}
