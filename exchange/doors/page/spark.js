/** Small curves: spark lines and the equity of the session. */

const NAMESPACE = "http://www.w3.org/2000/svg";

/** Draw points [x, y] as a line that fills an svg element. */
export function drawCurve(svg, points) {
  let line = svg.firstElementChild;
  if (!line) {
    line = document.createElementNS(NAMESPACE, "polyline");
    svg.append(line);
    svg.setAttribute("viewBox", "0 0 100 100");
  }
  const text = points.length > 1 ? pathOf(points) : "";
  if (line.shownPoints === text) return;
  line.shownPoints = text;
  line.setAttribute("points", text);
}

export function makeSpark() {
  const svg = document.createElementNS(NAMESPACE, "svg");
  svg.classList.add("spark");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  return svg;
}

function pathOf(points) {
  const xs = points.map(([x]) => x);
  const ys = points.map(([, y]) => y);
  const [left, right] = [xs[0], xs.at(-1)];
  const low = ys.reduce((a, b) => Math.min(a, b));
  const high = ys.reduce((a, b) => Math.max(a, b));
  const scale = (value, from, to) => (value - from) / (to - from || 1);
  return points
    .map(([x, y]) => {
      const across = (100 * scale(x, left, right)).toFixed(1);
      const down = high === low ? 50 : 94 - 88 * scale(y, low, high);
      return `${across},${down.toFixed(1)}`;
    })
    .join(" ");
}
