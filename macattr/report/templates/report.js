"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const slider = document.getElementById("slider");
const count = document.getElementById("count");
const status = document.querySelector("[role=status]");
const SHOWN_NAMES = 6;
const FEWEST_ROWS = 10;
const expanded = new Set();
const state = { ranking: 0, k: data.k }; // the controls and the link show it
let tab = 0;
let remembering = 0;
let clearing = 0;

function probability(top, k) {
  const [first, values] = top;
  return k < first ? 0 : values[k - first] ?? 100;
}

function exportText(ranking, item, k) {
  const stated = { "": "", count: String(k), summary: ranking.choices[k - 1].summary }[item.stated];
  const pieces = item.pieces ? ranking.pieces[item.pieces].slice(0, k) : [];
  return item.before + stated + item.between + pieces.join(item.separator) + item.end;
}

function show(root, name, text) {
  for (const element of root.querySelectorAll(`[data-show="${name}"]`)) element.textContent = text;
}

function matches(row, words) {
  const text = row.querySelector("th").textContent.toLowerCase();
  return words.every((word) => text.includes(word));
}

function showRows(root, ranking, index, k) {
  const rows = root.querySelectorAll("tbody tr[data-rank]");
  const words = root.querySelector("[data-search]").value.toLowerCase().split(/\s+/).filter(Boolean);
  const sorted = root.querySelector("[data-sorting]").value;
  const whole = expanded.has(index) || words.length > 0 || sorted !== "rank";
  let hits = 0;
  for (const row of rows) {
    const rank = Number(row.dataset.rank);
    const chance = ranking.tops ? probability(ranking.tops[rank - 1], k) : 0;
    if (ranking.tops) {
      row.querySelector(".meter i").style.width = `${chance}%`;
      row.querySelector(".top span:last-child").textContent = `${chance} %`;
    }
    const found = matches(row, words);
    hits += found;
    row.hidden = !found || (!whole && rank > Math.max(k + 3, FEWEST_ROWS) && chance < 5);
  }
  if (sorted === "top") sortRows(root);
  root.querySelector("[data-hits]").textContent = words.length ? `${hits} of ${rows.length} layers` : "";
  const button = root.querySelector("[data-all]");
  const needed = expanded.has(index) || root.querySelector("tr[data-rank][hidden]");
  button.hidden = !needed || words.length > 0;
  button.setAttribute("aria-expanded", expanded.has(index));
  button.textContent = expanded.has(index) ? "Show fewer" : `Show all ${rows.length} layers`;
}

const KEYS = {
  rank: (row) => Number(row.dataset.rank),
  depth: (row) => Number(row.dataset.depth),
  top: (row) => -parseInt(row.querySelector(".top span:last-child").textContent, 10),
  size: (row) => -Number(row.querySelector(".size").textContent.replaceAll(",", "")),
};

function sortRows(root) {
  const by = root.querySelector("[data-sorting]").value;
  const body = root.querySelector(".layers tbody");
  const name = (row) => row.querySelector(".name").textContent;
  const compare = by === "name"
    ? (a, b) => name(a).localeCompare(name(b), "en", { numeric: true })
    : (a, b) => KEYS[by](a) - KEYS[by](b) || KEYS.rank(a) - KEYS.rank(b);
  body.append(...[...body.rows].sort(compare));
  let marked = false;
  for (const header of root.querySelectorAll("[data-sort]")) {
    const active = header.dataset.sort === by && !marked;
    marked ||= active;
    if (active) header.setAttribute("aria-sort", by === "top" || by === "size" ? "descending" : "ascending");
    else header.removeAttribute("aria-sort");
  }
}

function sortBy(root, by) {
  root.querySelector("[data-sorting]").value = by;
  sortRows(root);
  update();
}

function locate(elements) {
  for (const marked of document.querySelectorAll(".located")) marked.classList.remove("located");
  for (const element of elements) element.classList.add("located");
  const calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  elements[0]?.scrollIntoView({ block: "center", behavior: calm ? "auto" : "smooth" });
}

function showRow(root, rank) {
  const row = root.querySelector(`tr[data-rank="${rank}"]`);
  if (row.hidden) {
    root.querySelector("[data-search]").value = "";
    expanded.add(state.ranking);
    update();
  }
  locate([row]);
}

function quoted(value) {
  if (value === null || value === undefined) return "";
  return typeof value === "number" ? String(value) : `"${value.replaceAll('"', '""')}"`;
}

function csv(ranking, k) {
  const several = Boolean(ranking.tops);
  const ends = several ? ["score_low", "score_high", "rank_low", "rank_high", `percent_in_top_${k}`] : [];
  const kinds = ranking.degradations?.names ?? [];
  const names = kinds.map((kind) => `rank_${kind}`);
  const rows = [["rank", "layer", "type", "parameters", "score", ...ends, ...names, "chosen"]];
  ranking.layers.forEach((layer, i) => {
    const chance = several ? [probability(ranking.tops[i], k)] : [];
    rows.push([i + 1, ranking.pieces.names[i], ...layer, ...chance, ...(ranking.degradations?.ranks[i] ?? []), i < k ? 1 : 0]);
  });
  return rows.map((row) => row.map(quoted).join(",") + "\r\n").join("");
}

function showTab() {
  for (const element of document.querySelectorAll("[data-tab]")) {
    const active = Number(element.dataset.tab) === tab;
    element.setAttribute("aria-selected", active);
    element.tabIndex = active ? 0 : -1;
  }
  for (const element of document.querySelectorAll("[data-export]")) {
    element.hidden = Number(element.dataset.export) !== tab;
    element.setAttribute("role", "tabpanel");
    element.setAttribute("aria-labelledby", element.id.replace("panel", "tab"));
  }
}

const pixel = document.createElement("canvas").getContext("2d", { willReadFrequently: true });

function rgb(colours, opacity = 1) {
  pixel.clearRect(0, 0, 1, 1);
  for (const [place, colour] of colours.entries()) {
    pixel.globalAlpha = place ? opacity : 1;
    pixel.fillStyle = colour;
    pixel.fillRect(0, 0, 1, 1);
  }
  return `rgb(${[...pixel.getImageData(0, 0, 1, 1).data].slice(0, 3).join(", ")})`;
}

function drawn(section) {
  const scrolled = [...section.querySelectorAll(".scroll")].map((element) => [element, element.scrollLeft]);
  for (const [element] of scrolled) element.scrollLeft = 0;
  const shapes = picture(section);
  for (const [element, left] of scrolled) element.scrollLeft = left;
  return shapes;
}

function picture(section) {
  const paper = rgb([getComputedStyle(document.body).backgroundColor]);
  const accent = rgb([getComputedStyle(section.querySelector("button")).getPropertyValue("--accent")]);
  const origin = section.getBoundingClientRect();
  const boxes = [];
  const texts = [];
  for (const element of section.querySelectorAll("h3, .heat th, .ends span, .outside li, .cell[title]")) {
    const style = getComputedStyle(element);
    const box = element.getBoundingClientRect();
    const place = { x: box.x - origin.x + 16, y: box.y - origin.y + 16, width: box.width, height: box.height };
    if (element.matches(".cell")) {
      const faded = rgb([paper, style.backgroundColor], Number(style.opacity));
      boxes.push({ ...place, fill: faded, chosen: element.matches(".map .chosen") ? accent : "" });
    }
    const text = element.innerText?.replace(element.matches("li") ? /^\d+\s*/ : "", "").trim();
    if (!text || element.matches(".dense .cell")) continue;
    const left = element.matches("h3, .ends span") ? 0 : element.matches("li") ? element.firstElementChild.offsetWidth + 6 : null;
    texts.push({
      x: place.x + (left ?? place.width / 2), y: place.y + place.height / 2, text, anchor: left === null ? "middle" : "start",
      size: Math.min(parseFloat(style.fontSize), element.matches("[scope=colgroup]") ? place.width / (0.62 * text.length) : 99), fill: rgb([paper, style.color]), weight: style.fontWeight,
      turn: element.matches(".long") ? -90 : 0,
    });
  }
  const top = Math.min(...[...boxes, ...texts].map((shape) => shape.y)) - 24;
  for (const shape of [...boxes, ...texts]) shape.y -= top;
  const ends = [...boxes, ...texts.map((text) => ({ x: text.x, y: text.y, width: text.size * text.text.length * 0.5, height: 12 }))];
  return {
    boxes, texts, paper,
    width: Math.ceil(Math.max(...ends.map((box) => box.x + box.width))) + 16,
    height: Math.ceil(Math.max(...ends.map((box) => box.y + box.height))) + 16,
  };
}

function notch(x, y) {
  return `M${x + 1.5} ${y + 1.5}h7l-7 7z`;
}

function svg({ boxes, texts, paper, width, height }) {
  const fragment = document.createRange().createContextualFragment("<svg></svg>");
  const root = fragment.firstChild;
  const add = (name, values, text = "") => {
    const element = document.createElementNS(root.namespaceURI, name);
    for (const [key, value] of Object.entries(values)) element.setAttribute(key, value);
    element.textContent = text;
    root.append(element);
  };
  for (const [key, value] of Object.entries({ width, height, viewBox: `0 0 ${width} ${height}`, "font-family": "sans-serif" })) {
    root.setAttribute(key, value);
  }
  add("rect", { width, height, fill: paper });
  for (const { x, y, width: w, height: h, fill, chosen } of boxes) {
    add("rect", { x, y, width: w, height: h, fill, ...(chosen && { stroke: chosen, "stroke-width": 2.5 }) });
    if (chosen) add("path", { d: notch(x, y), fill: paper });
  }
  for (const { x, y, text, anchor, size, fill, weight, turn } of texts) {
    const font = { fill, "font-size": size, "font-weight": weight, "text-anchor": anchor };
    add("text", { y: size * 0.35, transform: `translate(${x} ${y}) rotate(${turn})`, ...font }, text);
  }
  return new Blob([new XMLSerializer().serializeToString(root)], { type: "image/svg+xml" });
}

function png({ boxes, texts, paper, width, height }) {
  const canvas = document.createElement("canvas");
  const scale = Math.min(3, 16000 / Math.max(width, height));
  canvas.width = width * scale;
  canvas.height = height * scale;
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  pen.fillStyle = paper;
  pen.fillRect(0, 0, width, height);
  pen.lineWidth = 2.5;
  for (const { x, y, width: w, height: h, fill, chosen } of boxes) {
    pen.fillStyle = fill;
    pen.fillRect(x, y, w, h);
    pen.strokeStyle = chosen;
    if (chosen) {
      pen.strokeRect(x, y, w, h);
      pen.fillStyle = paper;
      pen.fill(new Path2D(notch(x, y)));
    }
  }
  for (const { x, y, text, anchor, size, fill, weight, turn } of texts) {
    pen.save();
    pen.translate(x, y);
    pen.rotate((turn * Math.PI) / 180);
    pen.font = `${weight} ${size}px sans-serif`;
    pen.textAlign = anchor === "start" ? "left" : "center";
    pen.fillStyle = fill;
    pen.fillText(text, 0, size * 0.35);
    pen.restore();
  }
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function render(root, index, k) {
  const ranking = data.rankings[index];
  for (const [name, text] of Object.entries(ranking.choices[k - 1])) show(root, name, text);
  show(root, "k", k);
  const names = ranking.pieces.names.slice(0, Math.min(k, SHOWN_NAMES)).join(", ");
  show(root, "names", names + (k > SHOWN_NAMES ? ` and ${k - SHOWN_NAMES} more` : ""));
  for (const element of root.querySelectorAll("[data-rank]")) {
    element.classList.toggle("chosen", Number(element.dataset.rank) <= k);
  }
  if (ranking.degradations) show(root, "common_kinds", ranking.degradations.common[k - 1]);
  for (const cell of root.querySelectorAll("[data-kind]")) cell.classList.toggle("chosen", Number(cell.textContent) <= k);
  showRows(root, ranking, index, k);
  for (const element of root.querySelectorAll("[data-export]")) {
    element.querySelector("pre").textContent = exportText(ranking, ranking.exports[element.dataset.export], k);
  }
}

function listed(names, k, moves, before) {
  return names.map(({ name, rank }, place) => {
    const item = document.createElement("li");
    const number = document.createElement("b");
    const text = document.createElement("span");
    number.textContent = rank;
    text.textContent = name;
    item.title = name;
    item.className = `${rank <= k ? "inside" : ""}${place === k ? " border" : ""}`;
    const mark = { enters: "▲ ", leaves: "▽ " }[before ? "" : moves.get(name)] ?? "";
    item.append(...(before ? [text, number] : [number, mark, text]));
    return item;
  });
}

function renderChange(k) {
  const section = document.querySelector("[data-change]");
  if (!section) return;
  const sides = ["from", "to"].map((side) => Number(section.querySelector(`[data-${side}]`).value));
  const ranked = sides.map((side) => data.rankings[side].pieces.names);
  const ranks = ranked.map((names) => new Map(names.map((name, place) => [name, place + 1])));
  const union = [...new Set(ranked.flatMap((names) => names.slice(0, k)))];
  const moves = new Map(union.map((name) => {
    const [was, is] = ranks.map((side) => side.get(name) <= k);
    return [name, was && is ? "stays" : is ? "enters" : "leaves"];
  }));
  const columns = ranks.map((side) => union.map((name) => ({ name, rank: side.get(name) })).sort((a, b) => a.rank - b.rank));
  for (const [place, column] of ["before", "after"].entries()) {
    section.querySelector(`[data-${column}]`).replaceChildren(...listed(columns[place], k, moves, place === 0));
  }
  const picture = section.querySelector("[data-lines]");
  picture.setAttribute("viewBox", `0 0 100 ${union.length}`);
  picture.replaceChildren(...union.map((name) => {
    const line = document.createElementNS(picture.namespaceURI, "line");
    const [y1, y2] = columns.map((column) => column.findIndex((layer) => layer.name === name) + 0.5);
    for (const [key, value] of Object.entries({ x1: 0, x2: 100, y1, y2, class: moves.get(name) })) line.setAttribute(key, value);
    return line;
  }));
  const stay = union.filter((name) => moves.get(name) === "stays").length;
  const names = sides.map((side) => data.rankings[side].name);
  const moved = k - stay ? `${k - stay} enter and ${k - stay} leave it.` : "None enters or leaves it.";
  section.querySelector("[data-sentence]").textContent =
    `From ${names[0]} to ${names[1]}, ${stay} of the top ${k} layers stay in the top. ${moved}`;
}

function renderAgreement(k) {
  const layers = Number(slider.max);
  for (const element of document.querySelectorAll("[data-pair]")) {
    const both = data.shared[element.dataset.pair]?.[k - 1] ?? k;
    element.textContent = both;
    element.style.setProperty("--level", `${Math.round((100 * both) / k)}%`);
    const level = Math.round((100 * both) / k);
    element.className = level >= 70 ? "high" : level >= 50 ? "middle" : "";
  }
  for (const element of document.querySelectorAll("[data-chance]")) element.textContent = ((k * k) / layers).toFixed(1);
}

function update() {
  const { ranking, k } = state;
  slider.value = count.value = k;
  for (const choice of document.querySelectorAll("[name=ranking]")) choice.checked = Number(choice.value) === ranking;
  for (const root of document.querySelectorAll("[data-ranking]")) {
    root.hidden = Number(root.dataset.ranking) !== ranking;
    if (!root.hidden) render(root, ranking, k);
  }
  const share = data.rankings[ranking].choices[k - 1].share;
  slider.setAttribute("aria-valuetext", `${k} of ${slider.max} layers, ${share}`);
  show(document, "k", k);
  show(document, "share", share);
  if (data.common.length) show(document, "common", data.common[k - 1]);
  renderAgreement(k);
  renderChange(k);
}

function choose({ ranking = state.ranking, k = state.k }) {
  Object.assign(state, { ranking, k: Math.min(Math.max(Math.round(k) || data.k, 1), Number(slider.max)) });
  update();
  clearTimeout(remembering);
  remembering = setTimeout(remember, 200);
}

function remember() {
  const link = new URL(location.href);
  const other = state.ranking ? `&ranking=${encodeURIComponent(data.rankings[state.ranking].name)}` : "";
  link.hash = `k=${state.k}${other}`;
  history.replaceState(null, "", link); // raises no hashchange: only links of others are read
}

function chosenBy(link) {
  const wanted = new URLSearchParams(new URL(link).hash.slice(1));
  const named = data.rankings.findIndex((ranking) => ranking.name === wanted.get("ranking"));
  return { ranking: Math.max(named, 0), k: parseInt(wanted.get("k"), 10) };
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Browsers may refuse the clipboard to pages from file://; the old way works there.
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "offscreen";
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

async function savePicture(root, kind) {
  const name = `${data.rankings[root.dataset.ranking].name}-layers.${kind}`;
  const shapes = drawn(root.querySelector(".where"));
  download(kind === "svg" ? svg(shapes) : await png(shapes), name);
}

async function copyFrom(button) {
  const block = button.closest("[data-export]").querySelector("pre");
  const done = await copy(block.textContent);
  if (!done) window.getSelection().selectAllChildren(block);
  button.focus();
  button.textContent = done ? "Copied ✓" : "Press Ctrl+C";
  button.classList.add("done");
  status.textContent = done ? `${block.getAttribute("aria-label")} copied` : "Selected: press Ctrl+C to copy";
  clearTimeout(clearing);
  clearing = setTimeout(() => {
    status.textContent = "";
    for (const told of document.querySelectorAll("[data-copy].done")) {
      told.textContent = "Copy";
      told.classList.remove("done");
    }
  }, 2500);
}

slider.addEventListener("input", () => choose({ k: Number(slider.value) }));
count.addEventListener("change", () => choose({ k: Number(count.value) }));
document.querySelector(".control").addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("change", (event) => {
  if (event.target.matches("[data-sorting]")) sortBy(event.target.closest("[data-ranking]"), event.target.value);
  if (event.target.matches("[data-from], [data-to]")) renderChange(state.k);
  if (event.target.name === "ranking") choose({ ranking: Number(event.target.value) });
});
document.addEventListener("input", (event) => {
  if (event.target.matches("[data-search]")) update();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && event.target.matches("[data-sort]")) event.target.click();
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (step && event.target.matches("[data-tab]")) {
    const tabs = [...event.target.parentElement.children];
    const next = tabs.at((tabs.indexOf(event.target) + step) % tabs.length);
    next.click();
    next.focus();
  }
});
document.addEventListener("click", (event) => {
  const root = event.target.closest("[data-ranking]");
  const cell = event.target.closest(".cell[title]");
  const header = event.target.closest("[data-sort]");
  if (cell) showRow(root, cell.dataset.rank);
  if (event.target.closest("tbody .name")) {
    locate([...root.querySelectorAll(`.cell[data-rank="${event.target.closest("tr").dataset.rank}"]`)]);
  }
  if (header) sortBy(root, header.dataset.sort);
  if (event.target.matches("[data-csv]")) {
    const ranking = data.rankings[state.ranking];
    download(new Blob([csv(ranking, state.k)], { type: "text/csv" }), `${ranking.name}-layers.csv`);
  }
  if (event.target.matches("[data-picture]")) savePicture(root, event.target.dataset.picture);
  if (event.target.matches("[data-tab]")) {
    tab = Number(event.target.dataset.tab);
    showTab();
  }
  if (event.target.matches("[data-copy]")) copyFrom(event.target);
  if (event.target.matches("[data-all]")) {
    if (!expanded.delete(state.ranking)) expanded.add(state.ranking);
    update();
  }
});
window.addEventListener("hashchange", (event) => choose(chosenBy(event.newURL)));
for (const header of document.querySelectorAll("[data-sort]")) header.tabIndex = 0;
document.documentElement.classList.add("js");
showTab();
if (location.hash) choose(chosenBy(location.href));
else update();
