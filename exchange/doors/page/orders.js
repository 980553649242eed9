/** Orders and fills of the account: filtered, in pages, and whole as CSV. */

import {
  byId,
  download,
  make,
  makeButton,
  offerValues,
  put,
  Rows,
  toCsv,
} from "./dom.js";
import { tickOf } from "./market.js";
import {
  showLots,
  showOrderPrice,
  showTime,
  SIDES,
  unitOfAll,
} from "./words.js";

/** @import { Instruments } from "./board.js" */
/** @import { Exchange } from "./exchange.js" */

const PAGE = 50; // rows shown at once
const ORDER_FIELDS = [
  ...["order_id", "client_order_id", "symbol", "side", "order_type"],
  ...["time_in_force", "price", "trigger_price", "display_qty", "qty"],
  ...["cum_qty", "leaves_qty", "cum_cost", "order_status", "ts", "round"],
];
const FILL_FIELDS = [
  ...["seq", "ts", "order_id", "client_order_id", "symbol", "side"],
  ...["last_price", "last_qty", "fee", "trade_id", "liquidity", "round"],
  "busted",
];

/** Rows of a table, in pages, with filters by instrument and side. */
class Filter {
  constructor(name, draw) {
    this.symbol = byId(`${name}-symbol`);
    this.side = byId(`${name}-side`);
    this.words = make("span");
    this.page = 0;
    const turn = (by) => {
      this.page += by;
      draw();
    };
    this.back = makeButton("‹ Newer", () => turn(-1));
    this.on = makeButton("Older ›", () => turn(1));
    byId(`${name}-pager`).append(this.back, this.words, this.on);
    this.symbol.onchange = this.side.onchange = () => {
      this.page = 0;
      draw();
    };
  }

  /**
   * Return the rows of the page that is shown.
   * @template {{ symbol: string, side: string }} Row
   * @param {Row[]} rows
   * @param {Instruments} instruments
   */
  take(rows, instruments) {
    offerValues(this.symbol, [...instruments.keys()]);
    const wanted = rows.filter(
      ({ symbol, side }) =>
        (!this.symbol.value || symbol === this.symbol.value) &&
        (!this.side.value || side === this.side.value),
    );
    const pages = Math.max(1, Math.ceil(wanted.length / PAGE));
    this.page = Math.min(Math.max(0, this.page), pages - 1);
    this.back.disabled = this.page === 0;
    this.on.disabled = this.page === pages - 1;
    put(this.words, `${this.page + 1} of ${pages}`);
    this.back.parentNode.hidden = pages === 1;
    return wanted.slice(this.page * PAGE, (this.page + 1) * PAGE);
  }
}

export class Fills {
  /** @param {Exchange} exchange */
  constructor(exchange) {
    this.exchange = exchange;
    const classes = ["", "", "number", "number", "number"];
    this.rows = new Rows(byId("fills"), classes);
    this.filter = new Filter("fills", () => this.draw());
    byId("fills-csv").onclick = () =>
      exchange.fetchFills((rows) => {
        if (rows) download("fills.csv", toCsv(FILL_FIELDS, rows));
        else exchange.note("No file: the connection was lost", true);
      });
  }

  draw() {
    const { account, instruments } = this.exchange;
    if (!account || byId("panel-fills").hidden) return;
    const unit = unitOfAll(instruments);
    const rows = account.fills
      .filter((fill) => this.exchange.isShown(fill))
      .reverse();
    this.rows.draw(
      this.filter.take(rows, instruments).map((fill) => ({
        className: fill.busted ? `${fill.side} busted` : fill.side,
        texts: [
          showTime(fill.ts),
          `${SIDES[fill.side]} ${fill.symbol}`,
          tickOf(instruments.get(fill.symbol)).show(fill.last_price ?? 0),
          showLots(fill.last_qty),
          unit.show(fill.fee ?? 0),
        ],
      })),
    );
  }
}

/**
 * The open orders, or all that the exchange remembers. A row stays with its
 * order, so that no button means another order than the one aimed at.
 */
export class Orders {
  /**
   * @param {Exchange} exchange
   * @param {{ amend(id: number): void, cancel(id: number): void }} changes
   */
  constructor(exchange, { amend, cancel }) {
    this.exchange = exchange;
    this.body = byId("orders");
    this.amend = amend;
    this.cancel = cancel;
    /** @type {Map<number, any>} by order_id */
    this.rows = new Map();
    /** @type {Wire.Exec[]} of the table: those that have ended */
    this.past = [];
    this.filter = new Filter("orders", () => this.draw());
    this.of = byId("orders-of");
    this.of.onchange = () => this.#choose();
    byId("orders-csv").onclick = () =>
      exchange.fetchOrders((rows) => {
        if (rows) download("orders.csv", toCsv(ORDER_FIELDS, rows));
        else exchange.note("No file: the connection was lost", true);
      });
  }

  /** Fetch orders that have ended, if they are to be shown. */
  #choose() {
    this.past = [];
    if (this.of.value === "open") return this.draw();
    this.exchange.fetchOrders((rows = []) => {
      this.past = rows.filter(({ leaves_qty: left }) => !left);
      this.draw();
    });
  }

  draw() {
    const { account, instruments } = this.exchange;
    const open = [...(account?.orders.values() ?? [])];
    const isAll = this.of.value === "all";
    const all = isAll
      ? [...this.past.filter(({ order_id: id }) => !account?.orders.has(id)),
         ...open].reverse()
      : open;
    const page = this.filter.take(all, instruments);
    const shown = new Map(page.map((order) => [order.order_id, order]));
    for (const [id, row] of this.rows) {
      if (!shown.has(id)) this.#remove(id, row);
    }
    for (const [id, order] of shown) {
      const row = this.rows.get(id) ?? this.#add(id);
      const tick = tickOf(instruments.get(order.symbol));
      const isOpen = order.leaves_qty > 0;
      const state = isOpen ? "" : ` ${order.order_status}`;
      const texts = [
        String(id),
        `${SIDES[order.side]} ${order.symbol}`,
        showOrderPrice(order, tick),
        `${showLots(order.cum_qty)}/${showLots(order.qty)}${state}`,
      ];
      row.className = order.side;
      texts.forEach((text, column) => put(row.cells[column], text));
      for (const button of row.lastChild.children) button.hidden = !isOpen;
    }
    put(byId("orders-title"), isAll ? "Orders" : `Open orders: ${open.length}`);
    byId("cancel-all").hidden = !open.length;
    byId("orders-empty").hidden = page.length > 0;
    put(byId("orders-empty"), isAll ? "No orders" : "No open orders");
  }

  #add(id) {
    const row = make("tr");
    for (const name of ["id", "", "number", "number", "buttons"]) {
      row.append(make("td", name));
    }
    const button = (text, act) => {
      const node = makeButton(text, () => act(id));
      node.setAttribute("aria-label", `${text} order ${id}`);
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
