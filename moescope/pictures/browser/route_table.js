// The route of one token: a row per layer, the last on top, with its experts by weight, and how sure the router was.
// The same rows as `moescope.pictures.route_table` draws for a page.
export default function ({ parentElement, data }) {
  const root = parentElement.querySelector(".routed"), table = el("table", "ms-route"), head = el("tr")
  const hues = colours(getComputedStyle(root), "categorical"), most = Math.max(...data.rows.map((row) => row[3] ?? 0), 1e-9)
  const named = (text, scope) => Object.assign(el("th", "", text), { scope })
  head.append(...["layer", "experts by weight", "entropy", "margin"].map((name) => named(name, "col")))
  table.append(head)
  // Each its own colour up to eight experts, else the first seven of the row, as on the dashboard.
  const hue = (known, row) => (expert) => {
    if (known <= hues.length) return hues[expert] ?? "#9AA0A6"
    const place = row.slice(0, hues.length - 1).map(([e]) => e).sort((a, b) => a - b).indexOf(expert)
    return place < 0 ? "#9AA0A6" : hues[place]
  }
  for (const [name, known, experts, entropy, margin] of [...data.rows].reverse()) {
    const meter = el("span", "ms-meter"), line = el("tr"), cells = [el("td"), el("td"), el("td", "", margin === null ? "–" : margin.toFixed(3))]
    meter.style.setProperty("--v", (100 * (entropy ?? 0)) / most + "%")
    cells[0].append(routeBar(experts, hue(known, experts)))
    cells[1].append(...(entropy === null ? ["–"] : [meter, entropy.toFixed(2)]))
    line.append(el("td", "", name), ...cells)
    table.append(line)
  }
  const title = el("div", "ms-run")
  title.append(el("b", "", data.title), el("span", "", data.notes.join(" · ")))
  root.replaceChildren(title, table)
}
