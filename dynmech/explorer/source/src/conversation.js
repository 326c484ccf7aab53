// A conversation, played. Everything shown is in the data; the sums made here are transfers:
// a constant, plus a slope times the rating, plus the Groves total.
import { add, folded, table } from "./parts.js";
import { belief, opinions, waterfall } from "./pictures.js";

export function transfers(end, totals, rating) {
  if (end[2] === null) return null;
  return end[2].map((x, i) => (totals[i] === null ? null : x + end[3][i] * rating + totals[i]));
}

export function play(root, data, say, { width, address }) {
  const find = (name) => root.querySelector(`[data-part="${name}"]`);
  const [past, now, choices, pictures, bill, select] = ["past", "now", "choices", "pictures", "bill", "report"].map(find);
  const state = { report: 0, path: [], end: -1, rating: 0 };
  const report = () => data.reports[state.report];
  const follow = (path) => path.reduce((at, step) => report().nodes[at.answers[step][2]], report().nodes[0]);
  const middle = (code) => (data.ratings[code] ? (data.ratings[code][0] + data.ratings[code][1]) / 2 : 0);

  function go(path, end, rating) {
    Object.assign(state, { path, end });
    if (end >= 0) state.rating = rating ?? middle(follow(path).ends[end][0]);
    remember();
    draw();
    (choices.querySelector("button:not(:disabled)") ?? find("back")).focus({ preventScroll: true });
  }

  function remember() {
    const end = state.end < 0 ? "" : `!${state.end}@${state.rating}`;
    address?.write(`#play=${[state.report, ...state.path].join(".")}${end}`);
  }

  function recall() {
    const found = /^#play=([\d.]+)(?:!(\d+)(?:@(-?[\d.e+-]+))?)?$/.exec(address?.read() ?? "");
    if (!found) return;
    const [told, ...path] = found[1].split(".").map(Number);
    const before = { ...state };
    try {
      state.report = told;
      const here = follow(path);
      const end = found[2] === undefined ? -1 : Number(found[2]);
      const rating = found[3] === undefined ? NaN : Number(found[3]);
      if (end >= here.ends.length) throw new RangeError();
      const code = end < 0 ? -1 : here.ends[end][0];
      const range = data.ratings[code] ?? [0, 0];
      const known = rating >= range[0] && rating <= range[1];
      Object.assign(state, { path, end, rating: known ? rating : middle(code) });
    } catch {
      Object.assign(state, before); // an address that leads nowhere changes nothing
    }
  }

  function choice(words, chance, click, disabled) {
    const made = add(choices, "button", `${words} (${say.percent(chance)})`, { type: "button", disabled });
    made.addEventListener("click", click);
  }

  function draw() {
    const here = follow(state.path);
    [past, now, choices, pictures, bill].forEach((x) => x.replaceChildren());
    select.value = state.report;
    state.path.forEach((step, k) => {
      const before = follow(state.path.slice(0, k));
      add(past, "li", `${say.product(before.shown)} is shown. ${say.answer(before.answers[step])}.`);
    });
    if (state.end >= 0) {
      add(past, "li", `${say.product(here.shown)} is shown. ${say.ending(here.ends[state.end][0])}.`);
      settle(here);
    } else {
      offer(here);
    }
    find("back").disabled = state.end < 0 && state.path.length === 0;
    find("again").disabled = find("back").disabled && state.report === 0;
    cover();
  }

  function offer(here) {
    const rival = here.second === null ? "No runner-up was looked into." : `${say.product(here.second)}, ${say.money(here.lead)} worse.`;
    const facts = [
      ["Round", data.horizon === null ? String(here.round) : `${here.round} of at most ${data.horizon}`],
      ["Recommended", say.product(here.shown)],
      ["Expected from here on", say.money(here.value)],
      ["Runner-up", rival],
      ["Learning is worth", say.money(here.learning)],
    ];
    const list = add(now, "dl");
    facts.forEach(([name, text]) => {
      add(list, "dt", name);
      add(list, "dd", text);
    });
    here.answers.forEach((x, k) => choice(say.answer(x), x[1], () => go([...state.path, k], -1), x[2] < 0));
    here.ends.forEach(([code, chance], k) => choice(say.ending(code), chance, () => go(state.path, k)));
    if (here.answers.some((x) => x[2] < 0)) {
      add(choices, "p", "What cannot be pressed leads to points that are not on this page.");
    }
    const wide = width();
    const shown = [here.shown].flat().find((j) => j >= 0) ?? [here.second ?? 0].flat().find((j) => j >= 0) ?? 0;
    add(pictures, "h3", "What is believed");
    pictures.append(opinions(data, here, wide), belief(data, here, data.names[shown], shown, wide));
    const whole = data.prior.length === data.tastes ? "" : `; ${data.prior.length} of ${data.tastes} tastes are drawn, those that weigh most`;
    add(pictures, "p", `Above, expected utility of the products; below, the weights of tastes by what ${data.names[shown]} is worth to her. Hollow or grey: at first. Coloured: now${whole}.`);
    const rows = data.names.map((x, i) => [x, say.number(data.before[i]), say.number(here.utility[i]), say.number(here.theta[i])]);
    table(folded(pictures, "The same in numbers"), ["product", "utility at first", "utility now", "value reported"], rows, `Expected utilities and values, ${data.unit}`);
  }

  function settle(here) {
    const end = here.ends[state.end];
    const range = data.ratings[end[0]];
    add(bill, "h3", "What everybody pays");
    if (range && end[2] !== null) {
      const label = add(bill, "label", "Her rating afterwards ");
      const slider = add(label, "input", undefined, { type: "range", min: range[0], max: range[1], step: (range[1] - range[0]) / 200, value: state.rating });
      const said = add(label, "output", ` ${say.money(state.rating)}`);
      slider.addEventListener("input", () => {
        state.rating = Number(slider.value);
        said.textContent = ` ${say.money(state.rating)}`;
        remember();
        rows();
      });
    }
    const place = add(bill, "div");
    function rows() {
      place.replaceChildren();
      const paid = transfers(end, report().totals, state.rating);
      if (paid === null) {
        add(place, "p", "Transfers of this ending cannot be told from a rating alone.");
        return;
      }
      const earned = data.names.map((_, i) => (end[0] === i ? here.theta[i] : 0));
      const steps = data.names.map((_, i) => {
        const rest = [
          { words: "earns", amount: earned[i], kind: "value" },
          { words: "team transfer", amount: -(end[2][i] + end[3][i] * state.rating), kind: "pay" },
          { words: "Groves term", amount: report().totals[i] === null ? null : -report().totals[i], kind: "charge" },
        ];
        const left = paid[i] === null ? null : earned[i] - paid[i];
        return [...rest, { words: "keeps", amount: left, kind: "keep" }];
      });
      const [drawn, more] = waterfall(data.names, steps, width(), say.number);
      place.append(drawn);
      if (more > 0) add(place, "p", `${more} more in the table.`);
      const head = ["advertiser", "earns", "team transfer", "Groves term", "pays in all", "keeps"];
      const lines = data.names.map((x, i) => [x, ...steps[i].slice(0, 3).map((s) => say.number(s.amount)), say.number(paid[i]), say.number(steps[i][3].amount)]);
      table(place, head, lines, `Money of this conversation, ${data.unit}; values as reported`);
      if (paid.includes(null)) add(place, "p", "Where a report was not solved, the Groves terms of the others are not known (?).");
      if (data.decoded) add(place, "p", "The Groves term is the expected one: what is charged is decoded from the signal after the ending.");
    }
    rows();
  }

  function cover() {
    const { covered, nodes } = report();
    const part = covered > 1 - 1e-9 ? "every conversation" : `all but ${say.percent(1 - covered)} of the conversations`;
    const left = data.left > 0 ? ` ${data.left} other reports did not fit.` : "";
    find("covered").textContent = `${nodes.length} points of this report are on the page: ${part} that can follow.${left}`;
  }

  const groups = new Map();
  data.reports.forEach((x, k) => {
    const parent = x.who < 0 ? select : groups.get(x.who) ?? add(select, "optgroup", undefined, { label: data.names[x.who] });
    if (x.who >= 0) groups.set(x.who, parent);
    add(parent, "option", say.told(x), { value: k });
  });
  select.addEventListener("change", () => {
    state.report = Number(select.value);
    Object.assign(state, { path: [], end: -1 });
    remember();
    draw();
  });
  find("back").addEventListener("click", () => go(state.end < 0 ? state.path.slice(0, -1) : state.path, -1));
  find("again").addEventListener("click", () => {
    state.report = 0;
    go([], -1);
  });
  find("play").addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || /^(INPUT|SELECT)$/.test(event.target.tagName)) return;
    const button = /^[1-9]$/.test(event.key)
      ? choices.querySelectorAll("button")[Number(event.key) - 1]
      : { ArrowLeft: find("back"), r: find("again") }[event.key];
    if (!button || button.disabled) return;
    event.preventDefault();
    button.click();
  });
  address?.changed(() => {
    recall();
    draw();
  });
  recall();
  draw();
  return draw;
}
