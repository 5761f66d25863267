const state = {kind: 0, bin: data.kinds[0].bestBin, label: -1, error: "", iou: 1, shown: 6, sort: {column: 1, down: true}};
const ERROR_HINTS = {class: "right place, wrong class", location: "right class, IoU 0.1 to 0.5",
  both: "wrong class and poorly localised", duplicate: "a better detection matches the object", background: "no object here",
  missed: "object without any detection"};
const kind = () => data.kinds[state.kind];
const above = (counts) => counts.slice(state.bin).reduce((sum, count) => sum + count, 0);
const score = () => state.bin / data.bins;

function drawFigures() {
  const names = Object.entries(kind().figures).filter(([name]) => !/^A[PR][sml]$/.test(name));
  byId("figures").replaceChildren(...names.map(([name, value], i) => card(name, shownNumber(value), i === 0)),
    card("objects", kind().byClass.objects.reduce((sum, count) => sum + count, 0)), card("detections", kind().detections));
}

function drawAtScore() {
  const table = kind().byClass, total = (rows) => state.label < 0 ? rows.reduce((sum, row) => sum + above(row), 0) : above(rows[state.label]);
  const right = total(table.right), wrong = total(table.wrong);
  const objects = state.label < 0 ? table.objects.reduce((sum, count) => sum + count, 0) : table.objects[state.label];
  const precision = right / Math.max(1, right + wrong), recall = right / Math.max(1, objects);
  byId("score-shown").textContent = score().toFixed(2);
  byId("at-score").textContent = `precision ${precision.toFixed(3)}, recall ${recall.toFixed(3)}, F1 ` +
    `${(2 * right / Math.max(1, right + wrong + objects)).toFixed(3)}`;
}

const RECALLS = Array.from({length: 101}, (_, i) => i / 100);
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);

function drawCurves() {
  const [fifty, seventyFive, all] = kind().curves;
  const present = fifty.map((curve, k) => k).filter((k) => fifty[k][0] >= 0);
  const meanOf = (curves) => RECALLS.map((_, r) => mean(present.map((k) => curves[k][r])));
  const line = (name, y, value, colour, width, dash) => ({name, x: RECALLS, y, colour, width, dash, value: shownNumber(value)});
  const {AP50, AP75, AP} = kind().figures, rows = kind().perClass;
  const lines = present.length ? [line("IoU 0.50", meanOf(fifty), AP50, COLOURS[0]), line("IoU 0.75", meanOf(seventyFive), AP75, COLOURS[1]),
    line("IoU 0.50:0.95", meanOf(all), AP, "var(--ink)", 2.4)] : [];
  lineChart(byId("pr-mean"), lines, [0, 1, 0, 1], {x: "recall", title: "Precision over recall, mean over classes"});
  let some, title;
  if (state.label >= 0) {
    const k = state.label;
    title = data.classes[k];
    some = !present.includes(k) ? [] : [line("IoU 0.50", fifty[k], rows[k].ap50, COLOURS[0], 2),
      line("IoU 0.75", seventyFive[k], rows[k].ap75, COLOURS[1], 2), line("IoU 0.50:0.95", all[k], rows[k].ap, "var(--ink)", 2)];
  } else {
    const order = present.slice().sort((a, b) => mean(fifty[b]) - mean(fifty[a])), few = order.length <= 10;
    const picked = few ? order : [...order.slice(0, 5), ...order.slice(-5)];
    title = "Classes at IoU 0.50" + (few ? "" : `: best and worst 5 of ${order.length}`);
    some = picked.map((k, i) => line(data.classes[k], fifty[k], rows[k].ap50, COLOURS[i % 10], 1.6, few || i < 5 ? null : "4 3"));
  }
  byId("pr-title").textContent = title;
  lineChart(byId("pr-class"), some, [0, 1, 0, 1], {x: "recall", title: `Precision over recall, ${title}`});
}

function drawErrors() {
  const {costs, counts} = kind().tide, most = Math.max(0.01, ...Object.keys(counts).map((name) => costs[name]));
  const rows = Object.keys(counts).map((name) => bar(
    name, costs[name] / most, `+${(100 * costs[name]).toFixed(1)}`, `${counts[name]} · ${ERROR_HINTS[name]}`,
    () => choose({error: state.error === name ? "" : name}), state.error === name));
  byId("tide").replaceChildren(...rows);
  byId("tide-all").textContent = `Without wrong detections, AP would gain ${(100 * costs["false positives"]).toFixed(1)}, ` +
    `without missed objects, ${(100 * costs["false negatives"]).toFixed(1)}.`;
}

function drawClasses() {
  const {perClass, byClass} = kind();
  const rows = perClass.map((row, k) => {
    const right = above(byClass.right[k]), wrong = above(byClass.wrong[k]);
    return {...row, k, name: data.classes[k], precision: right + wrong ? right / (right + wrong) : -1,
            recall: byClass.objects[k] ? right / byClass.objects[k] : -1};
  });
  const number = (name, key) => ({name, value: (row) => row[key], show: (row) => shownNumber(row[key])});
  const columns = [
    {name: "Class", value: (row) => row.name, show: (row) => make("button", {type: "button", onclick: () => choose({label: state.label === row.k ? -1 : row.k})}, row.name)},
    number("AP", "ap"), number("AP50", "ap50"), number("AP75", "ap75"), number("Precision", "precision"), number("Recall", "recall"),
    {name: "Objects", value: (row) => row.objects, show: (row) => row.objects}];
  sortableTable(byId("classes"), columns, rows, state.sort);
}

function drawSizes() {
  const figures = kind().figures, names = [["small < 32²", "s"], ["medium", "m"], ["large > 96²", "l"]];
  byId("areas").replaceChildren(...names.flatMap(([name, letter]) => ["AP", "AR"].map(
    (figure) => bar(`${figure} ${name}`, figures[figure + letter], shownNumber(figures[figure + letter]), ""))));
  byId("sizes").replaceChildren(...kind().bySize.map((row) => bar(
    row.name, row.objects ? above(row.found) / row.objects : 0, row.objects ? shownNumber(above(row.found) / row.objects) : "–", `${row.objects} objects`)));
}

const FEW_CLASSES = 20;
function drawConfusion() {
  const classes = data.classes.length, counts = kind().confusion[state.iou].counts;
  const matrix = Array.from({length: classes + 1}, () => new Array(classes + 1).fill(0));
  for (let i = 0; i < counts.length; i += 4) if (counts[i + 2] >= state.bin) matrix[counts[i]][counts[i + 1]] += counts[i + 3];
  kind().byClass.objects.forEach((objects, k) => { matrix[k][classes] = objects - matrix[k].slice(0, classes).reduce((a, b) => a + b, 0); });
  let shown = data.classes.map((_, k) => k);
  if (classes > FEW_CLASSES && !byId("all-classes").checked) {
    const confused = shown.map((k) => shown.reduce((sum, j) => sum + (j === k ? 0 : matrix[k][j] + matrix[j][k]), 0));
    shown = shown.sort((a, b) => confused[b] - confused[a]).slice(0, FEW_CLASSES).sort((a, b) => a - b);
  }
  const columns = [...shown, classes], name = (k, none) => k === classes ? none : data.classes[k];
  const cell = (row, column) => {
    const count = matrix[row][column], sum = matrix[row].reduce((a, b) => a + b, 0), part = sum ? count / sum : 0;
    if (row === classes && column === classes) return make("td", null, "");
    const colour = row === column ? "var(--good)" : "var(--bad)";
    return make("td", {style: `background: color-mix(in srgb, ${colour} ${Math.round(70 * part)}%, transparent)`,
                       title: `${name(row, "nothing there")} as ${name(column, "not found")}: ${count} of ${sum}`}, count || "");
  };
  byId("confusion").replaceChildren(
    make("thead", null, make("tr", null, make("th", {scope: "col"}, "object \\ detected as"),
      ...columns.map((k) => make("th", {scope: "col"}, name(k, "not found"))))),
    make("tbody", null, ...columns.map((row) => make("tr", null, make("th", {scope: "row"}, name(row, "nothing there")),
      ...columns.map((column) => cell(row, column))))));
}

// Update the state and redraw what depends on it.
function choose(change) {
  Object.assign(state, change, change.shown ? {} : {shown: 6});
  byId("score").value = score().toFixed(2);
  byId("class").value = state.label;
  byId("error").value = state.error;
  drawAtScore();
  if ("kind" in change) { drawFigures(); drawSizes(); }
  if ("kind" in change || "label" in change) drawCurves();
  if ("kind" in change || "error" in change) drawErrors();
  if ("kind" in change || "bin" in change) { drawClasses(); drawSizes(); }
  if ("kind" in change || "bin" in change || "iou" in change) drawConfusion();
  drawExamples();
}

byId("class").append(...data.classes.map((name, k) => make("option", {value: k}, name)));
byId("error").append(...data.errors.map((name) => make("option", {value: name}, name)));
byId("iou").append(...data.kinds[0].confusion.map((table, i) => make("option", {value: i, selected: i === state.iou}, table.iou.toFixed(2))));
byId("all-classes-label").hidden = data.classes.length <= FEW_CLASSES;
byId("score").addEventListener("input", (event) => choose({bin: Math.round(event.target.value * data.bins)}));
byId("class").addEventListener("change", (event) => choose({label: Number(event.target.value)}));
byId("error").addEventListener("change", (event) => choose({error: event.target.value}));
byId("iou").addEventListener("change", (event) => choose({iou: Number(event.target.value)}));
byId("all-classes").addEventListener("change", drawConfusion);
byId("more").addEventListener("click", () => choose({shown: state.shown + 12}));
for (const input of document.querySelectorAll("input[name=kind]")) {
  input.addEventListener("change", () => choose({kind: Number(input.value), bin: data.kinds[Number(input.value)].bestBin}));
}
