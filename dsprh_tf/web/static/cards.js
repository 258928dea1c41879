// Cards of results, and what they share with the larger view.
import { drawBits } from "./bits.js";

const TAGS = 3; // of an item that are shown at first

export function element(name, properties = {}, ...children) {
  const { dataset, ...rest } = properties;
  const made = Object.assign(document.createElement(name), rest);
  Object.assign(made.dataset, dataset);
  made.append(...children);
  return made;
}

export const name = (item) =>
  item.path ? item.path.split("/").at(-1) : item.text ? shortened(item.text, 60) : `item ${item.id}`;

export const shortened = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

// For who cannot see a picture: its caption, else its tags, else its name.
const alternative = (item) => item.caption || item.tags.join(", ") || name(item);

export function content(item, size) {
  if (!item.modality) return gone(name(item)); // only its id is known
  if (item.modality === "text") return element("span", { className: "quote", textContent: item.text });
  if (item.gone) return gone("No longer on disk", item);
  const picture = element("img", {
    src: `/api/picture/${item.id}/${size}`,
    alt: alternative(item),
    className: "picture",
    loading: size === "small" ? "lazy" : "eager",
    decoding: "async",
  });
  picture.addEventListener("error", () => picture.replaceWith(gone("Cannot be shown", item)));
  return picture;
}

function gone(line, item = null) {
  const box = element("span", { className: "gone" }, element("span", { textContent: line }));
  if (item) box.append(element("span", { className: "unseen", textContent: alternative(item) }));
  return box;
}

const similarity = (item) => item.similarity.toFixed(2);

export function differing(item, bits) {
  if (item.distance === null) return "";
  return `similarity ${similarity(item)}, ${item.distance} of ${bits} bits differ`;
}

export function tagList(tags, most = TAGS) {
  const buttons = tags.map((tag) =>
    element("button", { type: "button", textContent: tag, title: `Only items tagged ${tag}`, dataset: { tag } }),
  );
  const list = element("div", { className: "tags" }, ...buttons.slice(0, most));
  const rest = buttons.slice(most);
  if (rest.length) {
    const label = `${rest.length} more tags`;
    const more = element("button", { type: "button", textContent: `+${rest.length}`, ariaLabel: label });
    more.addEventListener("click", () => {
      more.replaceWith(...rest);
      rest[0].focus();
    });
    list.append(more);
  }
  return list;
}

// A mark for a file that lies in several places, once among the results.
function places(paths) {
  const said = `in ${paths.length} places`;
  return element(
    "span",
    { className: "places", title: `${said}:\n${paths.join("\n")}` },
    element("span", { textContent: `×${paths.length}`, ariaHidden: "true" }),
    element("span", { className: "unseen", textContent: `, ${said}` }),
  );
}

// A card: the larger view behind the picture, a box to select it, links to more like it and to less.
export function card(item, { code, bits, like, less, picked }) {
  const shot = element("button", { type: "button", className: "shot" }, content(item, "small"));
  if (item.distance !== null) {
    const { distance } = item;
    shot.append(
      element("span", {
        className: "distance",
        textContent: similarity(item),
        title: `From 0 to 1: ${differing(item, bits)}`,
        ariaHidden: "true",
        dataset: { distance },
      }),
      element("span", { className: "unseen", textContent: `, ${differing(item, bits)}` }),
    );
  }
  if (item.paths) shot.append(places(item.paths));
  const box = element("input", {
    type: "checkbox",
    checked: picked,
    ariaLabel: `Select ${name(item)}`,
  });
  const similar = element("a", {
    href: like,
    className: "like",
    textContent: "Similar",
    title: "More like this",
    ariaLabel: `Similar to ${name(item)}`,
  });
  const links = [similar];
  if (less) {
    links.unshift(element("a", {
      href: less,
      className: "not",
      textContent: "Not this",
      title: "The same without what is like this",
      ariaLabel: `Not like ${name(item)}`,
    }));
  }
  const below = element(
    "div",
    { className: "below" },
    drawBits(item.code, code),
    element(
      "div",
      { className: "line" },
      element("p", { className: "name", textContent: item.path ? name(item) : "", title: (item.paths ?? [item.path ?? ""]).join("\n") }),
      ...links,
    ),
  );
  if (item.tags.length) below.append(tagList(item.tags));
  const made = element(
    "li",
    { className: `card ${item.modality}`, dataset: { id: item.id } },
    shot,
    element("label", { className: "pick" }, box),
    below,
  );
  made.classList.toggle("picked", picked);
  return made;
}
