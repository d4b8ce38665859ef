// Making elements. Texts become text nodes, never markup: nothing that a document holds is run.

export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key === "class") made.className = value;
    else if (key === "share") made.style.setProperty("--share", value); // the page allows no style in its markup
    else if (key in made && key !== "dir" && key !== "list") made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

export const find = (id) => document.getElementById(id);

// The parts of a text with the found ones marked. Spans count characters as Python does, not JavaScript's UTF-16 units.
export function marked(text, spans) {
  const characters = Array.from(text);
  const parts = [];
  let last = 0;
  for (const { start, end } of spans) {
    parts.push(characters.slice(last, start).join(""), element("mark", {}, characters.slice(start, end).join("")));
    last = end;
  }
  return [...parts, characters.slice(last).join("")];
}

export const number = (value, digits = 2) =>
  value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
export const count = (value) => value.toLocaleString("en");
