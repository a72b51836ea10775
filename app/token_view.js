// Tokens as text, or patches as a grid over their image. Text from the data is only ever set as textContent.
// Drawn anew only when the data differ: a click changes what is selected here and, by an event, in the views beside this one.
export default function ({ parentElement, data, setStateValue }) {
  const root = parentElement.querySelector(".view")
  root.tell = (id) => setStateValue("token", id)
  if (root.drawn === data.sign) return
  root.drawn = data.sign
  root.replaceChildren()
  root.className = "view " + data.mode
  const tip = el("div", "tip")
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
    if (id === data.selected) { cell.classList.add("sel"); cell.setAttribute("aria-selected", "true") }
    if (data.dropped[i].some(Boolean)) cell.classList.add("dropped")
    if (data.made[i]) cell.classList.add("made")
    if (data.hit[i]) cell.classList.add("hit")
    if (data.numbers && data.experts[i].length) cell.appendChild(el("sub", "", data.experts[i][0]))
    return cell
  })
  if (data.mode === "grid") grid(); else text()

  function text() {
    cells.forEach((cell, i) => { box.appendChild(cell); if (data.breaks[i]) box.appendChild(el("br")) })
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
  const legend = el("div", "legend")
  data.legend.forEach(({ expert, colour, n }) => {
    const chip = el("button", "chip")
    chip.style.setProperty("--c", colour)
    chip.append(el("i"), el("span", "", expert), el("small", "", n))
    chip.title = "show only these"
    chip.onclick = () => {
      const on = !chip.classList.contains("on")
      legend.querySelectorAll(".chip").forEach((c) => c.classList.remove("on"))
      chip.classList.toggle("on", on)
      cells.forEach((cell, i) => cell.classList.toggle("dim", on && data.group[i] !== expert))
    }
    legend.appendChild(chip)
  })
  if (data.mode === "grid") root.append(box, legend, tip); else root.append(legend, box, tip)  // pictures side by side begin alike

  function show(i, cell) {
    tip.replaceChildren(el("b", "", data.names[i]))
    data.experts[i].forEach((e, r) => {
      const line = el("div", data.dropped[i][r] ? "gone" : "", `expert ${e}`)
      line.append(el("em", "", data.weights[i][r] === null ? "no weight" : data.weights[i][r].toFixed(3)))
      if (data.dropped[i][r]) line.append(el("em", "", "dropped"))
      tip.appendChild(line)
    })
    if (!data.experts[i].length) tip.appendChild(el("div", "", "no expert"))
    data.notes[i].forEach((note) => tip.appendChild(el("small", "", note)))
    const home = root.getBoundingClientRect(), at = cell.getBoundingClientRect()
    tip.style.left = Math.min(at.left - home.left, Math.max(home.width - 230, 0)) + "px"
    tip.style.top = at.bottom - home.top + 6 + "px"
    tip.classList.add("shown")
  }
  let focus = Math.max(data.ids.indexOf(data.selected), 0)
  const of = (event) => event.target.closest?.("[data-i]")
  box.onmouseover = (event) => { const cell = of(event); if (cell) show(+cell.dataset.i, cell) }
  box.onmouseleave = box.onblur = () => tip.classList.remove("shown")
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
  box.onkeydown = (event) => {
    const row = data.width || 12
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: row, ArrowUp: -row, Home: -1e9, End: 1e9 }[event.key]
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); pick(focus) }
    if (!step) return
    event.preventDefault()
    focus = Math.max(0, Math.min(cells.length - 1, focus + step))
    cells.forEach((cell, i) => cell.classList.toggle("focus", i === focus))
    cells[focus].scrollIntoView({ block: "nearest" })
    show(focus, cells[focus])
  }
}
