// Elements, made without text that is taken for markup.
export function add(parent, tag, text, properties = {}) {
  const made = parent.ownerDocument.createElement(tag);
  if (text !== undefined) made.textContent = text;
  Object.assign(made, properties);
  parent.append(made);
  return made;
}

export function table(parent, head, rows, caption) {
  const made = add(parent, "table");
  add(made, "caption", caption);
  const top = add(add(made, "thead"), "tr");
  head.forEach((x) => add(top, "th", x, { scope: "col" }));
  const body = add(made, "tbody");
  rows.forEach(([first, ...rest]) => {
    const line = add(body, "tr");
    add(line, "th", first, { scope: "row" });
    rest.forEach((x) => add(line, "td", x));
  });
  return made;
}

export function folded(parent, summary) {
  const made = add(parent, "details");
  add(made, "summary", summary);
  return made;
}
