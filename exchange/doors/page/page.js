/** Puts the page together. A change is drawn at most once in DRAW_MS. */

import { Chart } from "./chart.js";
import { QuoteLines, RoundLines } from "./chart_history.js";
import { describeBar, Lines } from "./chart_lines.js";
import { byId, put, setUpTabs } from "./dom.js";
import {
  drawConnection,
  drawHead,
  drawMatch,
  drawMessages,
  drawNews,
  Instruments,
  Leaderboard,
  Tape,
} from "./draw.js";
import { Exchange } from "./exchange.js";
import { setUpKeys, Sound } from "./keys.js";
import { Ladder } from "./ladder.js";
import { Notice } from "./notice.js";
import { drawLogin, setUpLogin } from "./login.js";
import { tickOf } from "./market.js";
import { Conversion, Tenders } from "./offers.js";
import { Fills, Orders } from "./orders.js";
import { Overview, OVERVIEW } from "./overview.js";
import {
  drawAccount,
  drawEquity,
  Positions,
} from "./positions.js";
import { Recorder } from "./record.js";
import { Ticket } from "./ticket.js";
import { Replay } from "./replay.js";
import { Changes, noteReports, showResult } from "./trade.js";
import { Wall, WALL } from "./wall.js";

const DRAW_MS = 50; // least time between drawings
const LEADERBOARD_MS = 2_000;
const ANNOUNCE_MS = 3_000; // least time between texts read out
const ANNOUNCED = 3; // most messages in a text read out
const THEME = "exchange-theme"; // in localStorage
const MODE = "exchange-chart"; // in localStorage

// Drawing ---------------------------------------------------------------------

/** @type {Set<(state: Exchange) => void>} */
const due = new Set(); // functions that draw
let drawnAt = 0;
/** @type {Wall | null} */
let wall = null; // set below; the connection tells of changes before

/**
 * Schedule the drawings that show the part of the state that changed.
 * @param {string} what
 */
function changed(what) {
  if (!due.size) requestAnimationFrame(draw);
  const shown = wall?.isShown ? [drawWall] : drawings[what];
  for (const drawing of shown) due.add(drawing);
}

function draw(now) {
  if (now - drawnAt < DRAW_MS) {
    requestAnimationFrame(draw);
    return;
  }
  drawnAt = now;
  const drawn = [...due];
  due.clear();
  for (const drawing of drawn) drawing(exchange);
}

const drawNotice = (state) => notice.draw(state);
const drawWall = () => wall?.draw();
const drawTabs = (state) => instruments.draw(state);
const drawLadder = () => ladder.draw();
const drawTicket = () => ticket.update();
const drawLines = () => lines.draw();
const drawOrders = () => orders.draw();
const drawFills = () => fills.draw();
const drawPositions = () => positions.draw();
const drawOverview = () => overview.draw();
const drawLeaders = (state) => leaderboard.draw(state);

// What shows the last price is drawn together, so that all of it agrees.
const priced = [drawHead, drawTabs, drawLines, drawOverview];
const held = [drawAccount, drawPositions, drawLeaders];
/** @type {Record<string, ((state: Exchange) => void)[]>} */
const drawings = {
  connection: [drawConnection],
  book: [drawLadder, drawTicket, drawLines],
  trades: [(state) => tape.draw(state), drawChart, ...priced],
  tickers: [...priced, ...held],
  leaderboard: [drawLeaders],
  account: [drawLogin, ...held, drawOrders, drawFills, drawLadder, drawTicket],
  messages: [drawMessages, announceSoon, drawNotice],
  news: [drawNews],
  match: [drawMatch],
  market: [drawMarket, drawAddress],
};
drawings.account.push(drawLines, drawChart, drawOffers);
drawings.market.push(
  ...["connection", "trades", "tickers", "account", "match", "news"].flatMap(
    (what) => drawings[what],
  ),
);

/** @param {Exchange} exchange */
function drawMarket({ instrument, symbol }) {
  chart.setTick(tickOf(instrument));
  if (symbol !== charted) {
    charted = symbol;
    chart.latest();
  }
  ticket.draw();
  conversion.draw();
  byId("plot").ariaLabel = `Price of ${symbol}; the table of trades has the same data`;
}

function drawOffers() {
  tenders.draw();
}

/** @type {string | null | undefined} */
let charted; // the symbol in the chart
/** @type {any[]} */
let bar = []; // under the cursor: the bar and its volume

/** @param {Exchange} exchange */
function drawChart({ trades, candles, account, symbol, interval }) {
  const shown = trades.rows.filter((trade) => exchange.isShown(trade));
  if (mode === "trades") chart.drawTrades(shown);
  else chart.drawCandles(candles.rows);
  const own = (account?.fills ?? []).filter(
    (fill) => fill.symbol === symbol && exchange.isShown(fill) && !fill.busted,
  );
  chart.drawMarks(own, interval);
  roundLines.draw(exchange);
  if (chart.isCleared) drawQuotes();
  drawLegend();
}

function drawQuotes() {
  quoteLines.draw(exchange.symbol, exchange.interval, record);
}

function drawLegend() {
  const [shown, volume] = bar[0] ? bar : chart.newest();
  put(byId("legend"), describeBar(exchange, shown, volume));
}

// Screen readers --------------------------------------------------------------

let announcing = null; // timer
let announced; // the newest message read out

function announceSoon() {
  announcing ??= setTimeout(announce, ANNOUNCE_MS);
}

function announce() {
  const { messages } = exchange;
  const known = messages.indexOf(announced);
  const news = messages.slice(0, known < 0 ? ANNOUNCED : known);
  announcing = null;
  announced = messages[0];
  const texts = news.slice(0, ANNOUNCED).map(({ text }) => text);
  put(byId("live"), texts.reverse().join(". "));
}

// The parts -------------------------------------------------------------------

const isReplay = location.pathname.endsWith("/replay");
const replay = isReplay ? await Replay.load() : null;
const url = new URL(".", location.href);
url.protocol = url.protocol.replace("http", "ws");

const chart = new Chart(byId("plot"));
const quoteLines = new QuoteLines(chart);
const roundLines = new RoundLines(chart);
const record = new Recorder();
const sound = new Sound();
const tape = new Tape(byId("tape"));
const leaderboard = new Leaderboard(byId("leaderboard"));
const exchange = new Exchange(url, (what, detail) => {
  if (what === "reports") noteReports(exchange, detail);
  else if (what === "fills") sound.play(detail[0].side);
  else if (what === "opened") showResult(""); // it was of another time
  else if (what === "round") ticket.clear(); // so was its price
  else changed(what);
});
addEventListener("pagehide", () => record.save(exchange));
replay?.join(exchange, chart);
wall = new Wall(exchange, () => {
  for (const what of Object.keys(drawings)) changed(what);
});
const ticket = new Ticket(exchange);
const changes = new Changes(exchange);
const orders = new Orders(exchange, changes);
const fills = new Fills(exchange);
const positions = new Positions(exchange, (symbol) => ticket.flatten(symbol));
const tenders = new Tenders(exchange);
const conversion = new Conversion(exchange);
const lines = new Lines(exchange, chart, (order, price) => {
  const shown = tickOf(exchange.instrument).show(price);
  ticket.confirm(`Move order ${order.order_id} to ${shown}.`, () =>
    changes.move(order, price),
  );
});
const ladder = new Ladder(exchange, {
  fill: (side, price) => ticket.fill(side, price),
  send: () => ticket.send(),
  isArmed: (side, price) => ticket.isArmed(side, price),
  cancelAt: (side, price, axis) => changes.cancelAt(side, price, axis),
  say: (words) => put(byId("live"), words),
});
const instruments = new Instruments(byId("instruments"), (symbol) => {
  location.hash = symbol;
});
const overview = new Overview(exchange);
const notice = new Notice();

// Choices ---------------------------------------------------------------------

const dark = matchMedia("(prefers-color-scheme: dark)");

function drawTheme() {
  const { dataset } = document.documentElement;
  const saved = localStorage.getItem(THEME);
  if (saved) dataset.theme = saved;
  const isDark = saved ? saved === "dark" : dark.matches;
  put(byId("theme"), isDark ? "☀ Light" : "☾ Dark");
  byId("theme").onclick = () => {
    localStorage.setItem(THEME, isDark ? "light" : "dark");
    drawTheme();
  };
  chart.paint();
  changed("trades");
}

let mode;

function chooseMode(value) {
  mode = value;
  localStorage.setItem(MODE, mode);
  if (mode !== "trades") exchange.showCandles(mode);
  chart.latest(); // another time frame begins at its newest bar
  changed("trades");
}

/** Return what the address asks for; it may be no valid encoding. */
function asked() {
  const text = location.hash.slice(1);
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function followHash() {
  wall?.show(asked() === WALL);
  if (wall?.isShown) return;
  const isOverview = asked() === OVERVIEW;
  const wasOverview = !byId("overview").hidden;
  byId("overview").hidden = !isOverview;
  document.body.classList.toggle("at-overview", isOverview);
  byId("overview-open").setAttribute("aria-pressed", isOverview);
  if (isOverview) byId("overview-title").focus();
  else exchange.show(asked());
  if (wasOverview && !isOverview) byId("overview-open").focus();
  changed("tickers");
}

/**
 * Let the address name what is shown, if it names nothing that is listed. What
 * is listed and not shown has just been clicked.
 */
function drawAddress({ symbol, instruments: listed }) {
  const name = asked();
  if (!listed.size || listed.has(name)) return;
  if (["", OVERVIEW, WALL].includes(name)) return;
  history.replaceState(null, "", `#${symbol}`);
}

function toggleOverview() {
  const isThere = asked() === OVERVIEW;
  location.hash = isThere ? (exchange.symbol ?? "") : OVERVIEW;
}

function chooseSide(chosen) {
  byId("main").dataset.side = chosen;
  for (const button of byId("side-tabs").children) {
    button.setAttribute("aria-pressed", button.value === chosen);
  }
}

const modes = [...byId("modes").querySelectorAll("input")];
const chosen =
  modes.find(({ value }) => value === localStorage.getItem(MODE)) ?? modes[1];
for (const input of modes) input.onchange = () => chooseMode(input.value);
chosen.checked = true;
chooseMode(chosen.value);
chart.onBar = (...shown) => {
  bar = shown;
  drawLegend();
};
chart.onFollow = (isFollowing) => (byId("latest").hidden = isFollowing);
byId("latest").onclick = () => chart.latest();
byId("overview-open").onclick = toggleOverview;
byId("overview-close").onclick = toggleOverview;
byId("earlier").querySelector("input").onchange = ({ target }) =>
  exchange.showEarlier(target.checked);
for (const button of byId("side-tabs").children) {
  button.onclick = () => chooseSide(button.value);
}
chooseSide("leaders");
setUpTabs(byId("own-tabs"));
byId("own-tabs").addEventListener("click", () => {
  for (const drawing of [drawFills, drawPositions]) drawing();
  drawEquity(exchange, record.curve);
});
setUpKeys({
  b: () => exchange.trader && ticket.open("buy"),
  s: () => exchange.trader && ticket.open("sell"),
  x: () => exchange.trader?.orders.size && changes.cancelAll(),
  l: () => byId("ladder-box").focus(),
  c: () => ladder.centre(),
  o: toggleOverview,
  Escape: () => ticket.clear(),
});
dark.onchange = drawTheme;
drawTheme();
window.onresize = () => {
  chart.paint(); // texts and lines grow with the window
  changed("book");
  changed("trades");
};
window.onhashchange = followHash;
followHash();
setUpLogin(exchange);
setInterval(() => {
  changed("connection"); // counts down to the retry
  changed("match"); // and to the end
  tenders.draw();
  record.sample(exchange);
  drawEquity(exchange, record.curve);
  if (!wall.isShown) drawQuotes();
}, 1_000);
setInterval(() => {
  if (!document.hidden) exchange.fetchLeaderboard();
}, LEADERBOARD_MS);
