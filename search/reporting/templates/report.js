"use strict";
// Draws the trials, and the front at the floor of the slider.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const plot = $("plot"), tip = $("tip"), slider = $("floor");
  const trials = data.trials, axes = data.axes;
  const view = { x: 0, y: Math.min(1, axes.length - 1), log: false, floor: data.floor };
  const pad = { left: 74, right: 24, top: 16, bottom: 52 }, height = 430;
  const score = (value) => value.toFixed(4);

  const byNumber = new Map(trials.map((t) => [t.trial, t]));

  // Looks up the fronts that search/front/front.py cut, at the study's floor and wherever a member falls out; only trials are counted here, by estimate.
  function cut(floor) {
    const own = floor === data.floor, step = own ? data.own : data.steps.find((s) => floor <= s.floor);
    const feasible = own ? data.own.feasible.map((n) => byNumber.get(n)).filter(Boolean) : trials.filter((t) => t.accuracy >= floor);
    const front = step ? step.front.map((n) => byNumber.get(n)) : [];
    const count = own ? data.own.count : feasible.length + data.repeats.filter((accuracy) => accuracy >= floor).length;
    const best = step && step.best !== null ? byNumber.get(step.best) : undefined;
    return { count, feasible: new Set(feasible), front, members: new Set(front), best };
  }

  function node(name, attributes, parent, text) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    if (parent) parent.append(element);
    return element;
  }

  function tick(value) {
    const size = Math.abs(value);
    const [unit, letter] = size >= 1e9 ? [1e9, "G"] : size >= 1e6 ? [1e6, "M"] : size >= 1e4 ? [1e3, "k"] : [1, ""];
    return `${parseFloat((value / unit).toPrecision(4))}${letter}`;
  }

  // A scale maps a value to pixels: linear with ticks at 1, 2, 5, or logarithmic with powers of two.
  function scale(values, from, to, log, gap) {
    let low = Math.min(...values), high = Math.max(...values);
    if (log) [low, high] = [Math.log2(low), Math.log2(high)];
    const margin = (high - low || Math.abs(high) || 1) * 0.07;
    low -= margin;
    high += margin;
    const first = low, span = high - low;
    const place = (v) => from + ((log ? Math.log2(v) : v) - first) / span * (to - from);
    const octaves = log && high - low >= 2;  // over a narrower range powers of two would leave the axis bare
    if (log && !octaves) [low, high] = [2 ** low, 2 ** high];
    const rough = (high - low) / (Math.abs(to - from) / gap), power = 10 ** Math.floor(Math.log10(rough));
    const step = octaves ? Math.max(1, Math.round(rough)) : power * [1, 2, 5, 10].find((m) => m * power >= rough);
    const ticks = [];
    for (let k = Math.ceil(low / step); k * step <= high; k++) ticks.push(octaves ? 2 ** (k * step) : k * step);
    return { place, ticks };
  }

  const star = (x, y, r) => "M" + Array.from({ length: 10 }, (_, i) => {
    const a = (i * Math.PI) / 5 - Math.PI / 2, s = i % 2 ? r * 0.45 : r;
    return `${(x + s * Math.cos(a)).toFixed(1)} ${(y + s * Math.sin(a)).toFixed(1)}`;
  }).join("L") + "Z";

  const axisTitle = (a) => `${a.title}${a.unit ? ` [${a.unit}]` : ""}, ${a.higher ? "higher" : "lower"} is better`;

  function frame(svg, sx, sy, width) {
    const bottom = height - pad.bottom;
    for (const t of sx.ticks) {
      const x = sx.place(t);
      node("line", { class: "grid", x1: x, x2: x, y1: pad.top, y2: bottom }, svg);
      node("text", { x, y: bottom + 18, "text-anchor": "middle" }, svg, tick(t));
    }
    for (const t of sy.ticks) {
      const y = sy.place(t);
      node("line", { class: "grid", x1: pad.left, x2: width - pad.right, y1: y, y2: y }, svg);
      node("text", { x: pad.left - 8, y: y + 4, "text-anchor": "end" }, svg, tick(t));
    }
    const middle = (pad.top + bottom) / 2;
    node("text", { class: "axis", x: (pad.left + width - pad.right) / 2, y: height - 10, "text-anchor": "middle" }, svg, axisTitle(axes[view.x]));
    node("text", { class: "axis", x: 16, y: middle, "text-anchor": "middle", transform: `rotate(-90 16 ${middle})` }, svg, axisTitle(axes[view.y]));
  }

  function edge(svg, front, at) {
    if (data.objectives !== 2 || view.x > 1 || view.y > 1 || view.x === view.y || front.length < 2) return;
    const points = front.map(at).sort((a, b) => a[0] - b[0]);
    const steps = points.slice(1).map(([x, y], i) => (axes[view.x].higher ? `V${y}H${x}` : `H${x}V${y}`));
    node("path", { class: "edge", d: `M${points[0].join(" ")}${steps.join("")}` }, svg);
  }

  function names(svg, chosen, at, width) {
    const taken = trials.map(at).map(([x, y]) => [x - 6, y - 6, x + 6, y + 6]);
    for (const t of chosen) {
      const [x, y] = at(t), wide = t.label.length * 6.1;
      for (const [dx, dy] of [[9, -8], [9, 17], [-9 - wide, -8], [-9 - wide, 17], [-wide / 2, -14], [-wide / 2, 24]]) {
        const box = [x + dx, y + dy - 10, x + dx + wide, y + dy + 3];
        const out = box[0] < pad.left || box[2] > width - 4 || box[1] < 2 || box[3] > height - pad.bottom;
        if (out || taken.some((b) => box[0] < b[2] && b[0] < box[2] && box[1] < b[3] && b[1] < box[3])) continue;
        node("text", { class: "name", x: x + dx, y: y + dy }, svg, t.label);
        taken.push(box);
        break;
      }
    }
  }

  function show(t, at, width) {
    const table = document.createElement("table"), title = document.createElement("strong");
    title.textContent = `Trial ${t.trial}${t.baseline ? ", baseline" : ""}: ${t.label}`;
    for (const pair of t.details) {
      const row = table.insertRow();
      for (const text of pair) row.insertCell().textContent = text;
    }
    tip.replaceChildren(title, table);
    tip.hidden = false;
    const [x, y] = at(t), right = x < width / 2;
    tip.style.left = right ? `${x + 14}px` : `${Math.max(0, x - tip.offsetWidth - 14)}px`;
    tip.style.top = `${Math.max(0, Math.min(y - 20, height - tip.offsetHeight))}px`;
  }

  function drawPlot(result) {
    const width = plot.clientWidth || 900, old = plot.querySelector("svg");
    const value = (t, axis) => t.values[axis] / axes[axis].size;
    const xs = trials.map((t) => value(t, view.x)), ys = trials.map((t) => value(t, view.y));
    const svg = node("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `${axisTitle(axes[view.x])} against ${axisTitle(axes[view.y])}` });
    const sx = scale(xs, pad.left, width - pad.right, view.log && Math.min(...xs) > 0, 90);
    const sy = scale(ys, height - pad.bottom, pad.top, false, 55);
    const at = (t) => [sx.place(value(t, view.x)), sy.place(value(t, view.y))];
    frame(svg, sx, sy, width);
    edge(svg, result.front, at);
    const rank = (t) => (t === result.best ? 3 : result.members.has(t) ? 2 : result.feasible.has(t) ? 1 : 0);
    const sorted = [...trials].sort((a, b) => rank(a) - rank(b));
    for (const t of sorted) {
      const [x, y] = at(t);
      if (t === result.best) node("path", { class: "star", d: star(x, y, 12) }, svg);
      else node("circle", { class: ["infeasible", "feasible", "member"][rank(t)], cx: x, cy: y, r: rank(t) === 2 ? 5.5 : 4 }, svg);
      if (t.baseline) node("path", { class: "base", d: `M${x} ${y - 10}l10 10-10 10-10-10z` }, svg);
    }
    names(svg, [...(result.best ? [result.best] : []), ...result.front.filter((t) => t !== result.best)], at, width);
    for (const t of sorted) {
      const [cx, cy] = at(t), state = ["below the floor", "feasible", "on the front", "recommended"][rank(t)];
      const hit = node("circle", { class: "hit", cx, cy, r: 11, tabindex: 0, role: "img", "aria-label": `Trial ${t.trial}, ${t.label}, ${state}` }, svg);
      for (const event of ["mouseenter", "focus"]) hit.addEventListener(event, () => show(t, at, width));
      for (const event of ["mouseleave", "blur"]) hit.addEventListener(event, () => (tip.hidden = true));
    }
    if (old) old.replaceWith(svg); else plot.prepend(svg);
  }

  function drawTables(result) {
    const standing = new Map(trials.map((t) => [String(t.trial), t]));
    for (const row of $("trials").tBodies[0].rows) {
      const t = standing.get(row.dataset.trial);
      if (!t) continue;
      const member = result.members.has(t);
      const state = t === result.best ? "recommended" : member ? "front" : result.feasible.has(t) ? "feasible" : "below the floor";
      row.querySelector(".state").textContent = row.querySelector(".status").dataset.sort = state;
      row.classList.toggle("on-front", member);
      row.classList.toggle("chosen", t === result.best);
    }
    const body = $("front-table").tBodies[0], base = trials.find((t) => t.baseline);
    const compared = [...(base ? [base] : []), ...result.front.filter((t) => t !== base)];
    const copy = (t) => $("trials").querySelector(`tr[data-trial="${t.trial}"]`).cloneNode(true);
    body.replaceChildren(...compared.map(copy));
    if (base) body.rows[0].classList.add("reference");
    if (!result.front.length) {
      const cell = body.insertRow().insertCell();
      cell.textContent = "No trial reaches this floor.";
      cell.colSpan = $("trials").tHead.rows[0].cells.length;
    }
    $("front-count").textContent = `${result.front.length} trial${result.front.length === 1 ? "" : "s"}`;
  }

  function draw() {
    const result = cut(view.floor), base = data.baselineAccuracy;
    const share = base ? ` = ${(100 * view.floor / base).toFixed(1)} % of the baseline` : "";
    $("floor-text").textContent = score(view.floor);
    slider.setAttribute("aria-valuetext", score(view.floor) + share);
    const slower = result.best && result.best.slower ? ", slower than the dense model at its batch size" : "";
    const best = result.best ? `recommended: trial ${result.best.trial}, ${result.best.label}${slower}.` : "nothing to recommend.";
    $("what-if").textContent = `Floor ${score(view.floor)}${share}: ${result.count} feasible, ${result.front.length} on the front; ${best}`;
    if (trials.length) drawPlot(result);
    drawTables(result);
  }

  function sortBy(header) {
    const index = header.cellIndex, body = $("trials").tBodies[0];
    const turn = header.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of header.parentNode.cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", turn > 0 ? "ascending" : "descending");
    const key = (row) => row.cells[index].dataset.sort;
    const compare = (a, b) => (a === "") - (b === "") || turn * (isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b);
    body.replaceChildren(...[...body.rows].sort((a, b) => compare(key(a), key(b))));
  }

  function start() {
    const scores = trials.map((t) => t.accuracy).concat(data.floor);
    slider.min = Math.min(...scores);
    slider.max = Math.max(...scores);
    slider.value = data.floor;
    slider.addEventListener("input", () => { view.floor = Number(slider.value); draw(); });
    $("reset").addEventListener("click", () => { view.floor = slider.value = data.floor; draw(); });
    for (const name of ["x", "y"]) {
      axes.forEach((axis, i) => $(name).add(new Option(axis.title, i, false, i === view[name])));
      $(name).addEventListener("change", () => { view[name] = Number($(name).value); draw(); });
    }
    const spread = trials.map((t) => t.values[0]);
    view.log = $("log").checked = trials.length > 0 && Math.min(...spread) > 0 && Math.max(...spread) > 8 * Math.min(...spread);
    $("log").addEventListener("change", () => { view.log = $("log").checked; draw(); });
    for (const button of $("trials").tHead.querySelectorAll("button")) {
      button.addEventListener("click", () => sortBy(button.closest("th")));
    }
    new ResizeObserver(draw).observe(plot);
    draw();
  }

  start();
})();
