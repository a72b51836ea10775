// The route of one token: a row per layer, the last on top, with its experts by weight, and how sure the router was.
export default function ({ parentElement, data }) {
  const root = parentElement.querySelector(".routed"), table = el("table"), head = el("tr")
  const hues = colours(getComputedStyle(root), "categorical"), most = Math.max(...data.rows.map((row) => row[3] ?? 0), 1e-9)
  head.append(...["layer", "experts by weight", "entropy", "margin"].map((name) => el("th", "", name)))
  table.append(head)
  // Each its own colour up to eight experts, else the first seven of the row, as on the dashboard.
  const hue = (expert, known, row) => {
    if (known <= hues.length) return hues[expert] ?? "#9AA0A6"
    const place = row.slice(0, hues.length - 1).map(([e]) => e).sort((a, b) => a - b).indexOf(expert)
    return place < 0 ? "#9AA0A6" : hues[place]
  }
  for (const [name, known, experts, entropy, margin] of [...data.rows].reverse()) {
    const weight = (w) => Math.max(w ?? 1, 0), total = experts.reduce((sum, [, w]) => sum + weight(w), 0) || 1
    const bar = el("div", "bar")
    bar.append(...experts.map(([expert, w, gone]) => {
      const piece = el("i", gone ? "dropped" : "", weight(w) > 0.25 * total ? `${expert} · ${w === null ? "–" : w.toFixed(2)}` : expert)
      piece.style.width = (100 * weight(w)) / total + "%"
      piece.style.background = hue(expert, known, experts)
      piece.title = `expert ${expert}, ` + (w === null ? "no weight" : "weight " + Number(w.toPrecision(4))) + (gone ? ", dropped" : "")
      return piece
    }))
    const meter = el("span", "meter"), line = el("tr"), cells = [el("td", "", name), el("td"), el("td"), el("td", "", margin === null ? "–" : margin.toFixed(3))]
    meter.style.setProperty("--v", (100 * (entropy ?? 0)) / most + "%")
    cells[1].append(bar)
    cells[2].append(...(entropy === null ? ["–"] : [meter, entropy.toFixed(2)]))
    line.append(...cells)
    table.append(line)
  }
  const title = el("div", "named")
  title.append(el("b", "", data.title), el("span", "", data.notes.join(" · ")))
  root.replaceChildren(title, table)
}
