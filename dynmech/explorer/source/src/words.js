// What numbers and events are called on the page.
export function wording(data) {
  const n = data.names.length;
  const number = (x) => {
    if (x === null || Number.isNaN(x)) return "?";
    const settled = Math.abs(x) < 5e-10 ? 0 : x;
    const size = Math.abs(settled);
    if (size !== 0 && (size >= 1e6 || size < 1e-4)) return settled.toExponential(3);
    return String(Number(settled.toPrecision(4)));
  };
  const product = (shown) =>
    [shown].flat().filter((j) => j >= 0).map((j) => data.names[j]).join(" | ") || "nothing";
  return {
    number,
    product,
    money: (x) => `${number(x)} ${data.unit}`,
    percent: (x) => `${(100 * x).toFixed(1)}%`,
    answer([symbols, , , moved]) {
      const said = data.spoken > 1 ? `answers ${symbols[0] + 1} of ${data.spoken}` : "";
      const others = symbols.slice(1);
      const heard = others.some((x) => x > 0) ? `advertisers hear ${others.map((x) => x + 1).join(", ")}` : "";
      const values = moved ? `values become ${moved.map(number).join(", ")}` : "";
      return ["She asks again", said, heard, values].filter(Boolean).join(", ");
    },
    ending(code) {
      if (code < n) return `She buys ${data.names[code]}`;
      return code === n ? "She leaves" : "She asks once more, and it ends";
    },
    told({ who, theta, signals }) {
      if (who < 0) return "What everybody holds, the truth";
      const signal = data.signals[who] > 1 ? `, signal ${signals[who + 1] + 1} of ${data.signals[who]}` : "";
      return `What if ${data.names[who]} reports ${number(theta[who])}${signal}`;
    },
  };
}
