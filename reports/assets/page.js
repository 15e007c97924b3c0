"use strict";
// The page is complete without this script; it adds filtering, seeking and copying.
const all = (sel, from = document) => [...from.querySelectorAll(sel)];

// Cases: filter by text, outcome and label.
const filter = document.getElementById("filter");
if (filter) {
  filter.hidden = false;
  const value = id => { const e = document.getElementById(id); return e ? e.value : ""; };
  const rows = all(".cases tbody tr").map(tr => ({tr, text: (tr.closest(".topic").querySelector("h3").firstChild.data + tr.textContent).toLowerCase()}));
  const apply = () => {
    const words = value("filter-text").toLowerCase().split(/\s+/).filter(Boolean);
    const state = value("filter-outcome"), label = value("filter-label");
    let shown = 0;
    for (const {tr, text} of rows) {
      const ok = words.every(w => text.includes(w)) && (!state || tr.dataset.state === state) && (!label || tr.dataset.labels.includes("|" + label + "|"));
      tr.hidden = !ok;
      if (ok) shown++;
    }
    for (const t of all(".topic")) t.hidden = !t.querySelector("tbody tr:not([hidden])");
    document.getElementById("filter-count").textContent = shown === rows.length ? "" : shown + " of " + rows.length;
  };
  filter.addEventListener("input", apply);
  filter.addEventListener("submit", e => e.preventDefault());
  apply(); // a reloaded page keeps its fields
}

// A link into a closed machine opens it. Browsers that do so themselves lose nothing.
const reveal = () => {
  const to = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!to) return;
  let shut = false;
  for (let e = to; e; e = e.parentElement) if (e.tagName === "DETAILS" && !e.open) e.open = shut = true;
  if (shut) to.scrollIntoView({block: to.classList.contains("l") ? "center" : "start"});
};
addEventListener("hashchange", reveal);
reveal();

for (const b of all(".copy")) {
  b.hidden = false;
  b.addEventListener("click", async () => {
    const pre = b.parentElement.querySelector("pre");
    try {
      await navigator.clipboard.writeText(pre.textContent);
      b.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(pre); // no clipboard for this page: leave it selected
      b.textContent = "Selected";
    }
    setTimeout(() => { b.textContent = "Copy"; }, 1500);
  });
}

// Machines: seek in the console by line, time or text; timeline and console follow each other.
const lineTime = l => parseFloat(l.children[1].textContent);
const atTime = (lines, t) => {
  let lo = 0, hi = lines.length - 1;
  while (lo < hi) { const mid = (lo + hi + 1) >> 1; if (lineTime(lines[mid]) <= t) lo = mid; else hi = mid - 1; }
  return lines[lo];
};
const toX = (scale, t) => {
  for (const [t0, t1, x0, x1] of scale) if (t <= t1) return t1 > t0 ? x0 + (x1 - x0) * Math.max(0, t - t0) / (t1 - t0) : x0;
  return 100;
};
const toTime = (scale, x) => {
  for (const [t0, t1, x0, x1] of scale) if (x <= x1) return x1 > x0 ? t0 + (t1 - t0) * (x - x0) / (x1 - x0) : t0;
  return scale.length ? scale[scale.length - 1][1] : 0;
};
const setUp = machine => {
  const box = machine.querySelector(".console.full");
  if (!box) return;
  const lines = all(".l", box);
  const form = machine.querySelector(".seek"), out = form.querySelector("output"), input = form.querySelector("input");
  let here = null;
  const go = l => {
    if (here) here.classList.remove("here");
    here = l;
    l.classList.add("here");
    box.scrollTop = l.offsetTop - box.clientHeight / 3;
    follow();
  };
  let follow = () => {};
  form.hidden = false;
  form.addEventListener("submit", e => {
    e.preventDefault();
    const q = input.value.trim();
    if (!q) return;
    out.textContent = "";
    const time = q.match(/^(?:time\s+)?(\d+(?:\.\d+)?)\s*s$/), number = q.match(/^(?:line\s+)?(\d+)$/);
    if (time) return go(atTime(lines, parseFloat(time[1])));
    if (number) { const l = document.getElementById(machine.id + "-" + number[1]); if (l) return go(l); }
    const low = q.toLowerCase(), hits = lines.filter(l => l.children[2].textContent.toLowerCase().includes(low));
    if (!hits.length) { out.textContent = "not found"; return; }
    const next = (hits.indexOf(here) + 1) % hits.length;
    out.textContent = (next + 1) + " of " + hits.length;
    go(hits[next]);
  });
  const chart = machine.querySelector(".chart");
  if (!chart) return;
  const scale = JSON.parse(chart.dataset.scale);
  const cursor = document.createElementNS("http://www.w3.org/2000/svg", "line");
  cursor.setAttribute("class", "cursor");
  cursor.setAttribute("y1", "18");
  cursor.setAttribute("y2", chart.getAttribute("height") - 20);
  chart.append(cursor);
  follow = () => {
    // The line in use, or else as far down the view as the view is down the console.
    const y = box.scrollTop + box.clientHeight * box.scrollTop / Math.max(1, box.scrollHeight - box.clientHeight);
    let lo = 0, hi = lines.length - 1;
    while (lo < hi) { const mid = (lo + hi + 1) >> 1; if (lines[mid].offsetTop <= y) lo = mid; else hi = mid - 1; }
    const used = here && here.offsetTop >= box.scrollTop && here.offsetTop < box.scrollTop + box.clientHeight;
    const x = toX(scale, lineTime(used ? here : lines[lo])) + "%";
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
  };
  box.addEventListener("scroll", () => requestAnimationFrame(follow));
  follow();
  chart.addEventListener("click", e => {
    if (e.target.closest("a")) return;
    const r = chart.getBoundingClientRect();
    go(atTime(lines, toTime(scale, 100 * (e.clientX - r.left) / r.width)));
  });
};
for (const m of all("details.machine")) {
  if (m.open) setUp(m);
  else m.addEventListener("toggle", () => setUp(m), {once: true});
}
