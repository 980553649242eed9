/**
 * One connection to the exchange. It opens, ends and opens again by itself;
 * a request gets its reply. What messages mean is the business of feed.js and
 * exchange.js, which build on it.
 */

const BACKOFF_MIN_MS = 250; // longest pause before the first reconnect
const BACKOFF_MAX_MS = 10_000; // each failure doubles the pause up to this
const ABUSE_MS = 60_000; // added to the pause after close code 4002
const SILENCE_MS = 16_000; // three heartbeats of 5 s, and some delay
const RETRY_MS = 2_000; // after a refusal without retry_after_ms

/**
 * A request of the protocol, or one that only a replay takes.
 * @typedef {Wire.Request | { id?: number | string, type: "replay", [field: string]: any }} Request
 */
/**
 * Called with a reply; undefined: the connection was lost before.
 * @typedef {(reply?: Wire.Reply) => void} Done
 */
/**
 * Another view that listens to the same connection.
 * @typedef {{ greet(): void, receive(message: any): void }} Guest
 */
/** @typedef {(what: string, detail?: any) => void} Publish */

/** @abstract */
export class Link {
  /**
   * @param {URL} url
   * @param {Publish} publish
   */
  constructor(url, publish) {
    this.url = url;
    this.publish = publish;
    this.isLive = false; // what is shown is up to date
    this.trouble = ""; // why no connection opens; "": unknown
    /** @type {number | null} time of the next try, ms since the epoch */
    this.retryAt = null;
    this.heard = Date.now();
    /** @type {Guest[]} */
    this.guests = [];
  }

  /** @type {WebSocket | null} */
  #socket = null;
  /** @type {Map<number | string, Done>} by id: called with the reply */
  #replies = new Map();
  #id = 0;
  #failures = 0; // since the last heartbeat
  #hasOpened = false; // this connection has been open
  /** @type {number | undefined} timer of the next try */
  #retry = undefined;

  // Those who build on it say what these do ---------------------------------

  /** The connection is open. */
  greet() {}

  /**
   * A message arrived; return false if it ended the connection.
   * @param {Wire.Event} message
   * @returns {boolean | void}
   */
  receive(message) {}

  /** All messages of a frame arrived. */
  frameEnded() {}

  /** The connection is given up. */
  dropped() {}

  /**
   * It ended by itself.
   * @param {number} code
   * @param {string} reason
   * @param {boolean} wasLive
   */
  ended(code, reason, wasLive) {}

  // -------------------------------------------------------------------------

  get isOpen() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  get isConnecting() {
    return this.#socket?.readyState === WebSocket.CONNECTING;
  }

  /** Begin: connect, and watch for silence. */
  start() {
    setInterval(() => this.#listen(), 1_000);
    this.connect();
  }

  connect() {
    clearTimeout(this.#retry);
    this.retryAt = null;
    const socket = new WebSocket(this.url);
    this.#socket = socket;
    this.#hasOpened = false;
    this.heard = Date.now();
    socket.onopen = () => {
      this.#hasOpened = true;
      this.trouble = "";
      this.greet();
    };
    socket.onmessage = ({ data }) => {
      this.heard = Date.now();
      const frame = JSON.parse(data);
      for (const message of Array.isArray(frame) ? frame : [frame]) {
        // An earlier message of the frame may have ended the connection.
        if (socket === this.#socket) this.#take(message);
      }
      this.frameEnded();
    };
    socket.onclose = ({ code, reason }) => this.#lost(code, reason);
    this.publish("connection");
  }

  /** Replace this connection by a new one, at once. */
  reconnect() {
    this.drop();
    this.connect();
  }

  /** Drop the connection, without waiting for its close. */
  drop() {
    const socket = this.#socket;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
    this.#socket = null;
    this.#forget();
  }

  /** Go on as on a new connection. */
  greetAgain() {
    this.#forget();
    this.greet();
  }

  /** Forget what belongs to a connection; requests have no reply now. */
  #forget() {
    this.dropped();
    const replies = [...this.#replies.values()];
    this.#replies.clear();
    for (const done of replies) done(undefined);
  }

  /**
   * Send requests of a guest, if connected.
   * @param {Request[]} requests
   * @param {(Done | undefined)[]} replies
   */
  ask(requests, ...replies) {
    if (this.isOpen) this.send(requests, ...replies);
  }

  /**
   * Send requests in one frame; each of `replies` gets its reply. On a
   * connection that is closing nothing is sent: once it is gone, the replies
   * are undefined.
   * @param {Request[]} requests
   * @param {(Done | undefined)[]} replies
   */
  send(requests, ...replies) {
    for (const [index, request] of requests.entries()) {
      request.id = ++this.#id;
      const done = replies[index];
      if (done) this.#replies.set(request.id, done);
    }
    if (!this.isOpen) return;
    const frame = requests.length === 1 ? requests[0] : requests;
    this.#socket?.send(JSON.stringify(frame));
  }

  /**
   * Call `again` after the time that a refusal asks to wait.
   * @param {Wire.Reply} reply
   * @param {() => void} again
   */
  later(reply, again) {
    const socket = this.#socket;
    setTimeout(() => {
      if (socket === this.#socket && this.isOpen) again();
    }, reply.retry_after_ms ?? RETRY_MS);
  }

  /** @param {Wire.Event} message */
  #take(message) {
    for (const guest of this.guests) guest.receive(message);
    if (message.type === "heartbeat") this.#failures = 0;
    if (this.receive(message) === false) return;
    if (!("id" in message) || message.id === undefined) return;
    const done = this.#replies.get(message.id);
    this.#replies.delete(message.id);
    done?.(message);
  }

  #lost(code, reason) {
    const wasLive = this.isLive;
    this.drop();
    this.ended(code, reason, wasLive);
    const ceiling = Math.min(
      BACKOFF_MIN_MS * 2 ** this.#failures,
      BACKOFF_MAX_MS,
    );
    this.#failures += 1;
    // The first failure may be a restart of the exchange.
    if (!this.#hasOpened && this.#failures > 1) this.#findTrouble();
    const pause = code === 4002 ? ABUSE_MS : 0;
    const delay = pause + ceiling * (0.5 + Math.random() / 2);
    this.retryAt = Date.now() + delay;
    this.#retry = setTimeout(() => this.connect(), delay);
    this.publish("connection");
  }

  /** Ask over HTTP why no websocket opens: the browser gives no reason. */
  async #findTrouble() {
    const page = encodeURIComponent(location.origin);
    let trouble = "";
    try {
      const answer = await fetch(`v1/access?origin=${page}`);
      const type = answer.headers.get("Content-Type") ?? "";
      if (answer.ok) trouble = "HTTP works, websockets do not";
      else if (type.startsWith("text/plain")) {
        trouble = (await answer.text()).trim();
      }
    } catch {
      // The exchange or the network is down.
    }
    if (this.isOpen) return;
    this.trouble = trouble;
    this.publish("connection");
  }

  /** End a connection on which nothing has arrived for SILENCE_MS. */
  #listen() {
    if (this.#socket && Date.now() - this.heard > SILENCE_MS) {
      this.#lost(1006, "no heartbeat arrived");
    }
  }
}
