"use strict";
// Draws one image: picture, masks, errors; says what sources say under the cursor. All texts that
// come from files are set as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);
const state = { fill: false, hatch: true, errors: false, beside: true, hidden: new Set(),
  off: new Set(), view: null };
// The image that is shown: arguments, what was unpacked of them, and the drawn panes.
let args = null, layers = [], panes = [], picture = "", objects = [], picked = null, ticket = 0;
let message = 0, lastPick = null;

// --- Streamlit's side

function tell(type, data) {
  window.parent.postMessage({ isStreamlitMessage: true, type, ...data }, "*");
}
function report(value) {
  message += 1;
  tell("streamlit:setComponentValue", { dataType: "json",
    value: { ...value, id: args.id, n: `${Date.now()}-${message}` } });
}
window.addEventListener("message", (event) => {
  if (event.source !== window.parent || event.data.type !== "streamlit:render") return;
  dress(event.data.theme);
  receive(event.data.args);
});
new ResizeObserver(() => fitFrame()).observe(document.body);
let frameHeight = 0;
function fitFrame() {
  const height = Math.ceil(document.body.getBoundingClientRect().height) + 4;
  if (height !== frameHeight) {
    frameHeight = height;
    tell("streamlit:setFrameHeight", { height });
  }
}
function dress(theme) {
  if (!theme) return;
  const style = document.documentElement.style;
  style.setProperty("--ground", theme.backgroundColor);
  style.setProperty("--text", theme.textColor);
  style.setProperty("--soft", theme.secondaryBackgroundColor);
  const isDark = theme.base === "dark";
  style.setProperty("--line", isDark ? "#454a55" : "#d5d8df");
  style.colorScheme = isDark ? "dark" : "light";
}

// --- a new image

async function receive(given) {
  const mine = ++ticket;
  if (args && given.token === args.token) return;
  const buffer = await inflate(given.data);
  if (mine !== ticket) return;
  const isSame = args && args.id === given.id;
  args = given;
  if (picture) URL.revokeObjectURL(picture);
  picture = given.media ? URL.createObjectURL(new Blob([given.picture], { type: given.media })) : "";
  layers = given.layers.map((layer) => unpack(layer, buffer));
  objects = given.objects.map((one) => ({ ...one, path: new Path2D(one.d) }));
  picked = isSame && picked
    ? objects.find((o) => o.label === picked.label && o.part === picked.part) || null : null;
  byId("problem").textContent = given.problem;
  byId("problem").hidden = !given.problem;
  byId("errors").disabled = !layers.some((layer) => isHeld(layer));
  if (given.only.length) {
    const only = new Set(given.only);
    state.hidden = new Set(given.legend.classes.map((c) => c.name).filter((n) => !only.has(n)));
  } else if (given.reset) {
    state.hidden.clear();
  }
  byId("false").style.background = given.legend.false;
  byId("missed").style.background = given.legend.missed;
  listLayers();
  listClasses();
  if (!isSame || !state.view) state.view = given.focus ? around(given.focus) : whole();
  draw();
  byId("readout").textContent = "";
  document.body.dataset.shown = given.token;
}
async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}
function unpack(layer, buffer) {
  const classes = new Map();
  for (const [name, one] of Object.entries(layer.classes)) {
    const soft = one.soft && { ...one.soft,
      prob: new Uint8Array(buffer, one.soft.prob[0], one.soft.prob[1]) };
    classes.set(name, { ...one, soft, runs: new Int32Array(buffer, one.runs[0], one.runs[1]),
      points: new Int32Array(buffer, one.line[0], one.line[1]), paths: {} });
  }
  return { ...layer, classes };
}
const isHeld = (layer) => args.against !== "" && layer.name !== args.against;
const reference = () => layers.find((layer) => layer.name === args.against);

// --- runs (x, y, length) -> paths

function fillPath(runs) {
  const parts = [];
  for (let i = 0; i < runs.length; i += 3) {
    parts.push(`M${runs[i]} ${runs[i + 1]}h${runs[i + 2]}v1h-${runs[i + 2]}z`);
  }
  return parts.join("");
}
function linePath(one) {
  const parts = [];
  let at = 0;
  for (const count of one.rings) {
    const ring = [];
    for (let i = at; i < at + count; i++) {
      ring.push(`${one.points[2 * i] + 0.5} ${one.points[2 * i + 1] + 0.5}`);
    }
    at += count;
    parts.push(`M${ring.join(" ")}z`);
  }
  return parts.join("");
}
// Pixels of `a` that `b` has not, and those that both have, both as runs.
function compare(a, b) {
  const alone = [], both = [];
  let j = 0;
  for (let i = 0; i < a.length; i += 3) {
    const y = a[i + 1], end = a[i] + a[i + 2];
    let x = a[i];
    while (j < b.length && (b[j + 1] < y || (b[j + 1] === y && b[j] + b[j + 2] <= x))) j += 3;
    for (let k = j; k < b.length && b[k + 1] === y && b[k] < end; k += 3) {
      const from = Math.max(b[k], x), to = Math.min(b[k] + b[k + 2], end);
      if (from > x) alone.push(x, y, from - x);
      both.push(from, y, to - from);
      x = to;
    }
    if (x < end) alone.push(x, y, end - x);
  }
  return { alone, both };
}
const NONE = new Int32Array(0);
function errorsOf(layer, name) {
  const one = layer.classes.get(name);
  if (!one.wrong) {
    const real = reference().classes.get(name);
    const runs = real ? real.runs : NONE;
    one.wrong = { false: compare(one.runs, runs).alone, missed: compare(runs, one.runs).alone };
  }
  return one.wrong;
}
const pixels = (runs) => { let n = 0; for (let i = 2; i < runs.length; i += 3) n += runs[i]; return n; };
// Pixels of a class that another visible class of the layer has too: a path.
function sharedPath(layer, name) {
  const one = layer.classes.get(name), found = [];
  for (const [other, its] of layer.classes) {
    if (other === name || state.hidden.has(other) || !touch(one, its)) continue;
    for (const value of compare(one.runs, its.runs).both) found.push(value);
  }
  return fillPath(found);
}
function touch(a, b) {
  const [p, q] = [bounds(a), bounds(b)];
  return p[0] < q[2] && q[0] < p[2] && p[1] < q[3] && q[1] < p[3];
}
function bounds(one) {
  if (!one.bounds) {
    const box = [Infinity, Infinity, -Infinity, -Infinity];
    for (let i = 0; i < one.runs.length; i += 3) {
      box[0] = Math.min(box[0], one.runs[i]);
      box[1] = Math.min(box[1], one.runs[i + 1]);
      box[2] = Math.max(box[2], one.runs[i] + one.runs[i + 2]);
      box[3] = Math.max(box[3], one.runs[i + 1] + 1);
    }
    one.bounds = box;
  }
  return one.bounds;
}

// --- drawing

function make(tag, attributes, parent) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (parent) parent.append(made);
  return made;
}
const colorOf = (name) => args.legend.classes.find((c) => c.name === name)?.color || args.legend.muted;
const shownLayers = () => layers.filter((layer) => !state.off.has(layer.name));

function draw() {
  const shown = shownLayers();
  const groups = !shown.length ? [[]] : state.beside ? shown.map((layer) => [layer]) : [shown];
  const { across, height } = arrange(groups.length);
  byId("panes").style.gridTemplateColumns = `repeat(${across}, minmax(0, 1fr))`;
  byId("panes").replaceChildren();
  panes = groups.map((group, number) => pane(group, number));
  for (const one of panes) one.figure.style.height = `${height}px`;
  const down = Math.ceil(groups.length / across);
  byId("classes").style.maxHeight = innerWidth < 720 ? "" : `${height * down + 6 * (down - 1)}px`;
  place();
  fitFrame();
}
// As many pictures in a row as let them be largest.
function arrange(count) {
  const width = byId("panes").clientWidth, most = innerWidth < 720 ? 560 : 660;
  const aspect = args.height / args.width;
  let best = { size: 0 };
  for (let across = 1; across <= count; across++) {
    const own = (width - 6 * (across - 1)) / across, down = Math.ceil(count / across);
    const height = Math.max(150, Math.min(own * aspect, (most - 6 * (down - 1)) / down));
    const size = Math.min(own, height / aspect);
    if (size > best.size) best = { size, across, height: Math.round(height) };
  }
  return best;
}
function pane(group, number) {
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  caption.textContent = group.map((layer) => layer.name).join(" + ") || "image";
  const svg = make("svg", { role: "img", preserveAspectRatio: "xMidYMid meet" });
  svg.setAttribute("aria-label", `${args.id}: ${caption.textContent}`);
  const defs = make("defs", {}, svg);
  if (picture) {
    const image = make("image", { href: picture, x: 0, y: 0, width: args.width, height: args.height }, svg);
    image.style.filter = `brightness(${byId("light").value}%) contrast(${byId("contrast").value}%)`;
    image.style.imageRendering = "auto";
  } else {
    make("rect", { x: 0, y: 0, width: args.width, height: args.height, fill: "#24282f" }, svg);
  }
  group.forEach((layer, order) => drawLayer(svg, defs, layer, number, order));
  if (picked) make("path", { class: "picked", d: picked.d }, svg);
  listen(svg);
  figure.append(svg, caption);
  byId("panes").append(figure);
  return { figure, svg, patterns: [...defs.children] };
}
function drawLayer(svg, defs, layer, number, order) {
  const group = make("g", {}, svg);
  group.dataset.layer = layer.name;
  const held = state.errors && isHeld(layer);
  for (const { name } of args.legend.classes) {
    const one = layer.classes.get(name);
    if (!one || state.hidden.has(name)) continue;
    if (held) drawErrors(group, layer, name); else drawClass(group, defs, layer, name, number, order);
  }
}
function drawClass(group, defs, layer, name, number, order) {
  const one = layer.classes.get(name), color = colorOf(name);
  const opacity = byId("opacity").value / 100;
  const made = make("g", {}, group);
  made.dataset.class = name;
  one.paths.line ??= linePath(one);
  // Over each other, the first one is filled; those above it would hide it.
  if (state.fill && (state.beside || order === 0)) {
    one.paths.fill ??= fillPath(one.runs);
    make("path", { d: one.paths.fill, fill: color, "fill-opacity": opacity }, made);
  }
  if (state.hatch && (state.beside || order === 0)) {
    const shared = sharedPath(layer, name);
    if (shared) {
      const index = args.legend.classes.findIndex((c) => c.name === name);
      const id = `hatch-${number}-${order}-${index}`;
      const pattern = make("pattern", { id, width: 8, height: 8, patternUnits: "userSpaceOnUse" }, defs);
      // Two classes' stripes lie beside each other.
      make("rect", { x: index % 2 ? 4 : 0, y: 0, width: 2.4, height: 8, fill: color }, pattern);
      make("path", { class: "shared", d: shared, fill: `url(#${id})`, "fill-opacity": 0.85 }, made);
    }
  }
  const line = make("path", { class: "line", d: one.paths.line, stroke: color }, made);
  // Over each other, layers differ by their dashes.
  if (!state.beside && order) line.setAttribute("stroke-dasharray", ["6 3", "2 3", "9 3 2 3"][(order - 1) % 3]);
}
function drawErrors(group, layer, name) {
  const wrong = errorsOf(layer, name);
  const one = layer.classes.get(name);
  one.paths.false ??= fillPath(wrong.false);
  one.paths.missed ??= fillPath(wrong.missed);
  const made = make("g", {}, group);
  made.dataset.class = name;
  make("path", { class: "false", d: one.paths.false, fill: args.legend.false, "fill-opacity": 0.85 }, made);
  make("path", { class: "missed", d: one.paths.missed, fill: args.legend.missed, "fill-opacity": 0.85 }, made);
  made.dataset.false = pixels(wrong.false);
  made.dataset.missed = pixels(wrong.missed);
}

// --- zoom and pan: the view is x, y of the middle and pixels of the screen for one of the image

function whole() {
  return { x: args.width / 2, y: args.height / 2, zoom: 0 };
}
function around([x, y, width, height]) {
  return { x: x + width / 2, y: y + height / 2, zoom: 0, room: [width * 1.6 + 16, height * 1.6 + 16] };
}
const sizeOf = (one) => one.svg.getBoundingClientRect();
function zoomOf(view, size) {
  if (view.zoom) return view.zoom;
  const [width, height] = view.room || [args.width, args.height];
  const fit = Math.min(size.width / args.width, size.height / args.height);
  return Math.max(fit, Math.min(size.width / width, size.height / height, 12));
}
function place() {
  if (!args || !panes.length) return;
  const size = sizeOf(panes[0]);
  if (!size.width) return;
  const zoom = zoomOf(state.view, size);
  const width = size.width / zoom, height = size.height / zoom;
  for (const one of panes) {
    one.svg.setAttribute("viewBox",
      `${state.view.x - width / 2} ${state.view.y - height / 2} ${width} ${height}`);
    const image = one.svg.querySelector("image");
    if (image) image.style.imageRendering = zoom > 2 ? "pixelated" : "auto";
    for (const pattern of one.patterns) {
      pattern.setAttribute("patternTransform", `rotate(45) scale(${1 / zoom})`);
    }
  }
  byId("zoom").textContent = `${Math.round(zoom * 100)} %`;
}
function zoomBy(factor, at) {
  const size = sizeOf(panes[0]);
  const before = zoomOf(state.view, size);
  const least = Math.min(size.width / args.width, size.height / args.height) / 2;
  const zoom = Math.min(Math.max(before * factor, least), 60);
  const [x, y] = at || [state.view.x, state.view.y];
  state.view = { x: x + (state.view.x - x) * before / zoom, y: y + (state.view.y - y) * before / zoom, zoom };
  place();
}
function toImage(svg, event) {
  const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
  return [point.x, point.y];
}
function listen(svg) {
  let drag = null;
  svg.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoomBy(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0016)), toImage(svg, event));
  }, { passive: false });
  svg.addEventListener("pointerdown", (event) => {
    drag = { x: event.clientX, y: event.clientY, view: { ...state.view }, moved: false };
    svg.setPointerCapture(event.pointerId);
  });
  svg.addEventListener("pointermove", (event) => {
    if (drag) {
      const zoom = zoomOf(state.view, sizeOf(panes[0]));
      const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
      drag.moved ||= Math.hypot(dx, dy) > 3;
      if (drag.moved) {
        svg.classList.add("drag");
        state.view = { x: drag.view.x - dx / zoom, y: drag.view.y - dy / zoom, zoom };
        place();
        return;
      }
    }
    read(...toImage(svg, event));
  });
  svg.addEventListener("pointerup", (event) => {
    svg.classList.remove("drag");
    if (drag && !drag.moved) pick(...toImage(svg, event));
    drag = null;
  });
  svg.addEventListener("dblclick", () => { state.view = whole(); place(); });
}

// --- what is said under the cursor

const ODDS = Float64Array.from({ length: 256 }, (_, b) => Math.log((b + 0.5) / (255.5 - b)));
// As `SoftMask.render`: log odds are linear between the cells' middles; 0..1 at a pixel.
function probability(soft, px, py) {
  const [x, y, width, height] = soft.box, [u, v] = [px + 0.5 - x, py + 0.5 - y];
  if (u < 0 || v < 0 || u >= width || v >= height) return 0;
  if (soft.cols === width && soft.rows === height) return soft.prob[Math.floor(v) * soft.cols + Math.floor(u)] / 255;
  const c = Math.min(Math.max(u * soft.cols / width - 0.5, 0), soft.cols - 1);
  const r = Math.min(Math.max(v * soft.rows / height - 0.5, 0), soft.rows - 1);
  const [c0, r0] = [Math.floor(c), Math.floor(r)];
  const [c1, r1] = [Math.min(c0 + 1, soft.cols - 1), Math.min(r0 + 1, soft.rows - 1)];
  const at = (row, col) => ODDS[soft.prob[row * soft.cols + col]];
  const above = at(r0, c0) + (c - c0) * (at(r0, c1) - at(r0, c0));
  const below = at(r1, c0) + (c - c0) * (at(r1, c1) - at(r1, c0));
  const odds = above + (r - r0) * (below - above);
  return Math.min(Math.floor(256 / (1 + Math.exp(-odds))), 255) / 255;
}
function has(one, px, py) {
  const box = bounds(one);
  if (px < box[0] || px >= box[2] || py < box[1] || py >= box[3]) return false;
  let low = 0, high = one.runs.length / 3;
  while (low < high) {
    const middle = (low + high) >> 1, i = 3 * middle;
    if (one.runs[i + 1] < py || (one.runs[i + 1] === py && one.runs[i] + one.runs[i + 2] <= px)) low = middle + 1;
    else high = middle;
  }
  const i = 3 * low;
  return i < one.runs.length && one.runs[i + 1] === py && one.runs[i] <= px;
}
function read(x, y) {
  const [px, py] = [Math.floor(x), Math.floor(y)];
  const readout = byId("readout");
  if (px < 0 || py < 0 || px >= args.width || py >= args.height) { readout.textContent = ""; return; }
  const rows = [];
  for (const { name } of args.legend.classes) {
    const cells = layers.map((layer) => {
      const one = layer.classes.get(name);
      if (!one) return { text: "", value: 0, inside: false };
      const inside = has(one, px, py);
      if (!one.soft) return { text: inside ? "yes" : layer.kind === "truth" ? "–" : "0.00", value: +inside, inside };
      const value = probability(one.soft, px, py);
      return { text: value.toFixed(2), value, inside };
    });
    const most = Math.max(0, ...cells.map((cell) => cell.value));
    if (most >= 0.02) rows.push({ name, cells, most });
  }
  rows.sort((a, b) => b.most - a.most);
  const table = document.createElement("table");
  const head = table.createTHead().insertRow();
  for (const text of [`x ${px}, y ${py}`, ...layers.map((layer) => layer.name)]) {
    const cell = document.createElement("th");
    cell.textContent = text;
    head.append(cell);
  }
  const body = table.createTBody();
  for (const { name, cells } of rows.slice(0, 6)) {
    const row = body.insertRow();
    row.insertCell().textContent = name;
    for (const one of cells) {
      const cell = row.insertCell();
      cell.textContent = one.text;
      if (one.inside) cell.className = "inside";
    }
  }
  readout.replaceChildren(table);
}

// --- choosing an object: the smallest one there; another click takes the next

const hits = document.createElement("canvas").getContext("2d");
function pick(x, y) {
  const there = objects
    .filter((o) => !state.hidden.has(o.label) && hits.isPointInPath(o.path, x, y, "evenodd"))
    .sort((a, b) => a.area - b.area);
  const again = lastPick && Math.hypot(lastPick.x - x, lastPick.y - y) < 4 && picked;
  const next = again ? there[(there.indexOf(picked) + 1) % there.length] : there[0];
  lastPick = { x, y };
  if (!next && !picked) return;
  picked = next || null;
  draw();
  report(picked ? { event: "pick", label: picked.label, part: picked.part } : { event: "pick" });
}

// --- lists

function tick(text, isOn, change, color) {
  const label = document.createElement("label"), box = document.createElement("input");
  box.type = "checkbox";
  box.checked = isOn;
  box.addEventListener("change", () => change(box.checked));
  label.append(box);
  if (color) {
    const swatch = document.createElement("i");
    swatch.className = "swatch";
    swatch.style.background = color;
    label.append(swatch);
  }
  const name = document.createElement("span");
  name.textContent = name.title = text;
  label.append(name);
  return label;
}
function listLayers() {
  byId("layers").replaceChildren(...layers.map((layer) => {
    const button = document.createElement("button");
    button.textContent = layer.name;
    button.setAttribute("aria-pressed", String(!state.off.has(layer.name)));
    button.addEventListener("click", () => {
      state.off.has(layer.name) ? state.off.delete(layer.name) : state.off.add(layer.name);
      button.setAttribute("aria-pressed", String(!state.off.has(layer.name)));
      draw();
    });
    return button;
  }));
}
function listClasses() {
  const box = byId("classes"), top = box.scrollTop;
  const groups = new Map();
  for (const one of args.legend.classes) {
    if (!groups.has(one.group)) groups.set(one.group, []);
    groups.get(one.group).push(one);
  }
  const made = [];
  const all = args.legend.classes.map((c) => c.name);
  made.push(groupRow("all classes", all));
  for (const [group, members] of groups) {
    if (group) made.push(groupRow(group, members.map((c) => c.name)));
    made.push(...members.map(classRow));
  }
  box.replaceChildren(...made);
  box.scrollTop = top;
}
function groupRow(text, names) {
  const row = document.createElement("div");
  row.className = "group";
  const isOn = names.some((name) => !state.hidden.has(name));
  row.append(tick(text, isOn, (on) => {
    for (const name of names) on ? state.hidden.delete(name) : state.hidden.add(name);
    listClasses();
    draw();
  }));
  return row;
}
function classRow(one) {
  const row = document.createElement("div");
  row.className = "class";
  const drawn = layers.map((layer) => layer.classes.get(one.name)).filter(Boolean);
  if (!drawn.some((its) => its.area)) row.classList.add("absent");
  row.append(tick(one.name, !state.hidden.has(one.name), (on) => {
    on ? state.hidden.delete(one.name) : state.hidden.add(one.name);
    listClasses();
    draw();
  }, one.color));
  const number = document.createElement("span");
  number.className = "number";
  const scored = layers.filter((layer) => layer.classes.get(one.name)?.dice !== undefined);
  const scores = scored.map((layer) => layer.classes.get(one.name).dice);
  const [low, high] = [Math.min(...scores), Math.max(...scores)].map((score) => score.toFixed(2));
  number.textContent = !scores.length ? (drawn.length ? `${drawn[0].area}` : "")
    : low === high ? low : `${low} – ${high}`;
  number.title = !scores.length ? "pixels" : `Dice against ${args.against}: `
    + scored.map((layer, i) => `${layer.name} ${scores[i].toFixed(3)}`).join(", ");
  row.append(number);
  return row;
}

// --- buttons and keys

function press(id, isOn) {
  byId(id).setAttribute("aria-pressed", String(isOn));
}
function set(changes) {
  Object.assign(state, changes);
  press("fill", state.fill);
  press("outline", !state.fill);
  press("hatch", state.hatch);
  press("errors", state.errors);
  byId("legend").hidden = !state.errors;
  press("beside", state.beside);
  press("over", !state.beside);
  if (args) draw();
}
const actions = {
  fill: () => set({ fill: true }), outline: () => set({ fill: false }),
  hatch: () => set({ hatch: !state.hatch }), errors: () => set({ errors: !state.errors }),
  beside: () => set({ beside: true }), over: () => set({ beside: false }),
  in: () => zoomBy(1.4), out: () => zoomBy(1 / 1.4),
  fit: () => { state.view = whole(); place(); },
  one: () => { state.view = { ...state.view, zoom: 1 }; place(); },
};
for (const [id, act] of Object.entries(actions)) byId(id).addEventListener("click", act);
for (const id of ["opacity", "light", "contrast"]) byId(id).addEventListener("input", () => draw());
const KEYS = { f: "fill", o: "outline", h: "hatch", e: "errors", 0: "fit", 1: "one", "+": "in", "=": "in", "-": "out" };
function onKey(event) {
  const tag = event.target.tagName || "";
  const isTyping = /^(INPUT|TEXTAREA|SELECT)$/.test(tag) && event.target.type !== "checkbox" && event.target.type !== "range";
  if (!args || isTyping || event.altKey || event.target.isContentEditable) return;
  const isUndo = event.key === "z" && !event.shiftKey;
  if ((event.ctrlKey || event.metaKey) && !isUndo) return;
  if (event.target.closest?.("[role=grid], [role=slider], [role=listbox], [role=combobox], [role=radiogroup], [data-testid=stDataFrame], input[type=range]")) return;
  if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
    report({ event: "turn", step: event.key === "ArrowLeft" ? -1 : 1 });
  } else if (isUndo) {
    report({ event: "undo" });
  } else if (event.key === "s") {
    set({ beside: !state.beside });
  } else if (KEYS[event.key]) {
    actions[KEYS[event.key]]();
  } else {
    return;
  }
  event.preventDefault();
}
document.addEventListener("keydown", onKey);
// Keys work as well while the page around has the focus. One canvas listens: the newest.
try {
  const outer = window.parent;
  if (outer.zooCanvasKeys) outer.document.removeEventListener("keydown", outer.zooCanvasKeys);
  outer.zooCanvasKeys = onKey;
  outer.document.addEventListener("keydown", onKey);
} catch { /* another origin: keys work on the canvas alone */ }
window.addEventListener("resize", () => { if (args) draw(); });
set({});
tell("streamlit:componentReady", { apiVersion: 1 });
