// The page of an event: standings, the match that is played, what comes next.
// It asks the server every two seconds and counts the time left by itself.

const ASK_MS = 2000;
const STALE_MS = 6000; // without news of the director
const BOARD = 10; // teams of the running match that are shown

const get = (id) => document.getElementById(id);
const state = { now: null, asked: 0, skew: 0, standings: null };

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
  return others.length ? `Next: ${others.map(nameOf).slice(0, 3).join(", ")}` : "";
}

function showNow() {
  const { now } = state;
  if (now === null) return;
  document.title = get("name").textContent = now.name;
  const current = now.rounds.find((row) => ["started", "open", "closed", "settled"].includes(row.status));
  let words = now.is_over ? "The event is over" : "No round is played";
  if (current) words = `Round ${nameOf(current)}: ${WORDS[current.status]}`;
  if (now.paused !== null) words += ` – paused: ${now.paused}`;
  const coming = next(now.rounds, current);
  get("playing").textContent = coming ? `${words}. ${coming}` : words;
  const link = get("live-link");
  link.hidden = !current;
  link.href = `${location.protocol}//${location.hostname}:${now.front}/`;
  get("board").replaceChildren(
    ...Object.entries(now.live.pnls ?? {})
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
    line.append(text("td", nameOf(row), "word"), text("td", `${row.weight} %`));
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

function left() {
  const live = state.now?.live ?? {};
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
  const seconds = left();
  const live = state.now?.live ?? {};
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
ask();
