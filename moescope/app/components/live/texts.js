// The text of a run, token by token in the colour of its expert, or patches over their picture; as far as the player has come.
class Texts {
  constructor(label, pick) {
    this.root = el("div", "texts")
    this.label = label
    this.pick = pick
    this.boxes = new Map()
    this.cells = []
  }
  begin(take, picture) {
    this.take = take
    this.picture = picture
    this.boxes = new Map()
    this.cells = []
    this.ghost = this.pictures = null
    this.root.replaceChildren()
  }
  // Cells for what came since; `by` says the router of a stack and its experts' colours, `mark` a line under a place.
  draw(cursor, by, mark) {
    const take = this.take
    if (!take) return
    for (let place = this.cells.length; place < take.length; place++) this.cells.push(this.add(place))
    this.cells.forEach((cell, place) => {
      const { router, colour } = by(take.tokens[place].stack)
      const there = place <= cursor, expert = there ? take.first(place, router) : null, decision = take.route(place).get(router)
      const [line, words] = mark?.(place) || ["transparent", ""], look = [there, place === cursor, expert, router, colour(expert), line].join()
      if (cell.look === look) return
      cell.look = look
      cell.classList.toggle("later", !there)
      cell.classList.toggle("now", place === cursor)
      cell.classList.toggle("dropped", there && Boolean(decision?.dropped.some(Boolean)))
      cell.dataset.expert = expert ?? ""
      cell.setAttribute("aria-selected", place === cursor)
      if (place === cursor) this.inSight(cell)
      cell.style.setProperty("--c", there ? colour(expert) : "transparent")
      cell.style.setProperty("--a", there && expert !== null ? "46%" : "0%")
      cell.style.setProperty("--d", line)
      cell.title = words
    })
    this.ends(cursor)
  }
  // The text scrolls with the player, and nothing else does.
  inSight(cell) {
    const room = this.root, top = cell.offsetTop - room.offsetTop
    if (top < room.scrollTop || top + cell.offsetHeight > room.scrollTop + room.clientHeight) room.scrollTop = top - room.clientHeight / 2
  }
  // What was chosen last and is not routed yet stands behind the rest.
  ends(cursor) {
    const { take } = this, box = this.boxes.get(take.writes)
    this.ghost?.remove()
    this.caret?.remove()
    this.ghost = null
    if (!box || !take.pending || cursor < take.length - 1) return
    this.ghost = el("span", "t made ghost", shownToken(take.pending.text))
    this.ghost.title = "chosen last: it was not fed, so nothing routed it"
    box.append(this.ghost)
    if (!take.over) box.append(this.caret ||= el("i", "caret"))
  }
  add(place) {
    const token = this.take.tokens[place], sequence = this.take.sequences.get(token.sequence)
    const grid = Boolean(sequence?.height && sequence?.width)
    const cell = el(grid ? "div" : "span", "t", grid ? "" : shownToken(token.text))
    cell.classList.add("later")  // until the player comes to it
    cell.classList.toggle("made", token.generated)
    cell.setAttribute("role", "option")
    cell.dataset.place = place
    cell.dir = "auto"
    const box = this.box(token.stack, sequence, grid), placed = token.y !== null && token.y !== undefined
    if (!grid && token.unit !== "text" && placed) this.laid(box, token).append(this.place(cell, token))
    else if (grid && placed) {
      box.append(this.place(cell, token))
    } else if (!grid) {
      box.append(cell)
      if (shownToken(token.text).includes("\n")) box.append(el("br"))
    }
    return cell
  }
  place(cell, token) {
    cell.textContent = ""
    cell.style.gridColumn = token.x + 1
    cell.style.gridRow = token.y + 1
    return cell
  }
  // The pieces of a picture that a text speaks of are laid over it, where its first one stands.
  laid(box, token) {
    const labels = this.take.labels.get(token.token) || {}, key = ["medium", "frame", "view"].map((kind) => labels[kind] ?? "").join()
    this.pictures ||= new Map()
    if (!this.pictures.has(key)) {
      const figure = el("figure", "picture"), laid = el("div", "laid"), same = this.take.tokens.filter((other) => other.unit === token.unit && other.y !== null)
      const [wide, high] = ["x", "y"].map((axis) => 1 + Math.max(...same.map((other) => other[axis])))
      figure.style.width = `min(100%, ${(20 * Math.min(1, (1.1 * wide) / high)).toFixed(1)}rem)`
      laid.style.aspectRatio = `${wide} / ${high}`
      if (this.picture && !labels.view) laid.style.backgroundImage = `url(${this.picture})`
      figure.append(laid)
      box.append(figure)
      this.pictures.set(key, laid)
    }
    return this.pictures.get(key)
  }
  box(stack, sequence, grid) {
    if (this.boxes.has(stack)) return this.boxes.get(stack)
    const box = el("div", "tokens"), part = el("div", grid ? "part grid" : "part text")
    if (this.boxes.size || stack === "encoder") part.append(el("small", "stack", stack === "encoder" ? "read by the encoder" : "written by the decoder"))
    box.tabIndex = 0
    box.setAttribute("role", "listbox")
    box.setAttribute("aria-label", `${this.label}, ${stack}`)
    if (grid) {
      box.style.aspectRatio = sequence.width + " / " + sequence.height
      box.style.gridTemplateColumns = `repeat(${sequence.width}, 1fr)`
      if (this.picture) box.style.backgroundImage = `url(${this.picture})`
    }
    box.onclick = (event) => { const cell = event.target.closest?.("[data-place]"); if (cell) this.pick(+cell.dataset.place) }
    box.onkeydown = (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: sequence?.width || 12, ArrowUp: -(sequence?.width || 12), Home: -1e9, End: 1e9 }[event.key]
      if (step === undefined || event.altKey || event.ctrlKey || event.metaKey) return
      event.preventDefault()
      this.pick(null, step)
    }
    part.append(box)
    this.root.append(part)
    this.boxes.set(stack, box)
    return box
  }
}
