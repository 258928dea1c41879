// Filters by tags: all=, any= and none= of the address, each as often as it is needed.
import { element } from "./cards.js";
import { request } from "./server.js";

const HOW = ["all", "any", "none"];
const SAID = { all: "with", any: "any of", none: "without" };
const PAUSE = 100; // ms of typing
const $ = (id) => document.getElementById(id);

// Old addresses have one tag=.
export function tagsOf(parameters) {
  const found = { all: [], any: [], none: [] };
  if (parameters.get("tag")) found.all.push(parameters.get("tag"));
  for (const how of HOW) found[how].push(...parameters.getAll(how).filter(Boolean));
  return found;
}

// Parameters with one tag more; without it, wherever it was, if `how` is null.
export function withTag(parameters, tag, how) {
  const tags = tagsOf(parameters);
  const changed = new URLSearchParams(parameters);
  changed.delete("tag");
  for (const each of HOW) {
    changed.delete(each);
    const others = tags[each].filter((other) => other.toLowerCase() !== tag.toLowerCase());
    for (const other of each === how ? [...others, tag] : others) changed.append(each, other);
  }
  return changed;
}

export function showTags(parameters) {
  const tags = tagsOf(parameters);
  const chips = HOW.flatMap((how) =>
    tags[how].map((tag) =>
      element("li", {}, element(
        "button",
        { type: "button", className: how, ariaLabel: `Remove the filter: ${SAID[how]} ${tag}`, dataset: { untag: tag } },
        element("small", { textContent: SAID[how] }),
        ` ${tag} `,
        element("span", { textContent: "×", ariaHidden: "true" }),
      )),
    ),
  );
  $("chips").replaceChildren(...chips);
  $("chips").hidden = !chips.length;
}

function offer(tags) {
  $("tags").replaceChildren(
    ...tags.map(({ tag, count }) => element("option", { value: tag, label: `${tag} (${count})` })),
  );
}

export function startTags(about, changed) {
  offer(about.tags);
  $("tagging").hidden = about.listed && !about.tags.length;
  let timer = 0;
  let asking = 0;
  $("tag").addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      const mine = ++asking;
      const part = encodeURIComponent($("tag").value.trim());
      const found = await request(`/api/tags?part=${part}`).catch(() => null); // only an aid
      if (found && mine === asking) offer(found.tags);
    }, PAUSE);
  });
  $("tag").addEventListener("change", () => {
    const tag = $("tag").value.trim();
    if (!tag) return;
    $("tag").value = "";
    changed(tag, $("how").value);
  });
}
