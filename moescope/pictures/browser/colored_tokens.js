// Tokens as text, or patches as a grid over their image. Text from the data is only ever set as textContent.
// Drawn anew only when the data differ: a click changes what is selected here and, by an event, in the views beside this one.
export default function ({ parentElement, data, setStateValue }) {
  const root = parentElement.querySelector(".view")
  root.tell = (id) => setStateValue("token", id)
  if (root.drawn === data.sign) return
  root.drawn = data.sign
  root.replaceChildren()
  root.className = "view " + data.mode
  const box = el("div", "tokens")
  box.tabIndex = 0
  box.setAttribute("role", "listbox")
  box.setAttribute("aria-label", data.label)
  const cells = data.ids.map((id, i) => {
    const cell = el(data.mode === "grid" ? "div" : "span", "t", data.text[i])
    cell.dataset.i = i
    cell.dataset.token = id
    cell.dataset.expert = data.experts[i][0] ?? ""
    cell.dir = "auto"
    cell.setAttribute("role", "option")
    cell.style.setProperty("--c", data.colour[i])
    cell.style.setProperty("--a", data.alpha[i] + "%")
    // Patches have no words, and a token may be white space: each says what it is, and who took it.
    cell.setAttribute("aria-label", [data.names[i], data.experts[i].length ? `${data.noun} ${data.experts[i].join(", ")}` : ""].filter(Boolean).join(", "))
    if (id === data.selected) { cell.classList.add("sel"); cell.setAttribute("aria-selected", "true") }
    if (data.dropped[i].some(Boolean)) cell.classList.add("dropped")
    if (data.made[i]) cell.classList.add("made")
    if (data.hit[i]) cell.classList.add("hit")
    if (data.numbers && data.experts[i].length) cell.appendChild(el("sub", "", data.experts[i][0]))
    return cell
  })
  if (data.mode === "grid") grid(); else text()

  function text() {
    const laid = data.panels.map(() => null)
    cells.forEach((cell, i) => {
      const number = data.panel[i]
      if (number === null) { box.appendChild(cell); if (data.breaks[i]) box.appendChild(el("br")); return }
      if (laid[number] === null) box.appendChild((laid[number] = picture(data.panels[number])).parentElement)
      cell.textContent = data.numbers && data.experts[i].length ? data.experts[i][0] : ""
      cell.style.gridColumn = data.x[i] + 1
      cell.style.gridRow = data.y[i] + 1
      laid[number].appendChild(cell)
    })
  }
  function picture(panel) {  // in the text where its first piece stands
    const figure = el("figure", "picture"), laid = el("div", "laid")
    figure.style.width = `min(100%, ${(20 * Math.min(1, 1.1 * panel.width / panel.height)).toFixed(1)}rem)`
    laid.style.aspectRatio = panel.width + " / " + panel.height
    laid.style.gridTemplateColumns = `repeat(${panel.width}, 1fr)`
    laid.style.gridTemplateRows = `repeat(${panel.height}, 1fr)`
    if (panel.image) laid.style.backgroundImage = `url(${panel.image})`
    figure.append(laid, el("figcaption", "", panel.name))
    return laid
  }
  function grid() {
    box.style.aspectRatio = data.width + " / " + data.height
    box.style.gridTemplateColumns = `repeat(${data.width}, 1fr)`
    if (data.image) box.style.backgroundImage = `url(${data.image})`
    cells.forEach((cell, i) => {
      if (data.x[i] === null) return
      cell.style.gridColumn = data.x[i] + 1
      cell.style.gridRow = data.y[i] + 1
      box.appendChild(cell)
    })
  }
  const legend = chips(data.legend.map(({ expert, n, colour }) => [expert, n, colour]), (chosen) => {
    cells.forEach((cell, i) => cell.classList.toggle("dim", chosen !== null && data.group[i] !== data.legend[chosen].expert))
  })
  if (data.mode === "grid") root.append(box, legend); else root.append(legend, box)  // pictures side by side begin alike
  const tip = new Tip(root)

  function show(i, cell) {
    const experts = data.experts[i].map((expert, r) => {
      const weight = data.weights[i][r], gone = data.dropped[i][r]
      const line = row(`${data.noun} ${expert}`, weight === null ? "no weight" : weight.toFixed(3), ...(gone ? ["dropped"] : []))
      line.classList.toggle("gone", Boolean(gone))
      return line
    })
    if (!experts.length) experts.push(el("div", "", `no ${data.noun}`))
    const home = root.getBoundingClientRect(), at = cell.getBoundingClientRect(), spot = [at.left - home.left, at.top - home.top, at.height]
    tip.say(spot, el("b", "", data.names[i]), ...experts, ...data.notes[i].map((note) => el("small", "", note)))
  }
  let focus = Math.max(data.ids.indexOf(data.selected), 0)
  const of = (event) => event.target.closest?.("[data-i]")
  box.onmouseover = (event) => { const cell = of(event); if (cell) show(+cell.dataset.i, cell) }
  box.onmouseleave = box.onblur = () => tip.hush()
  const select = (id) => cells.forEach((cell, i) => {
    cell.classList.toggle("sel", data.ids[i] === id)
    cell.setAttribute("aria-selected", data.ids[i] === id)
  })
  const pick = (i) => {
    document.dispatchEvent(new CustomEvent("moescope-token", { detail: data.ids[i] }))
    focus = i
    root.tell(data.ids[i])
  }
  if (root.heard) document.removeEventListener("moescope-token", root.heard)
  root.heard = (event) => root.isConnected ? select(event.detail) : document.removeEventListener("moescope-token", root.heard)
  document.addEventListener("moescope-token", root.heard)
  box.onclick = (event) => { const cell = of(event); if (cell) pick(+cell.dataset.i) }
  function go(step) {
    focus = between(0, focus + step, cells.length - 1)
    cells.forEach((cell, i) => cell.classList.toggle("focus", i === focus))
    cells[focus].scrollIntoView({ block: "nearest" })
    show(focus, cells[focus])
  }
  const choose = () => pick(focus), move = ([right, down]) => go(right + down * (data.width || 12))
  tip.keys(box, move, { Enter: choose, " ": choose, Home: () => go(-Infinity), End: () => go(Infinity), Escape: () => tip.hush() })
}
