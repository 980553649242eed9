/** Draws equity curves as SVG; the font of the box is that of the axes. */

import { marksOf, spread, timesOf } from "./equity.js";

const SVG = "http://www.w3.org/2000/svg";
const NAMES = 0.4; // most of the width that the names take
const SMALLEST = 0.8; // of their size; a longer name has narrower letters
const TIME = 6; // least distance of times, in heights of the text
const LINE = 1.25; // height of a line of text
const MARKS_X = 4; // most marks on the axis of time

/** @returns {any} an element of SVG with these attributes */
function make(tag, attributes, text = "") {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) {
    node.setAttribute(name, value);
  }
  node.textContent = text;
  return node;
}

/** @import { Curve } from "./equity.js" */

export class Curves {
  /**
   * `showMoney` and `showTime` return the texts of the axes.
   * @param {HTMLElement} box
   * @param {(units: number) => string} showMoney
   * @param {(ts: number) => string} showTime
   */
  constructor(box, showMoney, showTime) {
    this.box = box;
    this.showMoney = showMoney;
    this.showTime = showTime;
    this.svg = make("svg", { "aria-hidden": "true" });
    box.append(this.svg);
    /** @type {Curve[]} */
    this.curves = [];
    new ResizeObserver(() => this.draw(this.curves)).observe(box);
  }

  /** @param {Curve[]} curves */
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
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const names = this.#names(curves, em, NAMES * width);
    const room = {
      left: 0,
      right: width - 0.5 * em - Math.max(...names.map((name) => name.width)),
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
    this.#place(names, room, y, em);
    this.svg.replaceChildren(
      ...this.#grid(marksOf(low, high, marks), room, y),
      ...this.#lines(curves, x, y),
      ...this.#values(marksOf(low, high, marks), room, y, em),
      ...this.#times(start, end, room, x, em, height),
      ...names.map(({ node }) => node),
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
    const most = Math.floor((right - left) / (TIME * em));
    const marks = Math.max(1, Math.min(MARKS_X, most));
    const seconds = timesOf(start / 1e6, end / 1e6, marks);
    const margin = 2.3 * em; // half of a text
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

  /**
   * Return the names of curves, in lines of at most this width. A longer name
   * is smaller, or has two lines, or in them narrower letters.
   * @param {Curve[]} curves
   * @param {number} em
   * @param {number} most
   */
  #names(curves, em, most) {
    const names = curves
      .filter(({ points }) => points.length)
      .map(({ name, colour, points }) => {
        const node = make("text", { class: `name c${colour}` }, name);
        return { node, name, value: points[points.length - 1][1] };
      });
    this.svg.replaceChildren(...names.map(({ node }) => node));
    return names.map(({ node, name, value }) => {
      const wide = node.getComputedTextLength();
      const isLong = wide * SMALLEST > most;
      const parts = isLong ? halves(name) : [];
      const lines = parts.map((part) => make("tspan", {}, part));
      if (isLong) node.replaceChildren(...lines);
      const widths = lines.map((line) => line.getComputedTextLength());
      const widest = isLong ? Math.max(...widths) : wide;
      const size = Math.min(1, Math.max(most / widest, SMALLEST));
      node.setAttribute("font-size", size * em);
      for (const [n, line] of lines.entries()) {
        if (widths[n] * size <= most) continue;
        line.setAttribute("textLength", most);
        line.setAttribute("lengthAdjust", "spacingAndGlyphs");
      }
      return { node, lines, value, width: Math.min(most, widest * size) };
    });
  }

  /** Place names beside the ends of their curves, none over another. */
  #place(names, { top, right, bottom }, y, em) {
    const count = Math.max(1, ...names.map(({ lines }) => lines.length));
    const below = (count - 1) * em; // a second line is closer
    const free = (bottom - below - top) / Math.max(1, names.length - 1);
    const wanted = names.map(({ value, lines }) =>
      y(value) + em * (lines.length ? -0.15 : 0.35),
    );
    const least = Math.min(em * LINE + below, free);
    const places = spread(wanted, least, top, bottom - below);
    for (const [index, { node, lines }] of names.entries()) {
      const at = { x: right + em * 0.5, y: places[index] };
      for (const [n, one] of [node, ...lines].entries()) {
        one.setAttribute("x", at.x);
        one.setAttribute("y", at.y + Math.max(0, n - 1) * em);
      }
    }
  }
}

/** Return a name in two parts, divided where it may be, near its middle. */
function halves(name) {
  const middle = name.length / 2;
  const marks = [...name.matchAll(/[-_.]/g)].map(({ index }) => index + 1);
  const isNear = (at) => Math.abs(at - middle) < name.length / 4;
  const near = marks.filter(isNear).sort(
    (a, b) => Math.abs(a - middle) - Math.abs(b - middle),
  );
  const at = near[0] ?? Math.ceil(middle);
  return [name.slice(0, at), name.slice(at)];
}
