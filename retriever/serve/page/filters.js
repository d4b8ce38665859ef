// The filters that an index offers: boxes for fields of few values, with counts, and ranges for the others.

import { facets } from "./api.js";
import { count, element, find } from "./dom.js";

const VALUES = 8;
const FIELDS = 12;
let shown = "";

export async function showFilters(index, state) {
  if (shown !== index.name) {
    shown = index.name;
    const fields = index.fields.slice(0, FIELDS);
    const made = await Promise.all(fields.map((field) => describe(index.name, field).catch(() => null)));
    if (shown !== index.name) return;
    find("fields").replaceChildren(...made.filter(Boolean));
    find("expression").placeholder = `${index.fields.map(({ name }) => name).find((name) => /^\w+$/.test(name)) ?? "id"} = …`;
  }
  fill(state);
}

async function describe(index, field) {
  const ranged = field.kinds.includes("number") || field.kinds.includes("date");
  const values = field.kinds.join() === "date" ? [] : await facets(index, field.name, VALUES + 1).catch(() => []);
  const few = values.length <= VALUES;
  if (values.length && (few || !ranged)) {
    // Where no two documents share a value, there is nothing to choose from.
    return values[0].documents > 1 ? boxes(field, values.slice(0, VALUES)) : null;
  }
  return ranged ? range(field) : null;
}

function boxes(field, values) {
  return element("fieldset", { class: "field", "data-field": field.name },
    element("legend", {}, field.name),
    values.map(({ value, documents }) => element("label", { class: "value" },
      element("input", { type: "checkbox", name: `is.${field.name}`, value: JSON.stringify(value) }),
      element("span", { dir: "auto" }, value === "" ? "(empty)" : String(value)),
      element("span", { class: "count" }, count(documents)))));
}

function range(field) {
  const type = field.kinds.includes("date") ? "date" : "number";
  const end = (name) => element("label", {}, name,
    element("input", { type, name: `${name}.${field.name}`, step: type === "number" ? "any" : undefined }));
  return element("fieldset", { class: "field range", "data-field": field.name },
    element("legend", {}, field.name, element("span", { class: "count" }, ` ${count(field.documents)}`)),
    end("from"), end("to"));
}

function fill(state) {
  for (const input of find("fields").querySelectorAll("input")) {
    const [kind, ...name] = input.name.split(".");
    const chosen = state.chosen[name.join(".")] ?? { is: [], from: "", to: "" };
    if (kind === "is") input.checked = chosen.is.includes(input.value);
    else input.value = chosen[kind];
  }
  find("expression").value = state.expression;
}

// What the form says; fields of the address that it has no inputs for are left as they are.
export function chosenFilters(state) {
  const chosen = structuredClone(state.chosen);
  for (const set of find("fields").querySelectorAll("[data-field]")) chosen[set.dataset.field] = { is: [], from: "", to: "" };
  for (const input of find("fields").querySelectorAll("input")) {
    const [kind, ...name] = input.name.split(".");
    if (kind === "is" && input.checked) chosen[name.join(".")].is.push(input.value);
    else if (kind !== "is") chosen[name.join(".")][kind] = input.value;
  }
  return { chosen, expression: find("expression").value };
}
