// Cards that `moescope.pictures.expert_cards` made; found and sorted in place.
export default function ({ parentElement, data }) {
  const root = parentElement.querySelector(".experts"), bar = el("div", "tools"), home = el("div")
  const find = el("input"), sort = el("select"), found = el("small"), words = "find a token or a label"
  Object.assign(find, { type: "search", placeholder: words })
  find.setAttribute("aria-label", words)
  sort.setAttribute("aria-label", "order")
  const ways = { expert: "by number", share: "by load", lift: "by lift of its label", effect: "by effect of losing it" }
  sort.append(...Object.entries(ways).map(([value, text]) => Object.assign(el("option", "", text), { value })))
  bar.append(find, sort, found)
  home.innerHTML = data.html
  const grid = home.firstElementChild, cards = [...grid.children]
  if (!cards.some((card) => card.dataset.effect)) sort.lastElementChild.remove()
  const value = (card, by) => (card.dataset[by] === undefined ? -Infinity : +card.dataset[by])
  function show() {
    const text = find.value.trim().toLowerCase(), by = sort.value
    const kept = cards.filter((card) => card.dataset.search.toLowerCase().includes(text))
    kept.sort((a, b) => (by === "expert" ? 0 : value(b, by) - value(a, by)) || value(a, "expert") - value(b, "expert"))
    grid.replaceChildren(...kept)
    found.textContent = text ? `${kept.length} of ${cards.length} experts` : ""
  }
  find.oninput = sort.onchange = show
  root.again = () => {}
  root.replaceChildren(bar, home)
  show()
}
