// What a query is made of beside words or a picture alone: words that are added, items not wanted.
import { element, name } from "./cards.js";

// A field for words that are searched for together with a picture.
export function wordsToAdd(text, changed) {
  const field = element("input", {
    type: "search",
    value: text,
    maxLength: 1000,
    autocomplete: "off",
    enterKeyHint: "search",
    placeholder: "Add words, as “at night”",
    ariaLabel: "Words to add to the picture",
  });
  const form = element("form", { className: "add" }, field,
    element("button", { type: "submit", textContent: text ? "Change" : "Add" }));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    changed(field.value.trim());
  });
  return form;
}

export function lessList(items, without) {
  const links = items.map((item) =>
    element("li", {}, element(
      "a",
      { href: without(item.id), ariaLabel: `Remove: not like ${name(item)}` },
      element("small", { textContent: "not like" }),
      ` ${name(item)} `,
      element("span", { textContent: "×", ariaHidden: "true" }),
    )),
  );
  return element("ul", { className: "less", ariaLabel: "Items that it moves away from" }, ...links);
}
