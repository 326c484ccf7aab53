"use strict";
// Everything shown is in the data; the one sum made here is a transfer: constant + slope * rating.
function bill(end, rating) {
  return end[2] === null ? null : end[2].map((x, i) => x + end[3][i] * rating);
}

function follow(nodes, path) {
  let at = 0;
  for (const step of path) at = nodes[at].answers[step][2];
  return nodes[at];
}

function start(document, window) {
  const data = JSON.parse(document.getElementById("data").textContent);
  const n = data.names.length;
  const number = (x) => (Math.abs(x) < 5e-10 ? 0 : x).toPrecision(4).replace(/\.?0+$/, "");
  const money = (x) => `${number(x)} ${data.unit}`;
  const percent = (x) => `${(100 * x).toFixed(1)}%`;
  const product = (r) => [r].flat().filter((j) => j >= 0).map((j) => data.names[j]).join(" | ") || "nothing";
  const element = (id) => document.getElementById(id);
  const state = { report: 0, path: [], end: -1, rating: 0 };

  function add(parent, tag, text) {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    parent.append(made);
    return made;
  }

  function answer(symbols) {
    const own = `answers ${symbols[0] + 1} of ${data.spoken}`;
    const others = symbols.slice(1).some((x) => x > 0) ? `, advertisers hear ${symbols.slice(1).join(", ")}` : "";
    return own + others;
  }

  function told(report) {
    if (report.who < 0) return "what everybody holds, the truth";
    const i = report.who;
    return `what if ${data.names[i]} reports value ${number(report.theta[i])}, signal ${report.signals[i + 1]}`;
  }

  function ending(code) {
    return code < n ? `buys ${data.names[code]}` : code === n ? "leaves" : "asks once more, and it ends";
  }

  function go(path, end) {
    state.path = path;
    state.end = end;
    window.history.replaceState(null, "", `#play=${[state.report, ...path].join(".")}${end < 0 ? "" : `!${end}`}`);
    draw();
  }

  function table(parent, head, rows) {
    const made = add(parent, "table");
    const top = add(add(made, "thead"), "tr");
    head.forEach((x) => (add(top, "th", x).scope = "col"));
    const body = add(made, "tbody");
    rows.forEach((row) => {
      const line = add(body, "tr");
      row.forEach((x) => add(line, "td", x));
    });
  }

  function draw() {
    const report = data.reports[state.report];
    const here = follow(report.nodes, state.path);
    const [past, now, choices, paid] = ["past", "now", "choices", "bill"].map(element);
    [past, now, choices, paid].forEach((x) => x.replaceChildren());
    state.path.forEach((step, k) => {
      const before = follow(report.nodes, state.path.slice(0, k));
      add(past, "li", `${product(before.shown)} is shown; she asks again and ${answer(before.answers[step][0])}`);
    });
    const over = state.end >= 0;
    if (over) add(past, "li", `${product(here.shown)} is shown; she ${ending(here.ends[state.end][0])}`);
    if (!over) {
      add(now, "p", `Round ${here.round}: ${product(here.shown)} is shown. From here on ${money(here.value)} are expected.`);
      if (here.second !== null) add(now, "p", `The runner-up, ${product(here.second)}, would be ${money(here.lead)} worse.`);
      table(now, ["product", `expected utility, ${data.unit}`], data.names.map((x, i) => [x, number(here.utility[i])]));
      here.answers.forEach(([symbols, chance, child], k) => {
        const made = add(choices, "button", `She asks again, ${answer(symbols)} (${percent(chance)})`);
        made.type = "button";
        made.disabled = child < 0;
        made.addEventListener("click", () => go([...state.path, k], -1));
      });
      here.ends.forEach(([code, chance], k) => {
        const made = add(choices, "button", `She ${ending(code)} (${percent(chance)})`);
        made.type = "button";
        made.addEventListener("click", () => {
          const range = data.ratings[code];
          state.rating = range ? (range[0] + range[1]) / 2 : 0;
          go(state.path, k);
        });
      });
      if (here.answers.some((x) => x[2] < 0)) add(choices, "p", "Points beyond are not on this page.");
    } else {
      draw_bill(paid, here.ends[state.end]);
    }
    element("back").disabled = !over && state.path.length === 0;
  }

  function draw_bill(paid, end) {
    const range = data.ratings[end[0]];
    if (range && end[2] !== null) {
      const label = add(paid, "label", "Her rating afterwards, ");
      label.htmlFor = "rating";
      const slider = add(paid, "input");
      Object.assign(slider, { id: "rating", type: "range", min: range[0], max: range[1], step: (range[1] - range[0]) / 200, value: state.rating });
      add(paid, "span", money(state.rating)).id = "said";
      slider.addEventListener("input", () => {
        state.rating = Number(slider.value);
        element("said").textContent = money(state.rating);
        rows();
      });
    }
    const place = add(paid, "div");
    function rows() {
      place.replaceChildren();
      const transfers = bill(end, state.rating);
      if (transfers === null) add(place, "p", "Transfers of this ending are not known on this page.");
      else table(place, ["advertiser", `pays in all, ${data.unit}`], data.names.map((x, i) => [x, number(transfers[i])]));
    }
    rows();
  }

  function read() {
    const found = /^#play=([\d.]+)(?:!(\d+))?$/.exec(window.location.hash);
    if (!found) return;
    const [report, ...path] = found[1].split(".").map(Number);
    try {
      const here = follow(data.reports[report].nodes, path);
      const end = found[2] === undefined ? -1 : Number(found[2]);
      if (end >= here.ends.length) return;
      Object.assign(state, { report, path, end });
      const range = end < 0 ? undefined : data.ratings[here.ends[end][0]];
      state.rating = range ? (range[0] + range[1]) / 2 : 0;
    } catch {
      // an address that leads nowhere shows the beginning
    }
  }

  const select = element("report");
  data.reports.forEach((report, k) => (add(select, "option", told(report)).value = k));
  if (!data.whole) add(element("play"), "p", "Not every report fits on this page.");
  select.addEventListener("change", () => {
    state.report = Number(select.value);
    go([], -1);
  });
  element("back").addEventListener("click", () => go(state.end < 0 ? state.path.slice(0, -1) : state.path, -1));
  element("again").addEventListener("click", () => go([], -1));
  window.addEventListener("hashchange", () => { read(); select.value = state.report; draw(); });
  read();
  select.value = state.report;
  draw();
}

if (typeof module !== "undefined") module.exports = { bill, follow, start };
else start(document, window);
