"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const slider = document.getElementById("slider");
const count = document.getElementById("count");
const status = document.querySelector("[role=status]");
const SHOWN_NAMES = 6;
const FEWEST_ROWS = 10;
const expanded = new Set();
let current = 0;
let remembering = 0;

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
  update(Number(slider.value));
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
    expanded.add(current);
    update(Number(slider.value));
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
  const rows = [["rank", "layer", "type", "parameters", "score", ...ends, "chosen"]];
  ranking.layers.forEach((layer, i) => {
    const chance = several ? [probability(ranking.tops[i], k)] : [];
    rows.push([i + 1, ranking.pieces.names[i], ...layer, ...chance, i < k ? 1 : 0]);
  });
  return rows.map((row) => row.map(quoted).join(",") + "\r\n").join("");
}

function download(text, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
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
  showRows(root, ranking, index, k);
  for (const element of root.querySelectorAll("[data-export]")) {
    element.querySelector("pre").textContent = exportText(ranking, ranking.exports[element.dataset.export], k);
  }
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

function update(k) {
  slider.value = count.value = k;
  for (const root of document.querySelectorAll("[data-ranking]")) {
    root.hidden = Number(root.dataset.ranking) !== current;
    if (!root.hidden) render(root, current, k);
  }
  const share = data.rankings[current].choices[k - 1].share;
  slider.setAttribute("aria-valuetext", `${k} of ${slider.max} layers, ${share}`);
  show(document, "k", k);
  show(document, "share", share);
  if (data.common.length) show(document, "common", data.common[k - 1]);
  renderAgreement(k);
}

function remember() {
  clearTimeout(remembering);
  remembering = setTimeout(() => {
    const other = current ? `&ranking=${encodeURIComponent(data.rankings[current].name)}` : "";
    const hash = `#k=${slider.value}${other}`;
    if (hash !== location.hash) location.replace(hash);
  }, 200);
}

function restore() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  const index = data.rankings.findIndex((ranking) => ranking.name === wanted.get("ranking"));
  current = Math.max(index, 0);
  for (const choice of document.querySelectorAll("[name=ranking]")) choice.checked = Number(choice.value) === current;
  update(Math.min(Math.max(parseInt(wanted.get("k"), 10) || data.k, 1), Number(slider.max)));
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

async function copyFrom(button) {
  const block = button.closest("[data-export]").querySelector("pre");
  const done = await copy(block.textContent);
  if (!done) window.getSelection().selectAllChildren(block);
  button.focus();
  button.textContent = done ? "Copied ✓" : "Press Ctrl+C";
  button.classList.add("done");
  status.textContent = done ? `${block.getAttribute("aria-label")} copied` : "Selected: press Ctrl+C to copy";
  setTimeout(() => {
    button.textContent = "Copy";
    button.classList.remove("done");
    status.textContent = "";
  }, 2500);
}

slider.addEventListener("input", () => {
  update(Number(slider.value));
  remember();
});
count.addEventListener("change", () => {
  const wanted = Math.round(Number(count.value)) || data.k;
  update(Math.min(Math.max(wanted, 1), Number(slider.max)));
  remember();
});
document.querySelector(".control").addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("change", (event) => {
  if (event.target.matches("[data-sorting]")) sortBy(event.target.closest("[data-ranking]"), event.target.value);
  if (event.target.name !== "ranking") return;
  current = Number(event.target.value);
  update(Number(slider.value));
  remember();
});
document.addEventListener("input", (event) => {
  if (event.target.matches("[data-search]")) update(Number(slider.value));
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && event.target.matches("[data-sort]")) event.target.click();
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
    const ranking = data.rankings[current];
    download(csv(ranking, Number(slider.value)), `${ranking.name}-layers.csv`);
  }
  if (event.target.matches("[data-copy]")) copyFrom(event.target);
  if (event.target.matches("[data-all]")) {
    if (!expanded.delete(current)) expanded.add(current);
    update(Number(slider.value));
  }
});
window.addEventListener("hashchange", restore);
for (const header of document.querySelectorAll("[data-sort]")) header.tabIndex = 0;
document.documentElement.classList.add("js");
restore();
