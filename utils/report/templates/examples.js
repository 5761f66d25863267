// Kinds of tide.py: 0 right, 1 class, 2 location, 3 both, 4 duplicate, 5 background, 6 ignored.
const KIND_NAMES = ["right", "class", "location", "both", "duplicate", "background", "crowd"];
const KIND_COLOURS = ["#2fbf71", "#ff9f1c", "#2b9df4", "#c77dff", "#f2d024", "#f0483e", "#9aa5b5"];
const OBJECT_COLOUR = "#2fbf71", MISSED_COLOUR = "#ff3d81";
// An object is missed if no detection above the chosen score matches it, or could be fixed to match it.
const isMissed = (object) => !object[1] && !(object[2] > 0 && object[2] >= score()) && !(object[3] > 0 && object[3] >= score());
const hasDetection = (object) => object[1] || (object[2] > 0 && object[2] >= score());
const ofLabel = (label) => state.label < 0 || label === state.label;

function visible(example) {
  const content = example.kinds[state.kind], error = KIND_NAMES.indexOf(state.error);
  const found = content.found.filter((item) => item[1] >= score());
  const fits = (item) => ofLabel(item[0]) || (item[3] >= 0 && ofLabel(content.objects[item[3]][0]));
  if (state.error === "missed") return {content, found, show: content.objects.some((object) => isMissed(object) && ofLabel(object[0]))};
  if (state.error) return {content, found, show: found.some((item) => item[2] === error && fits(item))};
  return {content, found, show: state.label < 0 || content.objects.some((object) => ofLabel(object[0])) || found.some(fits)};
}

function drawExample(example, {content, found}) {
  const short = (label) => { const name = data.classes[label]; return name.length > 24 ? name.slice(0, 23) + "…" : name; };
  const objects = content.objects.map((object) => {
    const has = hasDetection(object);
    return shape("object", object[4], object[5], has ? OBJECT_COLOUR : MISSED_COLOUR, object[1] ? "2 4" : has ? null : "6 4",
                 short(object[0]) + (object[1] ? " (crowd)" : ""), example.width);
  });
  // Best detections on top; the selected error type above all others.
  const wanted = KIND_NAMES.indexOf(state.error);
  const detections = found.slice().reverse().sort((a, b) => (a[2] === wanted) - (b[2] === wanted)).map((item) => shape(
    "found", item[4], item[5], KIND_COLOURS[item[2]], null, `${short(item[0])} ${item[1].toFixed(2)}`, example.width));
  const count = (test) => content.objects.filter(test).length;
  const wrong = found.filter((item) => item[2] > 0 && item[2] < 6).length;
  const facts = ` · ${count((object) => !object[1])} objects, ${count((object) => !hasDetection(object))} without a detection, ${wrong} wrong detections`;
  return make("article", {class: "example"}, make("h3", null, example.name, make("span", null, facts)),
    make("div", {class: "pair"}, panel(example, "Ground truth", objects), panel(example, "Detections", detections)));
}

function drawExamples() {
  const fitting = data.examples.map((example) => [example, visible(example)]).filter(([, seen]) => seen.show)
    .sort(([a], [b]) => b.kinds[state.kind].cost - a.kinds[state.kind].cost);
  const some = fitting.slice(0, state.shown);
  byId("examples").replaceChildren(...some.map(([example, seen]) => drawExample(example, seen)),
    ...(fitting.length ? [] : [make("p", {class: "empty"}, "No image matches the filters.")]));
  byId("shown").textContent = `${some.length} of ${fitting.length} matching images shown.`;
  byId("more").hidden = some.length === fitting.length;
}

byId("legend").append(
  ...[["object with a detection", OBJECT_COLOUR], ["object without one", MISSED_COLOUR]].map(([name, colour]) => make("span", null, make("i", {style: `border-color: ${colour}`}), name)),
  ...KIND_NAMES.map((name, i) => make("span", null, make("i", {style: `border-color: ${KIND_COLOURS[i]}; background: ${KIND_COLOURS[i]}`}), name)));
choose({kind: 0});
