
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const bars = data.bars, count = bars.node.length;
  const canvas = document.getElementById("timeline"), scroller = document.getElementById("scroller");
  const tip = document.getElementById("tip"), details = document.querySelector("#details dl");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const LANE = 22, AXIS = 24, PAD = 3;
  const names = data.lanes.map((lane) => lane.worker ? `${lane.place} · ${lane.worker}` : lane.place);
  const whole = Math.max(data.span, 1e-6);
  let left = 0, right = whole;              // the shown part, in milliseconds
  let chosen = new Set(), chosenBar = -1;   // nodes, and one bar
  let drag = null, room = 0, wide = 0;

  const byLane = data.lanes.map(() => []);
  for (let at = 0; at < count; at++) byLane[bars.lane[at]].push(at);
  // The longest bar up to each one, so that a search by time need not look at them all.
  const reach = byLane.map((list) => { let most = 0; return list.map((at) => (most = Math.max(most, bars.took[at]))); });

  const time = (ms) => ms < 0.001 ? `${(ms * 1e6).toFixed(0)} ns` : ms < 1 ? `${(ms * 1e3).toFixed(ms < 0.01 ? 1 : 0)} µs`
    : ms < 1000 ? `${+ms.toPrecision(3)} ms` : ms < 60000 ? `${+(ms / 1000).toPrecision(4)} s`
    : `${Math.floor(ms / 60000)} min ${Math.round(ms % 60000 / 1000)} s`;
  const where = (at) => data.nodes[bars.node[at]].path
    .map((name, level) => bars.items[at][level] >= 0 ? `${name} (item ${bars.items[at][level]})` : name).join(" > ");
  // Every node a hue of its own, none of them red, which is for failures.
  const hue = (node) => 40 + (node * 179.2 + 175) % 290;
  const colour = (node) => dark.matches ? `hsl(${hue(node)} 55% 62%)` : `hsl(${hue(node)} 60% 55%)`;
  const look = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // --- drawing

  const toX = (ms) => room + (ms - left) / (right - left) * (wide - room);
  const toTime = (x) => left + (x - room) / (wide - room) * (right - left);

  function step() {
    const rough = (right - left) / Math.max(2, (wide - room) / 110), power = 10 ** Math.floor(Math.log10(rough));
    return [1, 2, 5, 10].map((times) => times * power).find((one) => one >= rough);
  }

  function draw() {
    const ratio = devicePixelRatio || 1;
    wide = scroller.clientWidth;
    const tall = AXIS + data.lanes.length * LANE + 4;
    room = Math.min(220, wide * 0.25);
    canvas.width = wide * ratio;
    canvas.height = tall * ratio;
    canvas.style.height = `${tall}px`;
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    pen.font = "11px system-ui, 'DejaVu Sans', sans-serif";
    pen.textBaseline = "middle";
    const soft = look("--soft"), line = look("--line"), lane = look("--lane"), text = look("--text");
    data.lanes.forEach((_, at) => {
      pen.fillStyle = lane;
      if (at % 2 === 0) pen.fillRect(0, AXIS + at * LANE, wide, LANE);
    });
    const gap = step();
    for (let tick = Math.ceil(left / gap) * gap; tick <= right; tick += gap) {
      const x = toX(tick);
      pen.fillStyle = line;
      pen.fillRect(x, AXIS - 6, 1, tall);
      pen.fillStyle = soft;
      if (x < wide - 50) pen.fillText(tick < gap / 2 ? "0" : time(tick), x + 3, 9);
    }
    const bad = look("--bad"), pick = look("--pick");
    pen.save();
    pen.beginPath();
    pen.rect(room, 0, wide - room, tall);
    pen.clip();
    const some = chosen.size > 0;
    byLane.forEach((list, at) => {
      const y = AXIS + at * LANE + PAD;
      const ends = new Map();   // where something is painted already, for each colour
      for (const bar of list) {
        if (bars.start[bar] > right) break;
        const end = bars.start[bar] + bars.took[bar];
        if (end < left) continue;
        const node = bars.node[bar], from = toX(bars.start[bar]), to = Math.max(toX(end), from + 1.5);
        const failed = data.statuses[bars.status[bar]] === "error";
        if (!failed && bar !== chosenBar && to <= (ends.get(node) ?? -1)) continue;
        ends.set(node, to);
        pen.globalAlpha = some && !chosen.has(node) ? 0.16 : 1;
        pen.fillStyle = colour(node);
        pen.fillRect(from, y, to - from - (to - from > 4 ? 0.75 : 0), LANE - 2 * PAD);
        if (failed) {
          pen.fillStyle = bad;
          pen.fillRect(from, y + LANE - 2 * PAD - 4, to - from, 4);
        }
        if (to - from > 46) {
          const name = data.nodes[node].path.at(-1);
          pen.fillStyle = dark.matches ? "#111" : "#fff";
          const start = Math.max(from, room);
          if (pen.measureText(name).width < to - start - 8) pen.fillText(name, start + 5, y + (LANE - 2 * PAD) / 2 + 0.5);
        }
        if (bar === chosenBar) {
          pen.strokeStyle = pick;
          pen.lineWidth = 2.5;
          pen.strokeRect(from - 1, y - 1, to - from + 2, LANE - 2 * PAD + 2);
        }
      }
    });
    pen.globalAlpha = 1;
    if (drag && drag.moved) {
      pen.fillStyle = pick;
      pen.globalAlpha = 0.2;
      pen.fillRect(Math.min(drag.from, drag.to), AXIS, Math.abs(drag.to - drag.from), tall);
    }
    pen.restore();
    names.forEach((name, at) => {
      pen.fillStyle = text;
      // The end tells workers apart, the beginning places: what is too long loses its middle.
      let shown = name, kept = name.length;
      while (kept > 6 && pen.measureText(shown).width > room - 12) {
        kept -= 1;
        shown = `${name.slice(0, Math.ceil(kept * 0.55))}…${name.slice(-Math.floor(kept * 0.45))}`;
      }
      pen.fillText(shown, 4, AXIS + at * LANE + LANE / 2);
    });
  }

  let waiting = false;
  function redraw() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; draw(); });
  }

  // --- finding

  function barAt(x, y) {
    const lane = Math.floor((y - AXIS) / LANE), list = byLane[lane];
    if (!list || x < room) return -1;
    const at = toTime(x), slack = (right - left) / (wide - room) * 2;
    let low = 0, high = list.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (bars.start[list[middle]] <= at + slack) low = middle + 1; else high = middle;
    }
    let best = -1, distance = Infinity;
    for (let spot = low - 1; spot >= 0; spot--) {
      const bar = list[spot], start = bars.start[bar], end = start + bars.took[bar];
      const off = at < start ? start - at : at > end ? at - end : 0;
      if (off <= slack && (off < distance || (off === distance && bars.took[bar] < bars.took[best]))) {
        best = bar;
        distance = off;
      }
      if (start + reach[lane][spot] < at - slack) break;
    }
    return best;
  }

  // --- choosing

  function describe(rows) {
    details.replaceChildren(...rows.flatMap(([name, value]) => {
      const term = document.createElement("dt"), said = document.createElement("dd");
      term.textContent = name;
      said.textContent = value;
      return [term, said];
    }));
    document.querySelector("#details .hint").hidden = rows.length > 0;
  }

  const sums = (node) => [
    ["calls", node.calls.toLocaleString("en")], ["total", node.total], ["median", node.median],
    ["longest", node.longest], ["cached", node.cached.toLocaleString("en")], ["failed", node.failed.toLocaleString("en")],
  ];

  function mark() {
    for (const row of document.querySelectorAll("tr[data-node]")) {
      row.classList.toggle("chosen", chosen.has(+row.dataset.node));
    }
    for (const box of document.querySelectorAll("svg .node")) {
      const held = data.boxes[box.dataset.id] || [];
      box.classList.toggle("chosen", held.some((node) => chosen.has(node)));
    }
    redraw();
  }

  function chooseNodes(nodes) {
    chosen = new Set(nodes);
    chosenBar = -1;
    if (nodes.length === 1) {
      const node = data.nodes[nodes[0]];
      describe([["node", node.path.join(" > ")], ...sums(node)]);
    } else {
      describe(nodes.length ? [["nodes", nodes.length.toLocaleString("en")]] : []);
    }
    mark();
  }

  function chooseBar(bar) {
    if (bar < 0) return chooseNodes([]);
    const lane = data.lanes[bars.lane[bar]], node = data.nodes[bars.node[bar]];
    chosen = new Set([bars.node[bar]]);
    chosenBar = bar;
    const error = data.errors[bars.error[bar]];
    describe([
      ["node", where(bar)], ["status", data.statuses[bars.status[bar]] + (error ? `: ${error}` : "")],
      ["took", time(bars.took[bar])], ["began at", time(bars.start[bar])],
      ["place", lane.place], ["worker", lane.worker || "-"],
      ["all calls", ""], ...sums(node),
    ]);
    mark();
    const box = document.querySelector("svg .node.chosen"), frame = document.querySelector(".canvas");
    if (box && frame) {
      const inner = box.getBoundingClientRect(), outer = frame.getBoundingClientRect();
      if (inner.top < outer.top || inner.bottom > outer.bottom) frame.scrollTop += inner.top - outer.top - outer.height / 2;
      if (inner.left < outer.left || inner.right > outer.right) frame.scrollLeft += inner.left - outer.left - outer.width / 2;
    }
  }

  // --- moving

  function show(from, to) {
    const length = Math.min(whole, Math.max(to - from, whole * 1e-7, 1e-5));
    left = Math.min(Math.max(0, from), whole - length);
    right = left + length;
    redraw();
  }
  function zoom(times, around = (left + right) / 2) {
    show(around - (around - left) * times, around + (right - around) * times);
  }

  const spot = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  canvas.addEventListener("pointerdown", (event) => {
    const [x, y] = spot(event);
    drag = { from: x, to: x, y, moved: false };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = spot(event);
    if (drag) {
      drag.to = Math.max(room, x);
      drag.moved ||= Math.abs(x - drag.from) > 5;
      tip.hidden = true;
      return redraw();
    }
    const bar = barAt(x, y);
    tip.hidden = bar < 0;
    if (bar < 0) return;
    const lane = data.lanes[bars.lane[bar]];
    tip.textContent = [where(bar), `${time(bars.took[bar])}, from ${time(bars.start[bar])}`,
      [lane.place, lane.worker].filter(Boolean).join(" · "), data.statuses[bars.status[bar]]].join("\n");
    tip.style.left = `${Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)}px`;
    tip.style.top = `${Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8)}px`;
  });
  canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
  canvas.addEventListener("pointerup", (event) => {
    const [x, y] = spot(event), was = drag;
    drag = null;
    if (was && was.moved) {
      const ends = [toTime(Math.max(room, was.from)), toTime(was.to)].sort((a, b) => a - b);
      return show(...ends);
    }
    chooseBar(barAt(x, y));
  });
  canvas.addEventListener("wheel", (event) => {
    if (event.ctrlKey || event.metaKey) {
      event.preventDefault();
      zoom(event.deltaY > 0 ? 1.25 : 0.8, toTime(spot(event)[0]));
    } else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      event.preventDefault();
      const by = (event.deltaX || event.deltaY) / wide * (right - left);
      show(left + by, right + by);
    }
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (by) {
      const list = chosenBar < 0 ? byLane[0] : byLane[bars.lane[chosenBar]];
      const at = chosenBar < 0 ? 0 : list.indexOf(chosenBar) + by;
      if (list && list[at] !== undefined) chooseBar(list[at]);
    } else if (event.key === "+") zoom(0.6);
    else if (event.key === "-") zoom(1 / 0.6);
    else if (event.key === "Escape") chooseNodes([]);
    else return;
    event.preventDefault();
  });
  document.getElementById("closer").addEventListener("click", () => zoom(0.5));
  document.getElementById("farther").addEventListener("click", () => zoom(2));
  document.getElementById("all").addEventListener("click", () => show(0, whole));

  for (const box of document.querySelectorAll("svg [data-id]")) {
    const held = data.boxes[box.dataset.id];
    if (held && held.length) box.addEventListener("click", () => chooseNodes(held));
  }
  for (const row of document.querySelectorAll("tr[data-node]")) {
    row.addEventListener("click", () => chooseNodes([+row.dataset.node]));
    row.addEventListener("keydown", (event) => { if (event.key === "Enter") chooseNodes([+row.dataset.node]); });
  }
  new ResizeObserver(redraw).observe(scroller);
  dark.addEventListener("change", redraw);
  draw();
})();
