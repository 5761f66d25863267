byId("cards").append(...data.cards.map(([name, value], i) => card(name, value, i === 0)));
for (const [title, rows] of data.charts) {
  const most = rows.reduce((a, row) => Math.max(a, row[1]), 1);
  byId("charts").append(make("figure", null, make("figcaption", null, title), ...rows.map(([name, count]) => bar(name, count / most, count, ""))));
}
const classRows = data.rows.map((row, k) => ({...row, name: data.classes[k]}));
sortableTable(byId("classes"), [
  {name: "Class", value: (row) => row.name, show: (row) => row.name},
  {name: "Objects", value: (row) => row.objects, show: (row) => row.objects},
  {name: "Median side", value: (row) => row.side, show: (row) => shownNumber(row.side, 1)},
  {name: "Side < 32", value: (row) => row.small, show: (row) => row.small}], classRows, {column: 1, down: true});

if (data.problems.length) {
  const list = () => {
    const kind = byId("kind").value, fitting = data.problems.filter((problem) => !kind || problem[0] === kind);
    byId("problems").replaceChildren(...fitting.map((problem) => make("li", null, problem[1])));
    byId("listed").textContent = `${fitting.length} listed`;
  };
  byId("kind").append(...data.kinds.map(([kind, count]) => make("option", {value: kind}, `${kind} (${count})`)));
  byId("kind").addEventListener("change", list);
  list();
}

function drawImages() {
  const label = Number(byId("class").value);
  const fitting = data.images.filter((image) => label < 0 || image.objects.some((object) => object[0] === label));
  byId("images").replaceChildren(...fitting.map((image) => make("figure", null, panel(image, "Annotations", image.objects
    .filter((object) => label < 0 || object[0] === label)
    .map(([k, crowd, box, outlines]) => shape("object", box, outlines, COLOURS[k % 10], crowd ? "2 4" : null,
                                              data.classes[k] + (crowd ? " (crowd)" : ""), image.width))),
  make("figcaption", null, image.name))));
  byId("shown").textContent = `${fitting.length} drawn`;
}
byId("class").append(...data.classes.map((name, k) => make("option", {value: k}, name)));
byId("class").addEventListener("change", drawImages);
drawImages();
