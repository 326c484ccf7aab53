// Pictures by Observable Plot; each says in words what it shows, and a table holds its numbers.
import * as Plot from "@observablehq/plot";

const MOST = 12;

function picture(options, label) {
  const made = Plot.plot({ ...options, style: { background: "none", overflow: "visible" } });
  // Plot writes a style sheet into its picture, which the page does not allow itself; page.css has it.
  made.querySelectorAll("style").forEach((x) => x.remove());
  made.setAttribute("role", "img");
  made.setAttribute("aria-label", label);
  made.classList.add("picture");
  return made;
}

const cut = (text, wide) => (text.length > wide ? `${text.slice(0, wide - 1)}…` : text);

// One waterfall an advertiser: rows are [words, amount, kind]; the last is what is left.
export function waterfall(names, steps, wide, say) {
  const most = Math.min(names.length, MOST);
  const size = (rows) => Math.max(...rows.map((x) => Math.abs(x.amount ?? 0)));
  const order = names.map((_, i) => i).sort((a, b) => size(steps[b]) - size(steps[a]) || a - b);
  const kept = order.slice(0, most).sort((a, b) => a - b);
  const rows = kept.flatMap((i) => {
    let at = 0;
    return steps[i].map(({ words, amount, kind }, k) => {
      const last = k === steps[i].length - 1;
      const start = last ? 0 : at;
      at = start + (amount ?? 0);
      return { name: names[i], words, kind, start, end: at, amount };
    });
  });
  const words = steps[0].map((x) => x.words);
  const room = 96;
  const low = Math.min(0, ...rows.map((x) => Math.min(x.start, x.end)));
  const high = Math.max(0, ...rows.map((x) => Math.max(x.start, x.end)));
  const made = picture(
    {
      width: wide,
      height: 40 + kept.length * (22 * words.length + 26),
      marginLeft: room,
      marginRight: 64,
      marginTop: 26,
      x: { axis: null, domain: [low, high === low ? low + 1 : high] },
      y: { domain: words, label: null, tickSize: 0, padding: 0.25, tickFormat: (x) => x },
      fy: { domain: kept.map((i) => names[i]), label: null, axis: null, padding: 0.2 },
      marks: [
        Plot.ruleX([0], { stroke: "currentColor", strokeOpacity: 0.4 }),
        Plot.barX(rows, { fy: "name", y: "words", x1: "start", x2: "end", fill: (x) => `var(--${x.kind})` }),
        Plot.text(rows, {
          fy: "name", y: "words", x: (x) => Math.max(x.start, x.end), dx: 5, textAnchor: "start",
          text: (x) => say(x.amount), fill: "currentColor",
        }),
        Plot.text(kept.map((i) => names[i]), {
          fy: (x) => x, frameAnchor: "top-left", dx: -room + 4, dy: -14, text: (x) => cut(x, 60),
          fontWeight: "bold", fill: "currentColor", textAnchor: "start",
        }),
      ],
    },
    `Waterfall of ${words.join(", ")} for ${kept.map((i) => names[i]).join(", ")}; the table has the numbers`,
  );
  return [made, names.length - most];
}

// Mean utility of each product, at first and now.
export function opinions(data, here, wide) {
  const rows = data.names.map((name, i) => ({ name, before: data.before[i], now: here.utility[i] }));
  const kept = [...rows].sort((a, b) => b.now - a.now).slice(0, MOST);
  return picture(
    {
      width: wide,
      height: 50 + 24 * kept.length,
      marginLeft: wide < 480 ? 100 : 190,
      x: { label: wide < 480 ? data.unit : `expected utility, ${data.unit}`, grid: true, nice: true },
      y: { domain: kept.map((x) => x.name), label: null, tickSize: 0, tickFormat: (x) => cut(x, wide < 480 ? 14 : 30) },
      marks: [
        Plot.ruleX([0], { stroke: "currentColor", strokeOpacity: 0.4 }),
        Plot.link(kept, { y1: "name", y2: "name", x1: "before", x2: "now", stroke: "var(--value)", strokeOpacity: 0.5 }),
        Plot.dot(kept, { y: "name", x: "before", stroke: "currentColor", fill: "var(--paper)", r: 4 }),
        Plot.dot(kept, { y: "name", x: "now", fill: "var(--value)", r: 5 }),
      ],
    },
    "Expected utility of each product, hollow at first and full now; the table has the numbers",
  );
}

// Weights of the tastes by what the product shown is worth to each.
export function belief(data, here, name, product, wide) {
  const rows = data.prior.map((before, k) => ({ before, now: here.belief[k], at: data.utilities[product][k] }));
  return picture(
    {
      width: wide,
      height: 190,
      marginLeft: 46,
      x: { label: wide < 480 ? data.unit : `what ${cut(name, 40)} is worth to her, ${data.unit}`, nice: true },
      y: { label: "weight [%]", percent: true, grid: true, nice: true },
      marks: [
        Plot.ruleX(rows, { x: "at", y: "before", stroke: "currentColor", strokeOpacity: 0.35, strokeWidth: 5 }),
        Plot.ruleX(rows, { x: "at", y: "now", stroke: "var(--value)", strokeWidth: 2 }),
        Plot.dot(rows, { x: "at", y: "now", fill: "var(--value)", r: 2.5 }),
        Plot.ruleY([0]),
      ],
    },
    `Belief about what ${name} is worth to her: ${rows.length} tastes, grey at first and coloured now`,
  );
}
