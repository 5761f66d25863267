"use strict";
// Text goes into the page as text nodes and attributes only, never as HTML: names may contain anything.
const data = JSON.parse(document.getElementById("data").textContent);
const COLOURS = ["#2b7de0", "#e4572e", "#1b9e77", "#a05eb5", "#c99700", "#00a1b0", "#d6337c", "#6b8e23", "#9b6b43", "#5b6abf"];
const byId = (id) => document.getElementById(id);

function make(name, attributes, ...children) {
  const node = name.startsWith("svg:") ? document.createElementNS("http://www.w3.org/2000/svg", name.slice(4)) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== null && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null).map((child) => typeof child === "number" ? String(child) : child));
  return node;
}

const shownNumber = (value, digits = 3) => value === null || value === undefined || value < 0 ? "–" : value.toFixed(digits);

function card(name, value, main) {
  return make("div", {class: main ? "card main" : "card"}, make("span", null, name), make("b", null, value));
}

// Round `step` up to 1, 2 or 5 times a power of ten.
function roundStep(step) {
  const power = 10 ** Math.floor(Math.log10(step));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= step * 0.999);
}

function tickText(value) {
  if (value === 0) return "0";
  if (Math.abs(value) >= 1e5 || Math.abs(value) < 1e-3) return value.toExponential(0);
  return String(+value.toPrecision(6));
}

// Draw lines into `box`: [{name, x, y, colour, width, dash, value}]; `range` is [x0, x1, y0, y1].
function lineChart(box, lines, range, labels) {
  box.chart = () => drawLines(box, lines, range, labels);
  box.chart();
  if (!box.watched) {
    box.watched = new ResizeObserver(() => { if (box.clientWidth !== box.drawnWidth) box.chart(); });
    box.watched.observe(box);
  }
}

function drawLines(box, lines, range, labels) {
  const width = Math.max(240, box.clientWidth), height = Math.min(320, Math.round(width * 0.6)), left = 46, bottom = 34;
  const [x0, x1, y0, y1] = range;
  const px = (x) => left + (x - x0) / ((x1 - x0) || 1) * (width - left - 10);
  const py = (y) => height - bottom - (y - y0) / ((y1 - y0) || 1) * (height - bottom - 10);
  const root = make("svg:svg", {viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": labels.title, height});
  for (const [low, high, vertical] of [[x0, x1, true], [y0, y1, false]]) {
    const step = roundStep((high - low || 1) / 5);
    for (let tick = Math.ceil(low / step) * step; tick <= high + step * 1e-6; tick += step) {
      const at = vertical ? px(tick) : py(tick);
      root.append(
        vertical ? make("svg:line", {class: "grid", x1: at, x2: at, y1: 10, y2: height - bottom})
          : make("svg:line", {class: "grid", x1: left, x2: width - 10, y1: at, y2: at}),
        vertical ? make("svg:text", {x: at, y: height - bottom + 15, "text-anchor": "middle"}, tickText(tick))
          : make("svg:text", {x: left - 7, y: at + 4, "text-anchor": "end"}, tickText(tick)));
    }
  }
  root.append(make("svg:text", {x: width - 10, y: height - 3, "text-anchor": "end"}, labels.x));
  for (const line of lines) {
    const points = line.x.map((x, i) => `${px(x).toFixed(1)},${py(Math.min(y1, line.y[i])).toFixed(1)}`);
    root.append(make("svg:path", {d: "M" + points.join("L"), "stroke-width": line.width || 1.6, "stroke-dasharray": line.dash || null,
                                  style: `stroke: ${line.colour}`}, make("svg:title", null, line.name)));
    if (points.length === 1) root.append(make("svg:circle", {cx: px(line.x[0]), cy: py(line.y[0]), r: 3, style: `fill: ${line.colour}`}));
  }
  const keys = make("ul", {class: "keys"}, ...lines.map((line) => make(
    "li", null, make("i", {style: `background: ${line.colour}`}), line.name, make("b", null, line.value === undefined ? "" : line.value))));
  box.replaceChildren(root, keys);
  box.drawnWidth = box.clientWidth;
}

// A row of a bar chart: `part` of the track is filled; with `press` it is a button.
function bar(name, part, value, small, press, pressed) {
  const content = [make("span", null, name), make("span", {class: "track"}, make("i", {style: `width: ${(100 * Math.max(0, Math.min(1, part))).toFixed(1)}%`})),
                   make("b", null, value), make("small", null, small)];
  return press ? make("button", {class: "bar", type: "button", "aria-pressed": String(Boolean(pressed)), onclick: press}, ...content)
    : make("div", {class: "bar"}, ...content);
}

// columns: [{name, value(row), show(row)}]; a click on a header sorts, a second click reverses. Rows without a value stay last.
function sortableTable(table, columns, rows, state) {
  const column = columns[state.column];
  const sorted = rows.slice().sort((a, b) => {
    const [x, y] = [column.value(a), column.value(b)];
    if (typeof x === "string") return state.down ? y.localeCompare(x) : x.localeCompare(y);
    if (x < 0 || y < 0) return (x < 0) - (y < 0);
    return state.down ? y - x : x - y;
  });
  const sort = (i) => {
    Object.assign(state, {column: i, down: state.column === i ? !state.down : i > 0});
    sortableTable(table, columns, rows, state);
    table.querySelectorAll("thead button")[i].focus();
  };
  const heads = columns.map((item, i) => make(
    "th", {scope: "col", "aria-sort": i !== state.column ? "none" : state.down ? "descending" : "ascending"},
    make("button", {type: "button", onclick: () => sort(i)}, item.name)));
  table.replaceChildren(
    make("thead", null, make("tr", null, ...heads)),
    make("tbody", null, ...sorted.map((row) => make("tr", null, ...columns.map((item) => make("td", null, item.show(row)))))));
}

// An object or detection: a box, or the outlines of a mask, and its label.
function shape(item, box, outlines, colour, dash, label, width) {
  const [x, y, w, h] = box, stroke = {fill: "none", stroke: colour, "stroke-dasharray": dash, "stroke-width": 2, "vector-effect": "non-scaling-stroke"};
  const node = make("svg:g", {class: item});
  if (outlines) {
    const path = outlines.map((points) => "M" + points.map((value, i) => (i % 2 ? "," : i ? "L" : "") + value).join("") + "Z").join("");
    node.append(make("svg:path", {...stroke, d: path, fill: colour, "fill-opacity": 0.22, "fill-rule": "evenodd"}));
  } else {
    node.append(make("svg:rect", {...stroke, x, y, width: Math.max(0, w), height: Math.max(0, h)}));
  }
  const size = Math.max(9, width / 42), long = label.length * size * 0.56 + 6, top = y > size + 4 ? y - size - 4 : y;
  node.append(make("svg:title", null, label),
    make("svg:rect", {x: Math.min(x, Math.max(0, width - long)), y: top, width: long, height: size + 4, fill: colour, rx: 2}),
    make("svg:text", {x: Math.min(x, Math.max(0, width - long)) + 3, y: top + size, style: `font-size: ${size}px; fill: #10151c`}, label));
  return node;
}

function panel(example, title, shapes) {
  const image = make("svg:svg", {viewBox: `0 0 ${example.width} ${example.height}`, role: "img", "aria-label": `${title}: ${example.name}`});
  if (example.src) image.append(make("svg:image", {href: example.src, width: example.width, height: example.height}));
  image.append(...shapes);
  return make("div", null, image);
}
