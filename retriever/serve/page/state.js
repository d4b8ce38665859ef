// What is asked stands in the address: it can be kept and sent, and the back button works.

export const SIZE = 10;

export function readState(address = location.search) {
  const given = new URLSearchParams(address);
  const chosen = {};
  for (const [name, value] of given) {
    const found = /^(is|from|to)\.(.+)$/.exec(name);
    if (!found) continue;
    const field = (chosen[found[2]] ??= { is: [], from: "", to: "" });
    if (found[1] === "is") field.is.push(value);
    else field[found[1]] = value;
  }
  return {
    query: given.get("q") ?? "",
    like: given.get("like") ?? "",
    index: given.get("index") ?? "",
    mode: given.get("mode") ?? "",
    compare: given.get("compare") ?? "",
    expression: given.get("filter") ?? "",
    page: Math.max(1, Number.parseInt(given.get("page") ?? "1", 10) || 1),
    size: SIZE,
    chosen,
  };
}

export function address(state) {
  const query = new URLSearchParams();
  const put = (name, value) => value && query.append(name, value);
  put("q", state.query);
  put("like", state.like);
  put("index", state.index);
  put("mode", state.mode);
  put("compare", state.compare);
  for (const [field, { is, from, to }] of Object.entries(state.chosen)) {
    for (const value of is) query.append(`is.${field}`, value);
    put(`from.${field}`, from);
    put(`to.${field}`, to);
  }
  put("filter", state.expression);
  if (state.page > 1) put("page", String(state.page));
  const written = query.toString();
  return written ? `?${written}` : "./";
}

const quoted = (text) => `"${text.replace(/[\\"]/g, "\\$&")}"`;

// A value of a box is JSON, so that the text "2" and the number 2 are two values.
const literal = (written) => {
  try {
    const value = JSON.parse(written);
    return typeof value === "string" ? quoted(value) : String(value);
  } catch {
    return quoted(written);
  }
};

const bound = (text) => (/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text.trim()) ? text.trim() : quoted(text.trim()));

// The filter in the server's language.
export function filterOf(state) {
  const parts = [];
  for (const [field, { is, from, to }] of Object.entries(state.chosen)) {
    if (is.length) parts.push(`${quoted(field)} in (${is.map(literal).join(", ")})`);
    if (from) parts.push(`${quoted(field)} >= ${bound(from)}`);
    if (to) parts.push(`${quoted(field)} <= ${bound(to)}`);
  }
  if (state.expression.trim()) parts.push(parts.length ? `(${state.expression})` : state.expression);
  return parts.join(" and ");
}

export const countFilters = (state) =>
  Object.values(state.chosen).reduce((sum, { is, from, to }) => sum + is.length + Boolean(from) + Boolean(to), 0) +
  Boolean(state.expression.trim());
