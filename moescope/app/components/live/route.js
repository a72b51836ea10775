// Where one token went: its experts in every layer with what came next in each, and what could have been said behind it.
class RoutePanel {
  constructor() { this.root = el("div", "route") }
  draw(takes, at, routers, hue) {
    const there = takes.filter(({ take }) => take && take.tokens[at(take)])
    if (!there.length) return this.root.replaceChildren(el("p", "hint", "Run a prompt: each token lights up the experts that it is routed to, and its way is shown here."))
    this.root.replaceChildren(...there.map(({ take, name }) => this.side(take, name, at(take), routers, hue)))
  }
  side(take, name, cursor, routers, hue) {
    const side = el("section"), token = take.tokens[cursor], way = take.route(cursor)
    const where = token.unit === "text" ? `position ${token.position}` : `patch ${token.y}, ${token.x}`
    const head = el("div", "ms-run")
    head.append(el("b", "", `${name ? name + ": " : ""}“${token.unit === "text" ? visibleToken(token.text) : token.unit}”`), el("span", "", `${where}${token.generated ? " · generated" : ""}`))
    const table = el("table", "ms-route"), top = el("tr")
    top.append(...["layer", "experts by weight", "entropy", "next best"].map((word) => Object.assign(el("th", "", word), { scope: "col" })))
    table.append(top)
    for (const router of routers) {
      const decision = way.get(router.router)
      if (!decision) continue
      const line = el("tr"), cells = [el("td", "", router.label), el("td"), el("td", "", decision.entropy === null ? "–" : decision.entropy.toFixed(2)), el("td", "next", this.others(decision))]
      cells[1].append(decision.experts.length ? routeBar(decision.experts.map((expert, rank) => [expert, decision.weights[rank] ?? null, decision.dropped[rank]]), hue(router)) : "no expert ran")
      cells[3].title = router.rule ? `ranked by ${router.rule}` : ""
      line.append(...cells)
      table.append(line)
    }
    side.append(head, table, ...this.following(take, cursor))
    return side
  }
  others(decision) {
    const found = (decision.ranked || []).filter(([expert]) => !decision.experts.includes(expert)).slice(0, 2)
    return found.map(([expert, value]) => `${expert} (${value.toFixed(2)})`).join(", ") || "–"
  }
  following(take, cursor) {
    const next = take.next(cursor), rows = next ? next.alternatives.map(([id, text, logP]) => [visibleToken(text), logP, id === next.chosen.id]) : null
    const classes = take.classes?.map(([number, name, logP], place) => [name === String(number) ? `class ${number}` : name, logP, place === 0])
    if (!rows && !classes) return []
    const box = el("div", "nexts")
    box.append(el("b", "", rows ? "What it could say next" : "What it sees"))
    for (const [text, logP, chosen] of (rows || classes).slice(0, 6)) {
      const line = el("div", chosen ? "chosen" : ""), track = el("i")
      track.style.setProperty("--v", `${100 * Math.exp(logP)}%`)
      line.append(el("bdi", "", text), track, el("em", "", percent(Math.exp(logP))))
      box.append(line)
    }
    return [box]
  }
}
