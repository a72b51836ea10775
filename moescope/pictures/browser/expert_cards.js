// A card per expert: its load beside an even one, its tokens, the label that it prefers; sorted and searched in place.
export default function ({ parentElement, data }) {
  const root = parentElement.querySelector(".experts"), bar = el("div", "tools"), cards = el("div", "cards")
  const find = el("input"), sort = el("select"), found = el("small")
  Object.assign(find, { type: "search", placeholder: "find a token or a label" })
  find.setAttribute("aria-label", "find a token or a label")
  sort.setAttribute("aria-label", "order")
  sort.append(...Object.entries({ expert: "by number", share: "by load", lift: "by lift of its label" }).map(([value, text]) => Object.assign(el("option", "", text), { value })))
  bar.append(find, sort, found)
  const percent = (v) => (v === null ? "–" : Number((100 * v).toPrecision(3)) + " %")
  const made = data.experts.map((expert) => {
    const card = el("article", "card"), meter = el("div", "load"), fill = el("i"), even = el("s"), tokens = el("div", "words")
    fill.style.width = Math.min((50 * (expert.share ?? 0)) / data.even, 100) + "%"  // 0 to 2 × even, as everywhere
    meter.append(fill, even)
    meter.title = `${percent(expert.share)} of the assignments; even would be ${percent(data.even)}`
    tokens.append(...expert.tokens.map(([text, lift]) => {
      const token = el("span", "word", text)
      token.title = `${Number(lift.toPrecision(3))} × as likely here as any token`
      token.dir = "auto"
      return token
    }))
    card.append(el("b", "", "expert " + expert.expert), el("small", "", expert.says), meter, tokens)
    if (expert.label) card.append(el("div", "label", `${expert.label}: ${percent(expert.label_share)} of its assignments, lift ${Number(expert.lift.toPrecision(3))} ×`))
    card.dataset.expert = expert.expert
    return { card, expert, text: [expert.label ?? "", ...expert.tokens.map(([text]) => text)].join("\n").toLowerCase() }
  })
  function show() {
    const words = find.value.trim().toLowerCase(), by = sort.value
    const kept = made.filter(({ text }) => text.includes(words))
    kept.sort((a, b) => (by === "expert" ? a.expert.expert - b.expert.expert : (b.expert[by] ?? -1) - (a.expert[by] ?? -1)))
    cards.replaceChildren(...kept.map(({ card }) => card))
    found.textContent = words ? `${kept.length} of ${made.length} experts` : ""
  }
  find.oninput = sort.onchange = show
  root.again = () => {}
  root.replaceChildren(bar, cards)
  show()
}
