/**
 * A recording on the same page: where in it we are, and how to move.
 *
 * A guest of the connection. Its `replay` requests move the server's market of
 * this connection through time. After a jump the connection is as a new one,
 * so the page asks for everything again.
 */

import { byId, make, put, Rows } from "./dom.js";
import { spread } from "./equity.js";
import { tickOf } from "./market.js";
import { LineSeries } from "./vendor/lightweight-charts/lightweight-charts.standalone.production.mjs";
import { showLots, showTime } from "./words.js";

const SECOND = 1_000_000; // microseconds
const ADDRESS_MS = 1_000; // least time between changes of the address
const NAMES_MS = 500;
const NAMES_SHOWN = 6;
const MARKS_SHOWN = 300;
const PAUSED = "0";
const MARKS = { news: "N", blow_out: "✕", phase: "◆", match: "★" };
const KINDS = {
  news: "News",
  blow_out: "Blow-out",
  phase: "Phase",
  match: "Match",
};

/** Show seconds as minutes, seconds and tenths. */
function showSeconds(seconds) {
  const tenths = Math.round(seconds * 10);
  const rest = (tenths % 600) / 10;
  return `${Math.floor(tenths / 600)}:${rest.toFixed(1).padStart(4, "0")}`;
}

/** @import { Chart } from "./chart.js" */
/** @import { Exchange } from "./exchange.js" */

export class Replay {
  /** Return the replay of this server; throws if it serves none. */
  static async load() {
    const answer = await fetch("v1/replay");
    if (!answer.ok) throw new Error("this server has no recording");
    return new Replay(await answer.json());
  }

  constructor(about) {
    this.about = about;
    this.start = about.start_ts;
    this.length = (about.end_ts - about.start_ts) / SECOND; // seconds
    const from = Number(new URLSearchParams(location.search).get("t"));
    const at = Math.min(Math.max(from || 0, 0), this.length);
    this.ts = this.start + Math.round(at * SECOND); // what is shown
    this.speed = PAUSED;
    this.chosen = "1"; // the speed of the next play
    /** @type {number | null} where to go as soon as we are there */
    this.wanted = null;
    this.isMoving = false; // a request to move has no reply yet
    this.accounts = ""; // those in the list, to notice a change
    this.noted = ""; // the address as we set it
    /** @type {any} */
    this.exchange = null;
    /** @type {any} */
    this.chart = null;
    /** @type {any} rows of trades with names */
    this.trades = null;
    /** @type {any} rows of orders with names */
    this.orders = null;
  }

  /**
   * Follow a connection and draw on its chart.
   * @param {Exchange} exchange
   * @param {Chart} chart
   */
  join(exchange, chart) {
    this.exchange = exchange;
    this.chart = chart;
    exchange.guests.push(this);
    exchange.word = "Replay";
    exchange.isRecording = true;
    exchange.askMatch = () => this.#askMatch();
    this.#setUp();
    this.draw();
  }

  // The connection ----------------------------------------------------------

  /** Go on where we are; the server begins at the start. */
  greet() {
    this.isMoving = false;
    this.#ask({ ts: this.ts, speed: this.speed });
    this.#askAccounts();
  }

  receive(message) {
    if (message.type === "welcome") this.#askAccounts();
    if (message.type === "replay") this.#take(message);
  }

  #take({ ts, speed }) {
    this.ts = ts;
    this.speed = speed;
    this.exchange.speed = speed;
    this.exchange.seen = { ts, at: Date.now() }; // for the time left
    this.#due ??= requestAnimationFrame(() => this.draw());
  }

  /** @type {number | null} the next drawing */
  #due = null;
  /** @type {any} the series of hidden values */
  #fair = null;

  #ask(request, done) {
    const message = { type: "replay", ...request };
    this.exchange.ask([message], (reply) => {
      if (reply?.type === "ok") this.#take(reply);
      if (reply?.type === "error") this.exchange.note(reply.message, true);
      done?.(reply);
    });
  }

  /** Move; what is asked for on the way to another place is left out. */
  #move(request, done) {
    if (this.isMoving) return;
    this.isMoving = true;
    this.#ask(request, (reply) => {
      this.isMoving = false;
      if (reply?.jumped) this.exchange.restart();
      this.#noteAddress();
      done?.(reply);
      if (this.wanted === null) return;
      const ts = this.wanted;
      this.wanted = null;
      this.go(ts);
    });
  }

  /** Go to a time; while we move, the last one that is asked for counts. */
  go(ts) {
    if (this.isMoving) this.wanted = ts;
    else this.#move({ ts });
  }

  #step(step, back) {
    const account = byId("replay-account").value;
    const symbol = this.exchange.symbol ?? undefined;
    const more = step === "fill" ? { account } : step === "trade" && { symbol };
    this.#move({ step, back, ...more }, (reply) => {
      if (reply?.symbol) location.hash = reply.symbol;
    });
  }

  #play() {
    const isOver = this.ts >= this.about.end_ts;
    if (this.speed !== PAUSED) this.#ask({ speed: PAUSED });
    else if (isOver) this.#move({ ts: this.start, speed: this.chosen });
    else this.#ask({ speed: this.chosen });
    this.#noteAddress();
  }

  #askMatch() {
    return new Promise((resolve) => {
      this.#ask({ what: "match" }, (reply) =>
        resolve({ ok: reply?.type === "ok", json: async () => reply.data }),
      );
    });
  }

  #askAccounts() {
    this.#ask({ what: "accounts" }, (reply) => {
      const names = reply?.data;
      if (!names || names.join() === this.accounts) return;
      this.accounts = names.join();
      const list = byId("replay-account");
      const before = list.value;
      list.replaceChildren(...names.map((name) => make("option", "", name)));
      if (names.includes(before)) list.value = before;
      byId("replay-fills").hidden = !names.length;
    });
  }

  // Controls ----------------------------------------------------------------

  #setUp() {
    const root = document.documentElement;
    const { marks, has_keys: hasKeys, is_published: isOpen } = this.about;
    root.classList.add("replay");
    root.classList.toggle("no-accounts", !hasKeys && !isOpen);
    byId("replay").hidden = false;
    put(byId("replay-title"), this.about.title);
    const slider = byId("replay-time");
    slider.max = Math.ceil(this.length * 10) / 10; // a whole number of steps
    slider.oninput = () => {
      this.go(this.start + Math.round(Number(slider.value) * SECOND));
    };
    byId("replay-play").onclick = () => this.#play();
    byId("replay-speed").onchange = ({ target }) => {
      this.chosen = target.value;
      if (this.speed !== PAUSED) this.#ask({ speed: this.chosen });
    };
    for (const button of byId("replay").querySelectorAll("[data-step]")) {
      const { step, back } = button.dataset;
      button.onclick = () => this.#step(step, back !== undefined);
    }
    const spaced = Math.ceil(marks.length / MARKS_SHOWN);
    this.marks = marks
      .filter((mark, index) => mark.kind !== "phase" || !(index % spaced))
      .slice(0, MARKS_SHOWN)
      .map((mark) => ({ ...mark, button: this.#mark(mark) }));
    const box = byId("replay-marks");
    box.append(...this.marks.map(({ button }) => button));
    new ResizeObserver(() => this.#placeMarks(box)).observe(box);
    byId("replay-names-choice").hidden = !hasKeys && !isOpen;
    byId("replay-fair-choice").hidden = !this.about.has_fair;
    byId("replay-names").onchange = () => this.#askNames();
    byId("replay-fair").onchange = () => this.#askFair();
    const columns = ["number", "number", "", ""];
    this.trades = new Rows(byId("named-trades"), columns, NAMES_SHOWN);
    const sides = ["", "number bid", "number ask", ""];
    this.orders = new Rows(byId("named-orders"), sides, NAMES_SHOWN);
    setInterval(() => {
      this.#askNames();
      this.#askFair();
    }, NAMES_MS);
    setInterval(() => this.#noteAddress(), ADDRESS_MS);
  }

  #mark({ ts, kind, text }) {
    const seconds = (ts - this.start) / SECOND;
    const button = make("button", kind, MARKS[kind]);
    button.type = "button";
    button.title = `${showSeconds(seconds)} ${KINDS[kind]}: ${text}`;
    button.setAttribute("aria-label", button.title);
    button.onclick = () => this.go(ts);
    return button;
  }

  /** Place the marks at their times, but side by side. */
  #placeMarks(box) {
    const { clientWidth: width } = box;
    const places = this.marks.map(
      ({ ts }) => (((ts - this.start) / SECOND) * width) / (this.length || 1),
    );
    const widest = this.marks[0]?.button.offsetWidth ?? 0;
    const least = Math.min(widest, width / (this.marks.length || 1));
    for (const [index, place] of spread(places, least, 0, width).entries()) {
      this.marks[index].button.style.left = `${place}px`;
    }
  }

  /** Let the address say which moment is shown. */
  #noteAddress() {
    const seconds = ((this.ts - this.start) / SECOND).toFixed(1);
    const address = `?t=${seconds}${location.hash}`;
    if (address === this.noted) return;
    this.noted = address;
    history.replaceState(null, "", address);
  }

  // Who, and the hidden values ----------------------------------------------

  #askNames() {
    const { exchange } = this;
    const isOn = byId("replay-names").checked;
    byId("named").hidden = !isOn;
    if (!isOn || !exchange.symbol) return;
    const { symbol } = exchange;
    exchange.ask([{ type: "replay", what: "names", symbol }], (reply) => {
      const error = reply?.type === "error" ? reply.message : "";
      put(byId("named-note"), error);
      if (reply?.data) this.#drawNames(reply.data);
    });
  }

  #drawNames({ symbol, trades, bids, asks }) {
    const tick = tickOf(this.exchange.instruments.get(symbol));
    this.trades.draw(
      trades.slice(0, NAMES_SHOWN).map(([, price, qty, buyer, seller]) => ({
        className: "",
        texts: [tick.show(price), showLots(qty), `▲ ${buyer}`, `▼ ${seller}`],
      })),
    );
    const text = (order) =>
      order ? `${showLots(order[1])} @ ${tick.show(order[0])}` : "";
    const rows = bids.length > asks.length ? bids : asks;
    this.orders.draw(
      rows.slice(0, NAMES_SHOWN).map((_, index) => ({
        className: "",
        texts: [
          bids[index]?.[2] ?? "",
          text(bids[index]),
          text(asks[index]),
          asks[index]?.[2] ?? "",
        ],
      })),
    );
  }

  #askFair() {
    const { exchange } = this;
    const isOn = byId("replay-fair").checked;
    if (!isOn || !exchange.symbol) {
      this.#fair?.setData([]);
      return;
    }
    const { symbol } = exchange;
    exchange.ask([{ type: "replay", what: "fair", symbol }], (reply) => {
      if (reply?.data) this.#drawFair(reply.data);
    });
  }

  /** Draw the values at the times of the candles, which are drawn already. */
  #drawFair(values) {
    const { chart } = this.chart;
    const style = getComputedStyle(byId("replay-fair-choice"));
    this.#fair ??= chart.addSeries(LineSeries, {
      ...{ lineWidth: 2, lastValueVisible: false, priceLineVisible: false },
      color: style.color,
    });
    let index = 0;
    const points = [];
    for (const [start] of this.exchange.candles.rows) {
      while (values[index + 1]?.[0] <= start + SECOND) index += 1;
      const [ts, value] = values[index] ?? [];
      if (ts <= start + SECOND) {
        points.push({ time: start / SECOND, value: value * this.chart.unit });
      }
    }
    this.#fair.setData(this.chart.count ? points : []);
  }

  // Drawing -----------------------------------------------------------------

  draw() {
    this.#due = null;
    const seconds = (this.ts - this.start) / SECOND;
    const slider = byId("replay-time");
    const isHeld = slider.matches(":active") || this.wanted !== null;
    if (!isHeld) slider.value = seconds;
    const [at, length] = [showSeconds(seconds), showSeconds(this.length)];
    put(byId("replay-at"), `${at} of ${length}`);
    put(byId("replay-clock"), showTime(this.ts));
    slider.setAttribute("aria-valuetext", `${at} of ${length}`);
    const isOver = this.ts >= this.about.end_ts;
    const isPlaying = this.speed !== PAUSED;
    put(
      byId("replay-play"),
      isPlaying ? "❙❙ Pause" : isOver ? "↺ From the start" : "▶ Play",
    );
  }
}
