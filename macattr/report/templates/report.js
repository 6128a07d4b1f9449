"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const slider = document.getElementById("slider");
const count = document.getElementById("count");
const status = document.querySelector("[role=status]");
const SHOWN_NAMES = 6;
const FEWEST_ROWS = 10;
const expanded = new Set();
let current = 0;

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

function showRows(root, ranking, index, k) {
  const rows = root.querySelectorAll("tbody tr[data-rank]");
  rows.forEach((row, i) => {
    const chance = ranking.tops ? probability(ranking.tops[i], k) : 0;
    if (ranking.tops) {
      row.querySelector(".meter i").style.width = `${chance}%`;
      row.querySelector(".top span:last-child").textContent = `${chance} %`;
    }
    row.hidden = !expanded.has(index) && i >= Math.max(k + 3, FEWEST_ROWS) && chance < 5;
  });
  const button = root.querySelector("[data-all]");
  const needed = expanded.has(index) || root.querySelector("tr[data-rank][hidden]");
  button.hidden = !needed;
  button.setAttribute("aria-expanded", expanded.has(index));
  button.textContent = expanded.has(index) ? "Show fewer" : `Show all ${rows.length} layers`;
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
    element.className = both / k > 0.62 ? "high" : both / k >= 0.42 ? "middle" : "";
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

slider.addEventListener("input", () => update(Number(slider.value)));
count.addEventListener("change", () => {
  const wanted = Math.round(Number(count.value)) || data.k;
  update(Math.min(Math.max(wanted, 1), Number(slider.max)));
});
document.querySelector(".control").addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("change", (event) => {
  if (event.target.name !== "ranking") return;
  current = Number(event.target.value);
  update(Number(slider.value));
});
document.addEventListener("click", (event) => {
  if (event.target.matches("[data-copy]")) copyFrom(event.target);
  if (event.target.matches("[data-all]")) {
    if (!expanded.delete(current)) expanded.add(current);
    update(Number(slider.value));
  }
});
document.documentElement.classList.add("js");
update(data.k);
