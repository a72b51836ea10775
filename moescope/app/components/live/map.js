// Layers by experts: what lights up now and what did a moment ago; a stroke below says how busy each expert was so far (full: twice
// an even share or more); experts that are changed are marked. One cell is one expert of one router.
const TRAIL = 7, FADES = 0.68
class ExpertMap {
  constructor(root, title, clicked) {
    this.clicked = clicked
    this.picture = new Picture(root, { title, subtitle: "" }, "map of experts", `${title}. Arrow keys read cells, Enter changes an expert`)
    this.picture.plot.classList.add("click")
    this.head = root.firstChild
    this.cell = null
    const { canvas, plot, tip } = this.picture
    canvas.onmousemove = (event) => this.show(this.under(event))
    canvas.onmouseleave = plot.onblur = () => this.show(null)
    canvas.onclick = (event) => { this.show(this.under(event)); this.pick() }
    tip.keys(plot, ([right, down]) => this.move(right, down), { Enter: () => this.pick(), " ": () => this.pick(), Escape: () => this.show(null) })
  }
  say(title, subtitle) { this.head.replaceChildren(el("b", "", title), el("span", "", subtitle)) }
  tell(take, routers, cursor, changes) {
    Object.assign(this, { take, routers, cursor, changes })
    if (!this.drawn) { this.drawn = true; this.picture.drawn((style, room) => this.draw(style, room)) }
    else this.picture.redraw(true)
  }
  get columns() { return Math.max(1, ...this.routers.map((router) => router.experts)) }
  // How bright every expert of a router is: 1 where it runs for the token at the cursor, fading over those before.
  glow(router, experts) {
    const found = new Float32Array(experts)
    for (let back = 0; back <= TRAIL; back++) {
      const decision = this.take?.route(this.cursor - back).get(router)
      decision?.experts.forEach((expert, rank) => {
        const weight = decision.weights[rank] ?? 1
        const bright = (0.25 + 0.75 * Math.min(Math.max(weight, 0), 1)) * (back ? 0.6 : 1) * FADES ** back
        if (expert < experts && !decision.dropped[rank]) found[expert] = Math.max(found[expert], bright)
      })
    }
    return found
  }
  draw(style, room) {
    const { routers, columns, picture } = this, pen = picture.pen, small = font(style, "11px")
    pen.font = small
    const names = routers.map((router) => router.label), left = Math.ceil(Math.max(...names.map((name) => pen.measureText(name).width), 20)) + 12
    const wide = Math.max(Math.min((room - left - 6) / columns, 64), 2), tall = Math.max(Math.min(300 / routers.length, 40), 5)
    const gap = wide > 8 && tall > 8 ? 2 : 0, hues = colours(style, "categorical")
    this.at = { left, top: 4, wide, high: tall }
    picture.clear(left + wide * columns + 4, 4 + tall * routers.length + 18)
    picture.canvas.dataset.cells = JSON.stringify({ ...this.at, cols: columns, rows: routers.length })
    routers.forEach((router, row) => {
      const y = 4 + row * tall, glow = this.glow(router.router, router.experts)
      const loads = this.take ? this.take.loads(router.router, router.experts, this.cursor + 1) : new Float32Array(router.experts)
      for (let expert = 0; expert < router.experts; expert++) {
        const x = left + expert * wide, box = [x, y, wide - gap, tall - gap]
        pen.fillStyle = style.color
        pen.globalAlpha = 0.055
        this.block(box, gap)
        pen.globalAlpha = 1
        if (glow[expert] > 0.02) {
          pen.globalAlpha = Math.min(glow[expert], 1)
          pen.fillStyle = router.experts <= hues.length ? hues[expert] : style.getPropertyValue("--st-primary-color")
          this.block(box, gap)
          pen.globalAlpha = 1
        }
        if (tall > 14 && loads[expert]) {
          pen.fillStyle = style.color
          pen.globalAlpha = 0.42
          pen.fillRect(x + 4, y + tall - gap - 5, (wide - gap - 8) * Math.min(loads[expert] / 2, 1), 2)
          pen.globalAlpha = 1
        }
        this.sign(this.changes?.get(`${router.place}:${expert}`), box, style, small)
      }
      this.lit(router, y, style, small)
      pen.fillStyle = style.color
      pen.globalAlpha = 0.76
      pen.textAlign = "right"
      pen.textBaseline = "middle"
      if (row % Math.ceil(12 / tall) === 0) pen.fillText(router.label, left - 6, y + (tall - gap) / 2)
      pen.globalAlpha = 1
    })
    pen.fillStyle = style.color
    pen.globalAlpha = 0.76
    pen.textAlign = "center"
    const every = Math.ceil(24 / wide)
    for (let expert = 0; expert < columns; expert += every) pen.fillText(expert, left + (expert + 0.5) * wide - 1, 4 + tall * routers.length + 10)
    pen.globalAlpha = 1
  }
  block([x, y, wide, high], gap) {
    const { pen } = this.picture
    pen.beginPath()
    pen.roundRect(x, y, wide, high, gap ? 4 : 0)
    pen.fill()
  }
  // What runs now is framed, with its weight where there is room.
  lit(router, y, style, small) {
    const { pen } = this.picture, { left, wide, high } = this.at, decision = this.take?.route(this.cursor).get(router.router)
    decision?.experts.forEach((expert, rank) => {
      if (expert >= router.experts || wide < 7 || high < 7) return
      const x = left + expert * wide, weight = decision.weights[rank]
      pen.strokeStyle = style.color
      pen.lineWidth = 2
      pen.setLineDash(decision.dropped[rank] ? [3, 3] : [])
      pen.strokeRect(x + 1, y + 1, Math.max(wide - 4, 1), Math.max(high - 4, 1))
      pen.setLineDash([])
      if (wide < 34 || high < 16 || weight === null) return
      pen.fillStyle = weight > 0.45 ? "#000" : style.color
      pen.font = small
      pen.textAlign = "center"
      pen.textBaseline = "middle"
      pen.fillText(weight.toFixed(2), x + wide / 2 - 1, y + high / 2 - 1)
    })
  }
  sign(change, [x, y, wide, high], style, small) {
    if (!change) return
    const { pen } = this.picture
    pen.strokeStyle = pen.fillStyle = style.color
    pen.lineWidth = 1.6
    if (change === "off") {
      pen.beginPath()
      pen.moveTo(x + 3, y + 3); pen.lineTo(x + wide - 3, y + high - 3)
      pen.moveTo(x + wide - 3, y + 3); pen.lineTo(x + 3, y + high - 3)
      pen.stroke()
      return
    }
    pen.font = small
    pen.textAlign = "left"
    pen.textBaseline = "top"
    pen.fillText(change === "forced" ? "▲" : change, x + 2, y + 2)
  }
  under(event) {
    if (!this.at) return null
    const [x, y] = this.picture.at(event), expert = Math.floor((x - this.at.left) / this.at.wide), row = Math.floor((y - this.at.top) / this.at.high)
    return row >= 0 && row < this.routers.length && expert >= 0 && expert < this.routers[row].experts ? [expert, row] : null
  }
  move(right, down) {
    const [expert, row] = this.cell || [-right, -down], next = between(0, row + down, this.routers.length - 1)
    this.show([between(0, expert + right, this.routers[next].experts - 1), next])
  }
  show(cell) {
    this.cell = cell
    if (!cell) return this.picture.hush()
    const [expert, row_] = cell, router = this.routers[row_], x = this.at.left + expert * this.at.wide, y = this.at.top + row_ * this.at.high
    const decision = this.take?.route(this.cursor).get(router.router), rank = decision?.experts.indexOf(expert) ?? -1
    const load = this.take?.length ? this.take.loads(router.router, router.experts, this.cursor + 1)[expert] : 0
    const score = decision?.ranked?.find(([e]) => e === expert)
    const lines = [row("weight now", rank < 0 ? "does not run" : decision.weights[rank]?.toFixed(3) ?? "–"), row("so far", `${load.toFixed(2)} × even`)]
    if (score) lines.push(row(router.rule, score[1].toFixed(3)))
    this.picture.mark([x, y, this.at.wide, this.at.high])
    const change = this.changes?.get(`${router.place}:${expert}`)
    this.picture.tip.say([x, y, this.at.high], el("b", "", `${router.label} · expert ${expert}`), ...lines, el("small", "", change ? `changed: ${change}` : "click to change it"))
  }
  pick() {
    if (!this.cell) return
    const [expert, row] = this.cell
    this.clicked(this.routers[row], expert, this.picture.plot, [this.at.left + expert * this.at.wide, this.at.top + (row + 1) * this.at.high])
  }
}
