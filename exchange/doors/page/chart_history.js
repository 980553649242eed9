/**
 * What the chart shows of the past beside trades: best bid and ask at each
 * bar, and where rounds begin.
 */

import {
  LineSeries,
  LineType,
} from "./vendor/lightweight-charts/lightweight-charts.standalone.production.mjs";
import { INTERVALS } from "./market.js";

const DASH = [4, 4]; // pixels
const PAD = 4; // pixels between a line and its words
const BELOW = 3; // text sizes from the top: the legend is above

/** @import { Chart } from "./chart.js" */
/** @import { Exchange } from "./exchange.js" */
/** @import { Candles, Interval, Trades } from "./market.js" */
/** @import { Recorder } from "./record.js" */

/** Best bid and ask as they were at the end of each bar, as two lines. */
export class QuoteLines {
  /** @param {Chart} chart */
  constructor(chart) {
    this.chart = chart;
    const looks = {
      lineType: LineType.WithSteps,
      lastValueVisible: false,
      priceLineVisible: false,
      crosshairMarkerVisible: false,
      autoscaleInfoProvider: () => null, // a wide quote hides no candle
    };
    this.lines = ["buy", "sell"].map((colour) => {
      const series = chart.chart.addSeries(LineSeries, looks);
      chart.overlays.push(series);
      return { series, colour, shown: "" };
    });
  }

  /**
   * @param {string | null} symbol
   * @param {Interval} interval
   * @param {Recorder} record
   */
  draw(symbol, interval, record) {
    const { chart } = this;
    const bars = chart.bars(INTERVALS[interval]);
    const quotes = record.quotesAt(
      symbol,
      bars.map(({ end }) => end),
    );
    for (const [n, line] of this.lines.entries()) {
      const color = chart.colours[line.colour];
      const key = `${color} ${chart.thin}`;
      const looks = { color, lineWidth: /** @type {any} */ (chart.thin) };
      if (key !== line.shown) line.series.applyOptions(looks);
      line.shown = key;
      line.series.setData(
        bars.map(({ time }, index) => {
          const price = quotes[index]?.[n + 1] ?? null;
          /** @type {any} the library's type of a time is only a name */
          const point = { time };
          if (price !== null) point.value = price * chart.unit;
          return point;
        }),
      );
    }
    chart.isCleared = false;
  }
}

/** A line from top to bottom where a round begins. */
export class RoundLines {
  /** @param {Chart} chart */
  constructor(chart) {
    this.chart = chart;
    /** @type {[number, string][]} time in seconds, words */
    this.rounds = [];
    this.key = "";
    this.update = () => {};
    chart.chart.panes()[0].attachPrimitive(/** @type {any} */ (this));
  }

  attached({ requestUpdate }) {
    this.update = requestUpdate;
  }

  /**
   * Show the beginnings of rounds among what the chart shows.
   * @param {Exchange} exchange
   */
  draw({ trades, candles, round }) {
    this.rounds = this.chart.isOfTrades
      ? this.#amongTrades(trades)
      : this.#amongCandles(candles, round);
    const key = JSON.stringify(this.rounds);
    if (key === this.key) return;
    this.key = key;
    this.update();
  }

  /**
   * @param {Trades} trades
   * @returns {[number, string][]}
   */
  #amongTrades({ rows }) {
    /** @type {[number, string][]} */
    const rounds = [];
    for (const [n, { trade_id: id, round = 1 }] of rows.entries()) {
      const time = this.chart.times.get(id);
      if (!n || time === undefined) continue;
      if ((rows[n - 1].round ?? 1) !== round) {
        rounds.push([time, `Round ${round}`]);
      }
    }
    return rounds;
  }

  /**
   * The exchange clears the candles when a round begins.
   * @param {Candles} candles
   * @param {number} round
   * @returns {[number, string][]}
   */
  #amongCandles({ rows, isWhole }, round) {
    if (round === 1 || !rows.length || !isWhole) return [];
    return [[rows[0][0] / 1e6, `Round ${round}`]];
  }

  paneViews() {
    const draw = (target) =>
      target.useMediaCoordinateSpace((space) => this.#paint(space));
    return [{ renderer: () => ({ draw }), zOrder: () => "top" }];
  }

  #paint({ context, mediaSize: { height } }) {
    const { chart, colours } = this.chart;
    const scale = chart.timeScale();
    const { fontSize, fontFamily } = chart.options().layout;
    context.font = `${fontSize}px ${fontFamily}`;
    context.strokeStyle = colours.muted;
    context.lineWidth = this.chart.thin;
    context.setLineDash(DASH);
    for (const [time, words] of this.rounds) {
      const middle = scale.timeToCoordinate(/** @type {any} */ (time));
      if (middle === null) continue;
      const x = Math.max(0.5, middle - scale.options().barSpacing / 2);
      context.beginPath();
      context.moveTo(x, 0);
      context.lineTo(x, height);
      context.stroke();
      const width = context.measureText(words).width + 2 * PAD;
      context.fillStyle = colours.panel;
      context.fillRect(x + 1, (BELOW - 1) * fontSize, width, 1.4 * fontSize);
      context.fillStyle = colours.muted;
      context.fillText(words, x + PAD, BELOW * fontSize);
    }
  }
}
