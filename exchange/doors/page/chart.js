/** The price chart: candles with their volume, or single trades. */

import {
  CandlestickSeries,
  createChart,
  HistogramSeries,
  LineSeries,
  LineType,
  TickMarkType,
} from "./vendor/lightweight-charts/lightweight-charts.standalone.production.mjs";
import { CANDLES_KEPT } from "./market.js";

const TRADES_SHOWN = 200;
const BAR = 0.6; // distance of bars, in text sizes
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

export class Chart {
  constructor(box) {
    this.box = box;
    this.chart = createChart(box, {
      autoSize: true,
      // The logo needs inline styles; the page's footer names the library.
      layout: { attributionLogo: false },
      timeScale: {
        timeVisible: true,
        secondsVisible: true,
        rightOffset: 3,
        tickMarkFormatter: (time, type) => formats[type](time),
      },
      localization: {
        timeFormatter: format({ day: "numeric", month: "short", ...LONG }),
      },
      rightPriceScale: { scaleMargins: { top: 0.08, bottom: 0.22 } },
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
    this.candles = this.chart.addSeries(CandlestickSeries);
    this.line = this.chart.addSeries(LineSeries, {
      lineType: LineType.WithSteps,
      lineWidth: 2,
      pointMarkersVisible: true,
    });
    this.unit = 1; // money per tick
    this.drawn = null; // the rows last drawn
    this.drawnTs = 0; // time of the last row drawn
    this.count = 0; // bars drawn
    this.paint();
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
      priceLineColor: colour("accent"),
    });
    this.line.applyOptions({ color: colour("accent") });
    this.volumes.applyOptions({ color: colour("volume") });
    probe.remove();
  }

  /** Show ticks as money; a float is exact enough to draw. */
  setTick(tick) {
    const { places } = tick;
    const unit = Number(tick.size);
    const formatter = (price) => {
      const isOnTick = Math.abs(price / unit - Math.round(price / unit)) < 1e-6;
      return price.toFixed(isOnTick ? places : places + 1);
    };
    const priceFormat = { type: "custom", minMove: unit, formatter };
    if (unit !== this.unit) this.drawn = null;
    this.unit = unit;
    this.candles.applyOptions({ priceFormat });
    this.line.applyOptions({ priceFormat });
  }

  /** Draw candles; if the rows are the same array, only their changes. */
  drawCandles(rows) {
    const isNew = this.drawn !== rows || this.count > 2 * CANDLES_KEPT;
    const first = rows.findLastIndex(([ts]) => ts <= this.drawnTs);
    const changed = isNew ? rows : rows.slice(Math.max(0, first));
    const bars = changed.map(([ts, ...ticks]) => {
      const [open, high, low, close] = ticks.map((price) => price * this.unit);
      return { time: ts / 1e6, open, high, low, close };
    });
    const volumes = changed.map((row) => {
      return { time: row[0] / 1e6, value: row[5] };
    });
    if (isNew) {
      this.#clear();
      this.candles.setData(bars);
      this.volumes.setData(volumes);
      this.count = rows.length;
    } else {
      for (const bar of bars) this.candles.update(bar);
      for (const volume of volumes) this.volumes.update(volume);
      this.count += changed.length - 1;
    }
    this.drawn = rows;
    this.drawnTs = rows.at(-1)?.[0] ?? 0;
  }

  /** Draw trades at equal distances. */
  drawTrades(rows) {
    if (this.drawn !== rows) this.#clear();
    this.drawn = rows;
    let time = 0;
    this.line.setData(
      rows.slice(-TRADES_SHOWN).map(({ ts, price }) => {
        time = Math.max(ts / 1e6, time + 1e-6); // one command, many trades
        return { time, value: price * this.unit };
      }),
    );
  }

  #clear() {
    this.candles.setData([]);
    this.volumes.setData([]);
    this.line.setData([]);
  }
}
