// The larger view of a result, above the page: left and right go on, Escape closes.
import { content, differing, name, tagList } from "./cards.js";
import { isPicked, pick } from "./picks.js";

const $ = (id) => document.getElementById(id);
const view = $("view");
let source = null; // {items(), total(), bits(), like(item), less(item), more(), closed(place)}
let at = 0;
let busy = false;

const item = () => source.items()[at];

export function openView(place) {
  at = place;
  draw();
  view.showModal();
  $("view-close").focus();
}

export const closeView = () => view.open && view.close();

function draw() {
  const shown = item();
  const picture = shown.modality === "image";
  const [total, length] = [source.total(), source.items().length];
  $("view-content").replaceChildren(content(shown, "large"));
  $("view-name").textContent = name(shown);
  const place = `${(at + 1).toLocaleString("en")} of ${total.toLocaleString("en")}`;
  $("view-place").textContent = [place, differing(shown, source.bits())].filter(Boolean).join(" · ");
  $("view-path").textContent = (shown.paths ?? [shown.path ?? ""]).join("\n");
  $("view-tags").replaceChildren(...(shown.tags.length ? [tagList(shown.tags, 12)] : []));
  $("view-like").href = source.like(shown);
  const less = source.less(shown);
  $("view-less").hidden = !less;
  $("view-less").href = less || "/";
  for (const [id, what] of [["view-open", "file"], ["view-download", "download"]]) {
    $(id).href = `/api/picture/${shown.id}/${what}`;
    $(id).hidden = !picture || shown.gone;
  }
  $("view-copy").hidden = !shown.path;
  $("view-pick").checked = isPicked(shown.id);
  $("view-said").textContent = "";
  // Not disabled, which would lose the focus.
  $("view-before").ariaDisabled = String(at === 0);
  $("view-after").ariaDisabled = String(at + 1 >= length && length >= total);
  for (const near of [at - 1, at + 1].map((i) => source.items()[i])) {
    if (near?.modality === "image" && !near.gone) new Image().src = `/api/picture/${near.id}/large`;
  }
}

async function step(by) {
  if (busy) return;
  if (at + by >= source.items().length && source.items().length < source.total()) {
    busy = true;
    try {
      await source.more();
    } finally {
      busy = false;
    }
  }
  if (!view.open || at + by < 0 || at + by >= source.items().length) return;
  at += by;
  draw();
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Browsers have the clipboard only on this machine and over HTTPS.
    const field = Object.assign(document.createElement("textarea"), { value: text, className: "unseen" });
    view.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    $("view-copy").focus();
    if (!done) return "Cannot be copied here: select the path and copy it";
  }
  return "Path copied";
}

// The first and the last place that Tab reaches.
function keepFocus(event) {
  const places = [...view.querySelectorAll("a[href], button, input")].filter((e) => e.checkVisibility());
  const [from, to] = event.shiftKey ? [places[0], places.at(-1)] : [places.at(-1), places[0]];
  if (document.activeElement !== from && view.contains(document.activeElement)) return;
  event.preventDefault();
  to.focus();
}

export function startView(from) {
  source = from;
  $("view-before").addEventListener("click", () => step(-1));
  $("view-after").addEventListener("click", () => step(1));
  $("view-close").addEventListener("click", closeView);
  $("view-copy").addEventListener("click", async () => {
    $("view-said").textContent = await copy(item().path);
  });
  $("view-pick").addEventListener("change", (event) => {
    event.target.checked = pick(item(), event.target.checked);
  });
  view.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    else if (event.key === "ArrowRight") step(1);
    else if (event.key === "Tab") keepFocus(event);
    else return;
    if (event.key !== "Tab") event.preventDefault();
  });
  view.addEventListener("click", (event) => {
    if (event.target === view) closeView(); // beside it
  });
  view.addEventListener("close", () => {
    $("view-content").replaceChildren();
    source.closed(at);
  });
}
