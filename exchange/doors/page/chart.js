/** The price chart: candles with their volume, or single trades. */

import {
  CandlestickSeries,
  createChart,
  createSeriesMarkers,
  HistogramSeries,
  LineSeries,
  LineType,
  TickMarkType,
} from "./vendor/lightweight-charts/lightweight-charts.standalone.production.mjs";
import { INTERVALS, CANDLES_KEPT } from "./market.js";

const TRADES_SHOWN = 200;
const BAR = 0.6; // distance of bars, in text sizes
const RIGHT = 4; // bars of free room at the right
const THIN = 15; // text size for each pixel of a thin line
const APART = 6; // bars between marks that have words
const MARKS = 200; // most marks of own fills
const LONG = { hour: "2-digit", minute: "2-digit", second: "2-digit" };
const SHORT = { hour: "2-digit", minute: "2-digit" };
const FORMATS = {
  [TickMarkType.Year]: { year: "numeric" },
  [TickMarkType.Month]: { month: "short" },
  [TickMarkType.DayOfMonth]: { day: "numeric", month: "short" },
  [TickMarkType.Time]: SHORT,
  [TickMarkType.TimeWithSeconds]: LONG,
};

/** Return a function that formats a time (s since the epoch) as local. */
function format(options) {
  const formatter = new Intl.DateTimeFormat("en-GB", options);
  return (time) => formatter.format(time * 1_000);
}

const formats = Object.fromEntries(
  Object.entries(FORMATS).map(([type, options]) => [type, format(options)]),
);

/** @import { LineWidth, MouseEventParams } from "./vendor/lightweight-charts/lightweight-charts.standalone.production.mjs" */
/** @import { Fill } from "./account.js" */
/** @import { Candle, Interval, Tick } from "./market.js" */

/**
 * Return a time in microseconds as the chart wants it.
 * @param {number} ts
 * @returns {any}
 */
const timeOf = (ts) => ts / 1e6;

export class Chart {
  /** @param {HTMLElement} box */
  constructor(box) {
    this.box = box;
    this.chart = createChart(box, {
      autoSize: true,
      // The logo needs inline styles; the page's footer names the library.
      layout: { attributionLogo: false },
      timeScale: {
        timeVisible: true,
        secondsVisible: true,
        rightOffset: RIGHT,
        allowBoldLabels: false, // they are cut at the left edge
        fixLeftEdge: true, // the first time is not cut
        tickMarkFormatter: (time, type) => formats[type](time),
      },
      localization: {
        timeFormatter: format({ day: "numeric", month: "short", ...LONG }),
      },
      rightPriceScale: {
        scaleMargins: { top: 0.12, bottom: 0.22 },
        entireTextOnly: true,
      },
      handleScroll: { vertTouchDrag: false }, // leaves the page to scroll
    });
    const quiet = { lastValueVisible: false, priceLineVisible: false };
    this.volumes = this.chart.addSeries(HistogramSeries, {
      ...quiet,
      priceScaleId: "",
      priceFormat: { type: "volume" },
    });
    this.volumes
      .priceScale()
      .applyOptions({ scaleMargins: { top: 0.85, bottom: 0 } });
    // The only tag on the axis is the last price, which chart_lines.js draws.
    this.candles = this.chart.addSeries(CandlestickSeries, quiet);
    this.line = this.chart.addSeries(LineSeries, {
      ...quiet,
      lineType: LineType.WithSteps,
      lineWidth: 2,
      pointMarkersVisible: true,
    });
    /** @type {any} the series that has data: one of these two */
    this.series = this.candles;
    /** @type {any[]} series of others, at the times of the bars */
    this.overlays = [];
    this.isCleared = false; // so were the overlays
    /** @type {Map<any, any>} by series */
    this.marks = new Map(
      [this.candles, this.line].map((one) => [one, createSeriesMarkers(one, [])]),
    );
    this.marked = ""; // the marks last drawn
    this.onSeries = () => {}; // called when another series has data
    /** @type {(bar: any, volume: any) => void} gets what is under the cursor, or undefined */
    this.onBar = () => {};
    /** @type {(isFollowing: boolean) => void} gets whether the newest bar is shown */
    this.onFollow = () => {};
    this.isFollowing = true;
    /** @type {number | null} the frame in which the newest bar is shown */
    this.following = null;
    /** @type {Map<number, number>} by trade_id, in seconds: of trades drawn */
    this.times = new Map();
    /** @type {Record<string, string>} */
    this.colours = {};
    this.thin = 1; // width of a thin line, in pixels
    this.unit = 1; // money per tick
    /** @type {unknown[] | null} the rows last drawn */
    this.drawn = null;
    this.drawnTs = 0; // time of the last row drawn
    this.count = 0; // bars drawn
    this.paint();
    this.chart.subscribeCrosshairMove((event) => this.#hover(event));
    const scale = this.chart.timeScale();
    scale.subscribeVisibleLogicalRangeChange((range) => this.#ranged(range));
    scale.subscribeSizeChange(() => this.#follow());
  }

  /** Use the colours of the page. */
  paint() {
    const probe = document.createElement("span");
    this.box.append(probe);
    const colour = (name) => {
      probe.style.color = `var(--${name})`;
      return getComputedStyle(probe).color;
    };
    const [buy, sell, panel] = ["buy", "sell", "panel"].map(colour);
    const line = colour("line");
    const style = getComputedStyle(this.box);
    const fontSize = parseFloat(style.fontSize);
    this.chart.applyOptions({
      layout: {
        background: { color: panel },
        textColor: colour("muted"),
        fontFamily: style.fontFamily,
        fontSize,
      },
      grid: { vertLines: { color: line }, horzLines: { color: line } },
      rightPriceScale: { borderColor: line },
      timeScale: { borderColor: line, barSpacing: BAR * fontSize },
    });
    this.candles.applyOptions({
      upColor: panel, // hollow, for those who see no colours
      borderUpColor: buy,
      wickUpColor: buy,
      downColor: sell,
      borderDownColor: sell,
      wickDownColor: sell,
    });
    const names = ["buy", "sell", "accent", "muted", "warn", "panel"];
    this.colours = Object.fromEntries(names.map((n) => [n, colour(n)]));
    this.thin = Math.min(2, Math.max(1, Math.round(fontSize / THIN)));
    const lineWidth = /** @type {LineWidth} */ (2 * this.thin);
    this.line.applyOptions({ color: colour("accent"), lineWidth });
    this.volumes.applyOptions({ color: colour("volume") });
    probe.remove();
  }

  /**
   * Show ticks as money; a float is exact enough to draw.
   * @param {Tick} tick
   */
  setTick(tick) {
    const { places } = tick;
    const unit = Number(tick.size);
    /** @type {(price: number) => string} */
    const formatter = (price) => {
      const isOnTick = Math.abs(price / unit - Math.round(price / unit)) < 1e-6;
      return price.toFixed(isOnTick ? places : places + 1);
    };
    const type = /** @type {const} */ ("custom");
    const priceFormat = { type, minMove: unit, formatter };
    if (unit !== this.unit) this.drawn = null;
    this.unit = unit;
    this.candles.applyOptions({ priceFormat });
    this.line.applyOptions({ priceFormat });
  }

  /**
   * Draw candles; if the rows are the same array, only their changes.
   * @param {Candle[]} rows
   */
  drawCandles(rows) {
    const isNew = this.drawn !== rows || this.count > 2 * CANDLES_KEPT;
    const first = rows.findLastIndex(([ts]) => ts <= this.drawnTs);
    const changed = isNew ? rows : rows.slice(Math.max(0, first));
    const bars = changed.map(([ts, ...ticks]) => {
      const [open, high, low, close] = ticks.map((price) => price * this.unit);
      return { time: timeOf(ts), open, high, low, close };
    });
    const volumes = changed.map((row) => {
      return { time: timeOf(row[0]), value: row[5] };
    });
    this.#use(this.candles);
    if (isNew) {
      this.#clear();
      this.candles.setData(bars);
      this.volumes.setData(volumes);
      this.count = rows.length;
    } else {
      for (const bar of bars) this.candles.update(bar);
      for (const volume of volumes) this.volumes.update(volume);
      this.count += rows.length - 1 - first;
    }
    this.drawn = rows;
    this.drawnTs = rows.at(-1)?.[0] ?? 0;
    if (isNew || changed.length > 1) this.#follow();
  }

  /**
   * Draw trades at equal distances.
   * @param {Wire.Trade[]} rows
   */
  drawTrades(rows) {
    if (this.drawn !== rows) this.#clear();
    this.#use(this.line);
    this.drawn = rows;
    this.times.clear();
    let time = 0;
    const points = rows.slice(-TRADES_SHOWN).map((trade) => {
      // One command, many trades.
      time = Math.max(trade.ts / 1e6, time + 1e-6);
      this.times.set(trade.trade_id, time);
      return { time: timeOf(time * 1e6), value: trade.price * this.unit };
    });
    this.line.setData(points);
    this.count = points.length;
    this.#follow();
  }

  /** Whether single trades are drawn, not candles. */
  get isOfTrades() {
    return this.series === this.line;
  }

  /**
   * Return the bars: `time` in seconds, `end` in us, of this length in us.
   * @param {number} length
   * @returns {{ time: number, end: number }[]}
   */
  bars(length) {
    if (!this.isOfTrades) {
      const rows = /** @type {Candle[]} */ (this.drawn ?? []);
      return rows.map(([start]) => {
        return { time: start / 1e6, end: start + length };
      });
    }
    return [...this.times.values()].map((time) => {
      return { time, end: Math.round(time * 1e6) };
    });
  }

  /**
   * Mark own fills.
   * @param {Fill[]} fills
   * @param {Interval} interval
   */
  drawMarks(fills, interval) {
    const { buy, sell } = this.colours;
    const isLine = this.isOfTrades;
    const length = INTERVALS[interval] / 1e6;
    const sums = new Map(); // lots of own fills by bar and side
    for (const { ts, trade_id: id, side, last_qty: qty } of fills) {
      const bar = Math.floor(ts / 1e6 / length) * length;
      const time = isLine ? this.times.get(id ?? 0) : bar;
      if (time === undefined) continue;
      const key = `${time} ${side}`;
      sums.set(key, { time, side, qty: (sums.get(key)?.qty ?? 0) + qty });
    }
    const marks = [...sums.values()].slice(-MARKS).map(
      ({ time, side, qty }) => {
        const isBuy = side === "buy";
        return {
          time,
          position: isBuy ? "belowBar" : "aboveBar",
          shape: isBuy ? "arrowUp" : "arrowDown",
          color: isBuy ? buy : sell,
          text: `${isBuy ? "B" : "S"} ${qty}`,
        };
      },
    );
    marks.sort((a, b) => a.time - b.time);
    this.#spaceWords(marks, length);
    const key = JSON.stringify(marks);
    if (key === this.marked) return;
    this.marked = key;
    this.marks.get(this.series).setMarkers(marks);
  }

  /**
   * Leave out words that would lie over those of a mark before.
   * @param {any[]} marks
   * @param {number} length
   */
  #spaceWords(marks, length) {
    if (marks.length < 2) return;
    const bars = this.bars(1e6 * length);
    const places = new Map(bars.map(({ time }, n) => [time, n]));
    /** @type {Record<string, number>} by position: the bar that has words */
    const last = {};
    for (const mark of marks) {
      const place = places.get(mark.time) ?? 0;
      if (place - last[mark.position] < APART) mark.text = "";
      else last[mark.position] = place;
    }
  }

  /** Follow the newest bar, at the first zoom: another picture comes. */
  latest() {
    this.isFollowing = true;
    this.chart.timeScale().applyOptions({ fixLeftEdge: true });
    this.chart.timeScale().resetTimeScale();
    this.#follow();
    this.onFollow(true);
  }

  /** Return the volume of the newest bar, and the bar. */
  newest() {
    return [this.series.data().at(-1), this.volumes.data().at(-1)];
  }

  /** Follow the newest bar once the chart has taken it. */
  #follow() {
    this.following ??= requestAnimationFrame(() => {
      this.following = null;
      if (this.isFollowing) this.#place();
    });
  }

  /** While there is room, bars begin at the left edge. */
  #place() {
    const scale = this.chart.timeScale();
    const room = scale.width() / scale.options().barSpacing;
    scale.scrollToPosition(Math.max(RIGHT, room - this.count - 0.5), false);
  }

  #ranged(range) {
    if (!range || !this.count) return;
    const isFollowing = range.to > this.count - 2;
    if (isFollowing === this.isFollowing) return;
    this.isFollowing = isFollowing;
    // Else a new bar would move what is shown at the left end.
    this.chart.timeScale().applyOptions({ fixLeftEdge: isFollowing });
    this.onFollow(isFollowing);
  }

  /** @param {MouseEventParams} event */
  #hover({ seriesData, time }) {
    if (time === undefined) this.onBar(undefined, undefined);
    else {
      this.onBar(seriesData.get(this.series), seriesData.get(this.volumes));
    }
  }

  /** Note which series has data. */
  #use(series) {
    if (series === this.series) return;
    this.marks.get(this.series).setMarkers([]);
    this.marked = "";
    this.series = series;
    this.onSeries();
  }

  #clear() {
    this.candles.setData([]);
    this.volumes.setData([]);
    this.line.setData([]);
    for (const series of this.overlays) series.setData([]);
    this.isCleared = true;
  }
}
