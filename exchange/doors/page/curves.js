/** Draws equity curves as SVG; the font of the box is that of the axes. */

import { marksOf, spread, timesOf } from "./equity.js";

const SVG = "http://www.w3.org/2000/svg";
const LETTER = 0.7; // width of one, in heights of the text
const NAMES = 0.4; // most of the width that the names take
const LINE = 1.25; // height of a line of text
const MARKS_X = 4; // most marks on the axis of time

function make(tag, attributes, text = "") {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) {
    node.setAttribute(name, value);
  }
  node.textContent = text;
  return node;
}

export class Curves {
  /** `showMoney` and `showTime` return the texts of the axes. */
  constructor(box, showMoney, showTime) {
    this.box = box;
    this.showMoney = showMoney;
    this.showTime = showTime;
    this.svg = make("svg", { "aria-hidden": "true" });
    box.append(this.svg);
    this.curves = [];
    new ResizeObserver(() => this.draw(this.curves)).observe(box);
  }

  /** Draw curves, each with `name`, `colour` and `points`. */
  draw(curves) {
    this.curves = curves;
    const { clientWidth: width, clientHeight: height } = this.box;
    const em = parseFloat(getComputedStyle(this.box).fontSize);
    const points = curves.flatMap((curve) => curve.points);
    if (!width || !height || points.length < 2) {
      this.svg.replaceChildren();
      return;
    }
    const times = points.map(([ts]) => ts);
    const values = points.map(([, value]) => value);
    const [start, end] = [Math.min(...times), Math.max(...times)];
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const most = Math.floor((NAMES * width) / (LETTER * em));
    const longest = Math.max(...curves.map(({ name }) => name.length));
    const letters = Math.min(most, longest);
    const room = {
      left: 0,
      right: width - (letters * LETTER + 0.5) * em,
      top: em * LINE,
      bottom: height - em * LINE * 1.2,
    };
    const x = (ts) =>
      room.left +
      ((ts - start) / (end - start || 1)) * (room.right - room.left);
    const y = (value) =>
      room.bottom -
      (high > low ? (value - low) / (high - low) : 0.5) *
        (room.bottom - room.top);
    const marks = Math.max(2, Math.floor((room.bottom - room.top) / (4 * em)));
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.replaceChildren(
      ...this.#grid(marksOf(low, high, marks), room, y),
      ...this.#lines(curves, x, y),
      ...this.#values(marksOf(low, high, marks), room, y, em),
      ...this.#times(start, end, room, x, em, height),
      ...this.#names(curves, room, y, em, letters),
    );
  }

  #grid(marks, { left, right }, y) {
    return marks.map((value) =>
      make("line", {
        class: value ? "grid" : "grid zero",
        x1: left,
        x2: right,
        y1: y(value),
        y2: y(value),
      }),
    );
  }

  #values(marks, { left }, y, em) {
    return marks.map((value) =>
      make("text", { x: left, y: y(value) - em * 0.2 }, this.showMoney(value)),
    );
  }

  #times(start, end, { left, right }, x, em, height) {
    const margin = 2.3 * em; // half of a text
    const most = Math.floor((right - left) / (2.4 * margin));
    const marks = Math.max(1, Math.min(most, MARKS_X));
    const seconds = timesOf(start / 1e6, end / 1e6, marks);
    return seconds
      .map((second) => second * 1e6)
      .filter((ts) => x(ts) > left + margin && x(ts) < right - margin)
      .map((ts) =>
        make(
          "text",
          { x: x(ts), y: height - em * 0.3, "text-anchor": "middle" },
          this.showTime(ts),
        ),
      );
  }

  #lines(curves, x, y) {
    return curves
      .map(({ colour, points }) =>
        make("polyline", {
          class: `curve c${colour}`,
          points: points
            .map(([ts, value]) => `${x(ts).toFixed(1)},${y(value).toFixed(1)}`)
            .join(" "),
        }),
      )
      .reverse(); // the first curve is drawn over the others
  }

  #names(curves, { top, right, bottom }, y, em, letters) {
    const shown = curves.filter(({ points }) => points.length);
    const places = spread(
      shown.map(({ points }) => y(points.at(-1)[1]) + em * 0.35),
      em * LINE,
      top,
      bottom,
    );
    return shown.map(({ name, colour }, index) =>
      make(
        "text",
        { class: `name c${colour}`, x: right + em * 0.5, y: places[index] },
        name.length > letters ? `${name.slice(0, letters - 1)}…` : name,
      ),
    );
  }
}
