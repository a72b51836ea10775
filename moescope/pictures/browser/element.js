// Before every component: nodes, a tip that is said aloud as well, chips of a legend, and a picture on a canvas.
// Text from the data is only ever set as text.
const el = (tag, name, text) => {
  const node = document.createElement(tag)
  if (name) node.className = name
  if (text !== undefined) node.textContent = text
  return node
}
// A line of a tip: its name, and values at the right.
const row = (name, ...values) => {
  const node = el("div", "", name)
  node.append(...values.map((value) => el("em", "", value)))
  return node
}
// The one that scores least; none where every score is infinite.
const least = (list, score) => {
  let best, low = Infinity
  for (const one of list) {
    const points = score(one)
    if (points < low) [best, low] = [one, points]
  }
  return best
}
const between = (low, value, high) => Math.max(Math.min(value, high), low)
const colours = (style, name) => style.getPropertyValue(`--st-chart-${name}-colors`).split(",").map((c) => c.trim()).filter(Boolean)
const font = (style, size) => `${size} ${style.getPropertyValue("--st-font") || "sans-serif"}`
const ARROWS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }

// Chips [name, count, colour]; a click asks for its own things only, by their place in the list, and another for all, by null.
function chips(groups, choose) {
  const legend = el("div", "legend")
  legend.append(...groups.map(([name, count, colour], place) => {
    const chip = el("button", "chip")
    chip.append(el("i"), el("span", "", name), el("small", "", count))
    chip.title = "show only these"
    if (colour) chip.style.setProperty("--c", colour)
    chip.onclick = () => {
      const on = !chip.classList.contains("on")
      for (const other of legend.children) other.classList.toggle("on", on && other === chip)
      choose(on ? place : null)
    }
    return chip
  }))
  return legend
}

// A tip inside `room`, and a live region that says to those who do not see it what the keys have found.
class Tip {
  constructor(room) {
    this.room = room
    this.box = el("div", "tip")
    this.live = el("div", "live")
    this.live.setAttribute("aria-live", "polite")
    room.append(this.box, this.live)
  }
  // Below what begins at left, top and is so high; above it where only there is room.
  say([left, top, high], ...lines) {
    this.box.replaceChildren(...lines)
    this.box.classList.add("shown")
    const { offsetWidth, offsetHeight } = this.box, gap = 8, above = top - offsetHeight - gap, below = top + high + gap
    const fits = below + offsetHeight <= this.room.clientHeight || above <= 0
    this.box.style.left = Math.max(Math.min(left, this.room.clientWidth - offsetWidth), 0) + "px"
    this.box.style.top = (fits ? below : above) + "px"
  }
  hush() {
    this.box.classList.remove("shown")
  }
  // Arrow keys move by [right, down], others act by their names; what they return is said, or else what the tip shows.
  keys(node, move, others) {
    node.onkeydown = (event) => {
      const step = ARROWS[event.key], act = step ? () => move(step, event.shiftKey) : others[event.key]
      if (!act || event.altKey || event.ctrlKey || event.metaKey) return
      event.preventDefault()
      this.live.textContent = act() ?? (this.box.classList.contains("shown") ? this.box.innerText : "")
    }
  }
}

// A canvas under its title that takes the focus; a ring marks what its tip is about.
class Picture {
  constructor(root, data, kind, label, ...above) {
    this.root = root
    this.plot = el("div", "plot")
    this.canvas = el("canvas")
    this.pen = this.canvas.getContext("2d")
    this.ring = el("div", "ring")
    const head = el("div", "head"), names = { role: "application", "aria-roledescription": kind, "aria-label": label }
    if (data.title) head.append(el("b", "", data.title))
    if (data.subtitle) head.append(el("span", "", data.subtitle))
    for (const [name, value] of Object.entries(names)) this.plot.setAttribute(name, value)
    this.plot.tabIndex = 0
    this.plot.append(this.canvas, this.ring)
    this.tip = new Tip(this.plot)
    root.replaceChildren(head, ...above, this.plot)
  }
  // Where the pointer is on the canvas.
  at(event) {
    const home = this.canvas.getBoundingClientRect()
    return [event.clientX - home.left, event.clientY - home.top]
  }
  // The ring around what lies at left, top and is so wide, so high.
  mark([left, top, wide, high]) {
    this.ring.classList.add("shown")
    Object.assign(this.ring.style, { left: left + "px", top: top + "px", width: wide + "px", height: high + "px" })
  }
  hush() {
    this.tip.hush()
    this.ring.classList.remove("shown")
  }
  // An empty canvas of this size, sharp on every screen.
  clear(wide, high) {
    const scale = (this.scale = devicePixelRatio || 1)
    Object.assign(this.canvas, { width: Math.round(wide * scale), height: Math.round(high * scale) })
    Object.assign(this.canvas.style, { width: wide + "px", height: high + "px" })
    this.pen.setTransform(scale, 0, 0, scale, 0, 0)
  }
  // `draw` gets the style and the room: now, whenever one of them is another, and by redraw(true).
  drawn(draw) {
    let seen = ""
    this.redraw = (always) => {
      const style = getComputedStyle(this.root), room = this.root.clientWidth
      const look = [room, devicePixelRatio, style.color, ...colours(style, "sequential")].join()
      if (!room || (look === seen && !always)) return
      if (look !== seen) this.hush()
      seen = look
      draw(style, room)
    }
    this.redraw()
    this.root.size?.disconnect()
    this.root.size = new ResizeObserver(() => this.redraw())
    this.root.size.observe(this.root)
  }
}
