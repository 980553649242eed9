/**
 * The wall: the market for those who watch, on a large screen.
 *
 * A guest of the connection: it subscribes to the trades of all instruments
 * and asks for the leaderboard. All else is the state of the `Exchange`.
 */

import { Curves } from "./curves.js";
import { byId, make, put, Rows } from "./dom.js";
import { Equities, SHOWN } from "./equity.js";
import { describeNews, tickOf } from "./market.js";
import {
  secondsUntil,
  showLength,
  showLots,
  showPhase,
  showTime,
  SIDES,
  unitOfAll,
} from "./words.js";

export const WALL = "wall"; // the hash of the address
const SAVED = "exchange-wall"; // in sessionStorage: the curves
const LEADERS_MS = 1_000;
const TRADES = 10; // the newest of all instruments
const NEWS = 3;
const STRIP = 6; // prices side by side, in at most two rows
const LONG_STRIP = 10; // the same, of more instruments, in small
const CLOSED = "closed";

/** @import { Leader } from "./board.js" */
/** @import { Exchange } from "./exchange.js" */

export class Wall {
  /**
   * `redraw()` is called when something has changed.
   * @param {Exchange} exchange
   * @param {() => void} redraw
   */
  constructor(exchange, redraw) {
    this.exchange = exchange;
    this.redraw = redraw;
    this.isShown = false;
    this.equities = new Equities();
    /** @type {Leader[]} the last leaderboard */
    this.leaders = [];
    /** @type {number | null} its time; null: none has arrived */
    this.leadersTs = null;
    /** @type {Map<string, number>} by symbol: the first price of the round */
    this.opens = new Map();
    this.asked = ""; // the round and symbols whose past is asked for
    /** @type {Wire.Trade[]} the newest first */
    this.trades = [];
    /** @type {Wire.News[]} the newest first */
    this.news = [];
    this.standings = new Rows(
      byId("wall-standings"),
      ["rank", "mark", "name", "number"],
      SHOWN,
    );
    this.tape = new Rows(
      byId("wall-trades"),
      ["", "", "number", "number"],
      TRADES,
    );
    /** @type {(units: number) => string} */
    const showMoney = (units) => unitOfAll(exchange.instruments).show(units);
    this.curves = new Curves(byId("wall-curves"), showMoney, showTime);
    exchange.guests.push(this);
    setInterval(() => this.#askLeaders(), LEADERS_MS);
    addEventListener("pagehide", () => this.#save());
  }

  /**
   * Show the wall, or the market again.
   * @param {boolean} isShown
   */
  show(isShown) {
    if (isShown === this.isShown) return;
    this.isShown = isShown;
    document.documentElement.classList.toggle(WALL, isShown);
    byId("wall").hidden = !isShown;
    if (isShown) this.greet();
    else this.#leave();
    this.redraw();
  }

  // What it hears -----------------------------------------------------------

  /** Ask for what the page itself does not ask for. */
  greet() {
    if (!this.isShown) return;
    this.trades = [];
    this.news = [];
    this.asked = "";
    this.exchange.ask(
      [
        { type: "subscribe", channels: ["trades"] },
        { type: "get", what: "news", limit: NEWS },
      ],
      undefined,
      (reply) => reply?.data?.forEach((news) => this.#takeNews(news)),
    );
    this.#askLeaders();
  }

  /** @param {Wire.Event} message */
  receive(message) {
    if (!this.isShown) return;
    if (message.type === "trade") this.#takeTrades([message]);
    if (message.type === "bust") {
      this.trades = this.trades.filter(
        ({ symbol, trade_id: id }) =>
          symbol !== message.symbol || id !== message.trade_id,
      );
    }
    if (message.type === "news") this.#takeNews(message);
  }

  /** Follow only the instrument of the page again. */
  #leave() {
    this.#save();
    const { instruments, symbol: shown } = this.exchange;
    const others = [...instruments.keys()].filter((name) => name !== shown);
    if (!others.length) return;
    this.exchange.ask([
      { type: "unsubscribe", channels: ["trades"], symbols: others },
    ]);
  }

  /**
   * Take trades of one instrument, oldest first.
   * @param {Wire.Trade[]} trades
   */
  #takeTrades(trades) {
    const isKnown = ({ symbol, trade_id: id }) =>
      this.trades.some((t) => t.symbol === symbol && t.trade_id === id);
    const news = trades.filter((t) => !t.busted && !isKnown(t));
    for (const { symbol, price } of news) {
      if (!this.opens.has(symbol)) this.opens.set(symbol, price);
    }
    this.trades.unshift(...news.reverse());
    this.trades.sort((a, b) => b.ts - a.ts);
    this.trades.length = Math.min(this.trades.length, TRADES);
    this.redraw();
  }

  /** @param {Wire.News} news */
  #takeNews(news) {
    if (this.news[0]?.news_id >= news.news_id) return;
    this.news.unshift(news);
    this.news.length = Math.min(this.news.length, NEWS);
    this.redraw();
  }

  #askLeaders() {
    if (!this.isShown || document.hidden) return;
    this.exchange.ask([{ type: "get", what: "leaderboard" }], (reply) => {
      if (!reply?.data) return;
      this.leaders = reply.data;
      const { ts = 0 } = reply;
      this.leadersTs = ts;
      const { match, round } = this.exchange;
      const name = `${match?.name ?? ""} ${round}`;
      if (name !== this.equities.name || this.#isEarlier(ts)) {
        this.equities.clear(name);
        this.equities.restore(sessionStorage.getItem(SAVED), ts);
      }
      this.equities.take(ts, reply.data);
      this.redraw();
    });
    this.#askPast();
  }

  /** Whether time has jumped back, as it may in a replay. */
  #isEarlier(ts) {
    return ts < (this.equities.times.at(-1) ?? 0);
  }

  /** Ask for first prices and last trades, once for each round. */
  #askPast() {
    const { instruments, round } = this.exchange;
    const symbols = [...instruments.keys()];
    const asked = `${round} ${symbols}`;
    if (asked === this.asked) return;
    this.asked = asked;
    this.opens.clear();
    for (const symbol of symbols) {
      this.exchange.ask(
        [
          { type: "get", what: "candles", symbol, interval: "1d", limit: 1 },
          { type: "get", what: "trades", symbol, limit: TRADES },
        ],
        (reply) => {
          if (reply?.data?.length) this.opens.set(symbol, reply.data[0][1]);
        },
        (reply) => this.#takeTrades(reply?.data ?? []),
      );
    }
  }

  #save() {
    if (this.equities.times.length) {
      sessionStorage.setItem(SAVED, this.equities.save());
    }
  }

  // Drawing -----------------------------------------------------------------

  draw() {
    const { exchange } = this;
    byId("wall").classList.toggle("stale", !exchange.isLive);
    this.#drawHead(exchange);
    this.#drawStrip(exchange);
    this.#drawStandings(exchange);
    this.#drawTrades(exchange);
    this.#drawNews();
  }

  /** @param {Exchange} exchange */
  #drawHead(exchange) {
    const { match, round, instruments, isLive, retryAt, trouble } = exchange;
    const phases = [...instruments.values()].map(({ phase }) => phase);
    const isSame = phases.every((phase) => phase === phases[0]);
    const open = phases.filter((phase) => phase === "open").length;
    const phase = isSame ? (phases[0] ?? "") : open ? "open" : "halted";
    const words = isSame
      ? phase && showPhase(phase)
      : `${showPhase(phase)}: ${open} of ${phases.length} trade`;
    put(byId("wall-phase"), words);
    byId("wall-phase").className = phase;
    byId("wall-phase").hidden = !words;
    put(byId("wall-name"), match?.name ?? "Exchange");
    const number = match?.round ?? (round > 1 ? String(round) : "");
    put(byId("wall-round"), number && `Round ${number}`);
    byId("wall-round").hidden = !number;
    const pause =
      retryAt === null ? "" : `, next try in ${secondsUntil(retryAt)} s`;
    put(
      byId("wall-connection"),
      isLive ? "" : `○ Not connected${trouble && `: ${trouble}`}${pause}`,
    );
    byId("wall-connection").hidden = isLive;
    this.#drawClock(exchange, phases);
  }

  /**
   * @param {Exchange} exchange
   * @param {string[]} phases
   */
  #drawClock({ instruments, isLive }, phases) {
    const now = this.exchange.now();
    const left = [...instruments.values()]
      .filter(({ phase }) => phase !== CLOSED)
      .map(({ close_ts: end, close_left_ms: rest }) =>
        end === undefined ? rest : (end - now) / 1_000,
      )
      .filter((ms) => ms !== undefined);
    const isClosed = phases.length && phases.every((p) => p === CLOSED);
    const isKnown = left.length && !isClosed && isLive;
    const ms = Math.min(...left);
    put(byId("wall-left"), isKnown ? showLength(ms) : "");
    put(byId("wall-left-words"), !isKnown ? "" : ms > 0 ? "left" : "closing");
    byId("wall-left").classList.toggle("soon", isKnown && ms < 60_000);
  }

  /** @param {Exchange} exchange */
  #drawStrip({ instruments, tickers }) {
    const strip = byId("wall-strip");
    const names = [...instruments.keys()];
    if (strip.shownNames !== names.join()) {
      strip.shownNames = names.join();
      const isLong = names.length > 2 * STRIP;
      const most = isLong ? LONG_STRIP : STRIP;
      const rows = Math.max(1, Math.ceil(names.length / most));
      strip.style.setProperty("--columns", Math.ceil(names.length / rows));
      strip.classList.toggle("long", isLong);
      strip.replaceChildren(
        ...names.map((symbol) => {
          const item = make("li");
          item.append(make("b", "", symbol), make("span"), make("i"));
          return item;
        }),
      );
    }
    const phases = [...instruments.values()].map(({ phase }) => phase);
    const isSame = phases.every((phase) => phase === phases[0]);
    for (const [index, symbol] of names.entries()) {
      const [, price, change] = strip.children[index].children;
      const instrument = instruments.get(symbol);
      if (!instrument) continue;
      const tick = tickOf(instrument);
      const { last } = tickers.get(symbol) ?? {};
      const first = this.opens.get(symbol) ?? last;
      const moved =
        last === undefined || first === undefined ? 0 : last - first;
      const arrow = moved > 0 ? "▲ " : moved < 0 ? "▼ " : "";
      // The head says which phase all are in.
      const isOpen = isSame || instrument.phase === "open";
      const words = arrow && arrow + tick.show(Math.abs(moved));
      put(price, last === undefined ? "–" : tick.show(last));
      put(change, isOpen ? words : showPhase(instrument.phase));
      change.className = !isOpen ? "warn" : moved > 0 ? "good" : "bad";
    }
  }

  /** @param {Exchange} exchange */
  #drawStandings({ instruments, tickers, isLive }) {
    const money = unitOfAll(instruments);
    const leaders = this.leaders.slice(0, SHOWN);
    const curves = this.equities.curves(leaders);
    this.standings.draw(
      leaders.map(({ rank, user, equity }, index) => ({
        className: `c${curves[index].colour}`,
        texts: [String(rank), "", user, money.show(equity)],
      })),
    );
    const phases = [...instruments.values()].map(({ phase }) => phase);
    const hasTraded = [...tickers.values()].some(({ volume }) => volume);
    const isOver =
      phases.length && phases.every((p) => p === CLOSED) && hasTraded;
    const time = this.leadersTs === null ? "" : showTime(this.leadersTs);
    const title = isOver ? "Standings at the close" : "Standings";
    put(
      byId("wall-standings-title"),
      isLive || !time ? title : `${title}, as of ${time}`,
    );
    const more = this.leaders.length - leaders.length;
    put(byId("wall-more"), more > 0 ? `and ${more} more` : "");
    byId("wall-empty").hidden = leaders.length > 0 || !time;
    const [since] = this.equities.times;
    put(
      byId("wall-since"),
      since === undefined || !leaders.length
        ? "Equity: the curves begin with the first team"
        : `Equity, watched since ${showTime(since)}`,
    );
    this.curves.draw(leaders.length ? curves : []);
  }

  /** @param {Exchange} exchange */
  #drawTrades({ instruments }) {
    this.tape.draw(
      this.trades.map(({ symbol, side, price, qty }) => ({
        className: side,
        texts: [
          SIDES[side].slice(0, 1),
          symbol,
          tickOf(instruments.get(symbol)).show(price),
          showLots(qty),
        ],
      })),
    );
    byId("wall-no-trades").hidden = this.trades.length > 0;
  }

  #drawNews() {
    const list = byId("wall-news");
    while (list.children.length < this.news.length) {
      const item = make("li");
      item.append(make("span"), make("small"));
      list.append(item);
    }
    for (const [index, item] of [...list.children].entries()) {
      const news = this.news[index];
      item.hidden = !news;
      if (!news) continue;
      put(item.children[0], describeNews(news));
      put(item.children[1], showTime(news.ts));
    }
    byId("wall-no-news").hidden = this.news.length > 0;
  }
}
