const isMain = (name) => /^(total loss|lr|AP)$/.test(name);
const shortNumber = (value) => value === null ? "–" : Math.abs(value) >= 1000 || (value && Math.abs(value) < 1e-3) ? value.toExponential(2) : String(+value.toPrecision(4));
byId("cards").append(...data.cards.map(([name, value], i) => card(name, value < 0 ? "–" : shortNumber(value), i === 0)));
for (const chart of data.charts) {
  const box = make("div", {class: "chart"});
  byId("charts").append(make("section", null, make("h2", null, chart.title), box));
  const lines = chart.lines.map((line, i) => ({...line, colour: isMain(line.name) ? "var(--ink)" : COLOURS[i % 10],
    width: isMain(line.name) ? 2.4 : 1.6, dash: line.name.startsWith("val ") ? "5 3" : null, value: shortNumber(line.last)}));
  const last = Math.max(...lines.map((line) => line.x[line.x.length - 1])), values = lines.flatMap((line) => line.y);
  const most = chart.most || values.reduce((a, b) => Math.max(a, b), 0) * 1.05 || 1;
  lineChart(box, lines, [0, last, 0, most], {x: "step", title: chart.title});
}
if (data.table.length) {
  const columns = data.columns.map((name, i) => ({name, value: (row) => row[i] === null ? -1 : row[i],
    show: (row) => i < 2 ? String(row[i]) : shownNumber(row[i])}));
  sortableTable(byId("table"), columns, data.table, {column: 1, down: true});
}
