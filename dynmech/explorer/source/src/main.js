// One source for the page that dm.report writes and for the widget in a notebook.
import { debounce } from "./debounce.js";
import { add } from "./parts.js";
import { waterfall } from "./pictures.js";
import { play } from "./conversation.js";
import { wording } from "./words.js";

export function mount(root, data, address) {
  const say = wording(data);
  const width = () => Math.max(280, Math.min(720, root.clientWidth || 640));
  const place = root.querySelector('[data-part="waterfall"]');

  function payments() {
    place.replaceChildren();
    const [drawn, more] = waterfall(data.names, data.payments, width(), say.number);
    place.append(drawn);
    if (more > 0) add(place, "p", `The ${data.names.length - more} with the largest amounts; ${more} more in the table.`);
  }

  payments();
  const draw = play(root, data, say, { width, address });
  let wide = width();
  const watch = new ResizeObserver(
    debounce(() => {
      if (width() === wide) return;
      wide = width();
      payments();
      draw();
    }),
  );
  watch.observe(root);
  return () => watch.disconnect();
}

function render({ model, el }) {
  el.innerHTML = model.get("body");
  return mount(el.querySelector(".dynmech-report"), model.get("data"));
}

const page = document.getElementById("dynmech-data");
if (page) {
  mount(document.querySelector(".dynmech-report"), JSON.parse(page.textContent), {
    read: () => window.location.hash,
    write: (hash) => window.history.replaceState(null, "", hash),
    changed: (then) => window.addEventListener("hashchange", then),
  });
}

export default { render };
