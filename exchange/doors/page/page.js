/** Puts the page together. A change is drawn at most once in DRAW_MS. */

import { Chart } from "./chart.js";
import {
  byId,
  drawAccount,
  drawConnection,
  drawHead,
  drawMatch,
  drawMessages,
  drawNews,
  Fills,
  Instruments,
  Ladder,
  Leaderboard,
  Orders,
  put,
  Tape,
  tickOf,
} from "./draw.js";
import { Exchange } from "./exchange.js";
import {
  Changes,
  drawLogin,
  setUpLogin,
  noteReports,
  Ticket,
} from "./trade.js";
import { Replay } from "./replay.js";
import { Wall, WALL } from "./wall.js";

const DRAW_MS = 50; // least time between drawings
const LEADERBOARD_MS = 2_000;
const ANNOUNCE_MS = 3_000; // least time between texts read out
const ANNOUNCED = 3; // most messages in a text read out
const THEME = "exchange-theme"; // in localStorage
const MODE = "exchange-chart"; // in localStorage

// Drawing ---------------------------------------------------------------------

const due = new Set(); // functions that draw
let drawnAt = 0;
let wall = null; // set below; the connection tells of changes before

/** Schedule the drawings that show the part of the state that changed. */
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

const drawWall = () => wall.draw();

const drawings = {
  connection: [drawConnection],
  book: [(state) => ladder.draw(state)],
  trades: [drawHead, (state) => tape.draw(state), drawChart],
  tickers: [(state) => instruments.draw(state), drawAccount],
  leaderboard: [(state) => leaderboard.draw(state)],
  account: [
    drawLogin,
    drawAccount,
    (state) => orders.draw(state),
    (state) => fills.draw(state),
  ],
  messages: [drawMessages, announceSoon],
  news: [drawNews],
  match: [drawMatch],
  market: [drawMarket],
};
drawings.account.push(...drawings.book, ...drawings.leaderboard);
drawings.market.push(
  ...["connection", "trades", "tickers", "account", "match"].flatMap(
    (what) => drawings[what],
  ),
);

function drawMarket({ instrument, symbol }) {
  chart.setTick(tickOf(instrument));
  ticket.draw();
  byId("plot").ariaLabel = `Price of ${symbol}; the table of trades has the same data`;
}

function drawChart({ trades, candles }) {
  if (mode === "trades") chart.drawTrades(trades.rows);
  else chart.drawCandles(candles.rows);
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
const ladder = new Ladder(byId("ladder"));
const tape = new Tape(byId("tape"));
const leaderboard = new Leaderboard(byId("leaderboard"));
const fills = new Fills(byId("fills"));
const exchange = new Exchange(url, (what, detail) => {
  if (what === "reports") noteReports(exchange, detail);
  else changed(what);
});
replay?.join(exchange, chart);
wall = new Wall(exchange, () => {
  for (const what of Object.keys(drawings)) changed(what);
});
const ticket = new Ticket(exchange);
const changes = new Changes(exchange);
const orders = new Orders(byId("orders"), changes.amend, changes.cancel);
const instruments = new Instruments(byId("instruments"), (symbol) => {
  location.hash = symbol;
});

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
}

let mode;

function chooseMode(value) {
  mode = value;
  localStorage.setItem(MODE, mode);
  if (mode !== "trades") exchange.showCandles(mode);
  changed("trades");
}

function followHash() {
  const name = decodeURIComponent(location.hash.slice(1));
  wall.show(name === WALL);
  if (!wall.isShown) exchange.show(name);
}

const modes = [...byId("modes").querySelectorAll("input")];
const chosen =
  modes.find(({ value }) => value === localStorage.getItem(MODE)) ?? modes[1];
for (const input of modes) input.onchange = () => chooseMode(input.value);
chosen.checked = true;
chooseMode(chosen.value);
dark.onchange = drawTheme;
drawTheme();
window.onhashchange = followHash;
followHash();
setUpLogin(exchange);
setInterval(() => {
  changed("connection"); // counts down to the retry
  changed("match"); // and to the end
}, 1_000);
setInterval(() => {
  if (!document.hidden) exchange.fetchLeaderboard();
}, LEADERBOARD_MS);
