// The page of an event: standings, the match that is played, what comes next.
// It asks the server every two seconds and counts the time left by itself.

const ASK_MS = 2000;
const STALE_MS = 6000; // without news of the director
const BOARD = 10; // teams of the running match that are shown

const get = (id) => document.getElementById(id);
const state = { now: null, asked: 0, skew: 0, standings: null, clocks: [] };

function text(tag, content, kind) {
  const element = document.createElement(tag);
  element.textContent = content;
  if (kind) element.className = kind;
  return element;
}

function signed(number) {
  return number > 0 ? `+${number.toLocaleString("en")}` : number.toLocaleString("en");
}

function colourOf(number) {
  if (!number) return "";
  return number > 0 ? "good" : "bad";
}

function span(seconds) {
  const whole = Math.max(0, Math.ceil(seconds));
  const minutes = Math.floor(whole / 60);
  return `${minutes}:${String(whole % 60).padStart(2, "0")}`;
}

function nameOf(row) {
  return row.match === "all" ? row.round : `${row.round}/${row.match}`;
}

// Teams are named where they are not all in one match.
function titleOf(row) {
  const { teams } = row;
  return teams.length && row.match !== "all" ? `${nameOf(row)} ${teams.join(" – ")}` : nameOf(row);
}

// The address of the exchange, or of that of one match.
function liveUrl(now, row) {
  const path = now.is_large ? `live/${row.round}/${row.match}/` : "";
  return `${location.protocol}//${location.hostname}:${now.front}/${path}`;
}

// What the director wrote last of each match that is played.
function lives() {
  const live = state.now?.live ?? {};
  return live.matches ?? [live];
}

// Standings

function arrow(change) {
  if (change > 0) return ["▲", "good"];
  if (change < 0) return ["▼", "bad"];
  return ["", ""];
}

function showStandings() {
  const { rounds = [], last_match: lastMatch = null } = state.standings ?? {};
  const isScored = lastMatch !== null;
  get("empty").hidden = isScored;
  const rows = isScored ? state.standings.rows : state.now.teams.map((team) => ({ team }));
  const heads = [
    ["Rank", ""], ["", ""], ["Team", "word"], ["Total", ""],
    ...rounds.map((name) => [name, ""]), ["Last match", ""],
  ];
  get("columns").replaceChildren(
    ...(isScored ? heads : [["Team", "word"]]).map(([head, kind]) => {
      const cell = text("th", head, kind);
      cell.scope = "col";
      return cell;
    }),
  );
  get("rows").replaceChildren(...rows.map((row) => {
    const line = document.createElement("tr");
    if (!isScored) {
      line.append(text("td", row.team, "word"));
      return line;
    }
    const change = row.change ?? 0;
    const [sign, kind] = arrow(change);
    const mark = text("td", sign, kind);
    if (change) mark.title = `${Math.abs(change)} ranks ${change > 0 ? "up" : "down"}`;
    line.append(text("td", row.rank), mark, text("td", row.team, "word"));
    line.append(text("td", row.total));
    for (const name of rounds) line.append(text("td", row.points?.[name] ?? "–"));
    const { last } = row;
    line.append(text("td", last === null ? "–" : signed(last), colourOf(last)));
    return line;
  }));
}

// What happens now

const WORDS = {
  "to come": "to come",
  started: "warm-up",
  open: "trading",
  closed: "trading has ended",
  settled: "is being scored",
  scored: "scored",
  void: "void",
};

function next(rows, current) {
  const coming = rows.filter((row) => row.status === "to come" || (row.status === "void" && row.is_again));
  const others = coming.filter((row) => row !== current);
  return others.length ? `Next: ${others.map(titleOf).slice(0, 3).join(", ")}` : "";
}

function showNow() {
  const { now } = state;
  if (now === null) return;
  document.title = get("name").textContent = now.name;
  const played = now.rounds.filter((row) => ["started", "open", "closed", "settled"].includes(row.status));
  const current = played[0];
  const isOne = !now.is_large || played.length < 2;
  let words = now.is_over ? "The event is over" : "No round is played";
  if (current) words = isOne ? `Round ${titleOf(current)}: ${WORDS[current.status]}` : `Round ${current.round}: ${played.length} matches`;
  if (now.paused !== null) words += ` – paused: ${now.paused}`;
  const coming = next(now.rounds, current);
  get("playing").textContent = coming ? `${words}. ${coming}` : words;
  const link = get("live-link");
  link.hidden = !current || now.is_large;
  if (current) link.href = liveUrl(now, current);
  showMatches(now.is_large ? played : []);
  showPractice(now.practice);
  get("board").replaceChildren(
    ...lives()
      .flatMap((live) => Object.entries(live.pnls ?? {}))
      .sort((a, b) => b[1] - a[1])
      .slice(0, BOARD)
      .map(([team, pnl]) => {
        const line = document.createElement("li");
        line.append(text("span", team), text("span", signed(pnl), colourOf(pnl)));
        return line;
      }),
  );
  get("rounds").replaceChildren(...now.rounds.map((row) => {
    const line = document.createElement("tr");
    line.append(text("td", titleOf(row), "word"), text("td", `${row.weight} %`));
    line.append(text("td", span(row.trading_s)));
    const why = row.reason ? `: ${row.reason}` : "";
    line.append(text("td", WORDS[row.status] + why, "word"));
    const hash = document.createElement("td");
    if (row.fair_sha256) {
      const short = text("span", `${row.fair_sha256.slice(0, 12)}…`, "hash");
      short.title = `SHA-256 of the hidden values: ${row.fair_sha256}`;
      hash.append(short);
    }
    if (row.status === "scored") {
      const files = text("a", "files");
      files.href = `public/${row.round}/${row.match}/`;
      hash.append(" ", files);
    }
    line.append(hash);
    return line;
  }));
}

function showPractice(servers) {
  get("practice").hidden = !servers.length;
  get("servers").replaceChildren(...servers.map((row) => {
    const line = document.createElement("tr");
    const whole = row.up_s + row.down_s;
    const part = whole ? `${(Math.floor((1000 * row.up_s) / whole) / 10).toFixed(1)} %` : "–";
    line.append(text("td", row.name, "word"), text("td", row.port));
    line.append(text("td", row.is_up ? "up" : "down", row.is_up ? "word" : "word bad"));
    const up = text("td", part);
    up.title = `ended ${row.ends} times`;
    const values = document.createElement("td");
    if (row.match) {
      const link = text("a", `match ${row.match}`);
      link.href = `practice/${row.name}/fair-${row.match}.csv`;
      values.append(link);
    }
    line.append(up, values);
    return line;
  }));
}

// The matches that are played side by side, each with its time left.
function showMatches(played) {
  state.clocks = played.map((row) => [row, text("span", "")]);
  get("matches").replaceChildren(...state.clocks.map(([row, clock]) => {
    const line = document.createElement("li");
    const link = text("a", titleOf(row));
    link.href = liveUrl(state.now, row);
    line.append(link, clock);
    return line;
  }));
  showClocks();
}

function showClocks() {
  for (const [row, clock] of state.clocks) {
    const live = lives().find((one) => one.round === row.round && one.match === row.match);
    const seconds = live && row.status === "open" ? left(live) : null;
    clock.textContent = seconds === null ? WORDS[row.status] : span(seconds);
  }
}

function left(live) {
  const passed = Date.now() - state.asked;
  if (live.close_ts) {
    return (live.close_ts / 1000 - (Date.now() + state.skew)) / 1000;
  }
  if (live.opens_in_ms !== undefined) return (live.opens_in_ms - passed) / 1000;
  if (live.left_ms !== undefined) return live.left_ms / 1000;
  return null;
}

function showClock() {
  const clock = get("clock");
  const live = lives()[0] ?? {};
  const isOne = lives().length < 2;
  const seconds = isOne ? left(live) : null;
  clock.hidden = seconds === null;
  if (seconds === null) return;
  const words = live.opens_in_ms !== undefined ? "opens in " : "";
  clock.textContent = words + span(seconds);
  clock.classList.toggle("last", seconds <= 10 && live.state === "open");
}

// Asking

async function json(path) {
  const answer = await fetch(path, { cache: "no-store" });
  if (!answer.ok) return null;
  return answer.json();
}

async function ask() {
  try {
    const [now, standings] = await Promise.all([json("now.json"), json("standings.json")]);
    state.asked = Date.now();
    state.skew = now.ts / 1000 - Date.now();
    state.now = now;
    state.standings = standings;
    const age = now.live.ts ? (now.ts - now.live.ts) / 1000 : 0;
    const isPlayed = now.rounds.some((row) => row.status === "open");
    get("connection").textContent = isPlayed && age > STALE_MS ? "The director is away; trading goes on." : "";
    showStandings();
    showNow();
  } catch {
    get("connection").textContent = "No connection; trying again.";
  }
  setTimeout(ask, ASK_MS);
}

get("download").addEventListener("submit", (event) => {
  event.preventDefault();
  const team = new FormData(event.target).get("team").trim();
  if (team) location.href = `t/${encodeURIComponent(team)}/dossiers/`;
});
setInterval(showClock, 200);
setInterval(showClocks, 200);
ask();
