// Points on a plane. Hovering or an arrow key says what a point is. A rectangle is dragged, or begun and ended by Space, and
// sent; a click beside the points or Escape lets it go. A click on a point or Enter sends the point, where it opens something.
export default function ({ parentElement, data, setTriggerValue }) {
  const root = parentElement.querySelector(".scatter")
  root.tell = (brush) => setTriggerValue("brush", brush)
  root.open = (point) => setTriggerValue("point", point)
  if (root.sign === data.sign) return root.again(data)
  root.sign = data.sign
  const HEIGHT = 440, EDGE = 10, STRIDE = 24, MARGIN = 7, points = [...data.x.keys()]
  const range = (values) => [Math.min(...values), Math.max(...values)]
  const [x0, x1] = range(data.x), [y0, y1] = range(data.y)
  // A rectangle in the making reaches from `corner` to `place`, and `margin` beyond both where the keys make it.
  let brush = data.brush, only = null, wide = 1, place = null, corner = null, margin = 0
  const px = (x) => EDGE + ((x - x0) / (x1 - x0 || 1)) * (wide - 2 * EDGE), py = (y) => HEIGHT - EDGE - ((y - y0) / (y1 - y0 || 1)) * (HEIGHT - 2 * EDGE)
  const ux = (p) => x0 + ((p - EDGE) / (wide - 2 * EDGE)) * (x1 - x0), uy = (p) => y0 + ((HEIGHT - EDGE - p) / (HEIGHT - 2 * EDGE)) * (y1 - y0)
  const at = (i) => [px(data.x[i]), py(data.y[i])]
  const clamped = ([x, y]) => [between(0, x, wide), between(0, y, HEIGHT)]
  const around = ([x, y]) => [x - MARGIN, y - MARGIN, 2 * MARGIN, 2 * MARGIN]

  const legend = chips(data.groups.map((name, group) => [name, data.group.filter((g) => g === group).length]), (group) => {
    only = group
    picture.redraw(true)
  })
  const label = `${data.title}. ${data.subtitle || ""} ${points.length} points; arrow keys go from one to the next, Space begins and ends ` +
    "a rectangle, Shift and arrows stretch it, Escape lets it go; the table beside it lists the tokens" + (data.click ? `; Enter opens ${data.click}` : "")
  const picture = new Picture(root, data, "map", label, legend), { canvas, pen, plot, tip } = picture

  const made = () => {
    const [[a, b], [c, d]] = [corner, place]
    return [Math.min(a, c) - margin, Math.min(b, d) - margin, Math.max(a, c) + margin, Math.max(b, d) + margin]
  }
  const units = ([left, top, right, bottom]) => [ux(left), ux(right), uy(bottom), uy(top)].map((v) => +v.toFixed(3))
  const within = (box) => (i) => !box || (data.x[i] >= box[0] && data.x[i] <= box[1] && data.y[i] >= box[2] && data.y[i] <= box[3])
  const lit = (i) => only === null || data.group[i] === only

  function draw(style, room) {
    if (wide !== Math.min(room, 900)) [place, corner, margin] = [null, null, 0]
    wide = Math.min(room, 900)
    const hues = colours(style, "categorical"), inside = within(brush)
    const colour = (group) => (data.grey.includes(data.groups[group]) ? "#9AA0A6" : hues[group % hues.length])
    picture.clear(wide, HEIGHT)
    for (const i of points) {
      pen.globalAlpha = inside(i) && lit(i) ? 0.8 : 0.12
      pen.fillStyle = colour(data.group[i])
      pen.beginPath()
      pen.arc(...at(i), points.length > 500 ? 2.8 : 4, 0, 7)
      pen.fill()
    }
    pen.globalAlpha = 1
    pen.strokeStyle = style.color
    const box = corner ? made() : brush && [px(brush[0]), py(brush[3]), px(brush[1]), py(brush[2])]
    if (box) pen.strokeRect(box[0], box[1], box[2] - box[0], box[3] - box[1])
    data.groups.forEach((_, group) => legend.children[group].style.setProperty("--c", colour(group)))
  }

  const count = (box) => points.filter(within(box)).length.toLocaleString("en") + " tokens"
  function say(...lines) {
    const [x, y] = place
    picture.mark(around(place))
    tip.say([x + 12, y - 4, 8], ...lines, ...(corner ? [el("small", "", `${count(units(made()))} in the rectangle`)] : []))
    if (corner) picture.redraw(true)
  }
  function look(i) {
    place = at(i)
    const twins = points.filter((k) => data.x[k] === data.x[i] && data.y[k] === data.y[i]).length - 1
    const notes = data.notes[i].filter(Boolean).map((note) => el("div", "", note))
    say(el("b", "", data.names[i]), ...notes, ...(twins ? [el("small", "", `and ${twins} more in the same place`)] : []), ...(data.click ? [el("small", "", `click or Enter: ${data.click}`)] : []))
  }
  function drop() {
    [corner, margin] = [null, 0]
    picture.redraw(true)
  }
  const told = () => (brush ? `${count(brush)} chosen` : "no rectangle")
  function end() {
    const box = made(), before = brush
    brush = box[2] - box[0] > 4 && box[3] - box[1] > 4 ? units(box) : null
    picture.hush()
    drop()
    if (brush || before) root.tell(brush)
    return told()
  }

  const near = ([x, y]) => {
    const i = nearest([x, y]), [a, b] = i === undefined ? [Infinity, 0] : at(i)
    return Math.hypot(a - x, b - y) < 10 ? i : null
  }
  const opens = (i) => data.click && i !== null && i !== undefined
  const nearest = ([x, y]) => least(points.filter(lit), (i) => Math.hypot(at(i)[0] - x, at(i)[1] - y))
  canvas.onpointerdown = (event) => {
    canvas.setPointerCapture(event.pointerId)
    place = corner = clamped(picture.at(event))
    margin = 0
  }
  canvas.onpointermove = (event) => {
    if (margin) return
    const [x, y] = clamped(picture.at(event))
    if (corner) {
      place = [x, y]
      picture.hush()
      return picture.redraw(true)
    }
    const i = near([x, y])
    plot.classList.toggle("click", !!opens(i))
    if (i !== null) look(i); else picture.hush()
  }
  canvas.onpointerleave = () => { if (!margin) picture.hush() }
  canvas.onpointerup = () => {
    if (!corner || margin) return
    const still = Math.hypot(corner[0] - place[0], corner[1] - place[1]) < 4, i = still ? near(place) : null
    if (!opens(i)) return end()
    drop()
    root.open(i)
  }
  canvas.onpointercancel = drop

  // The nearest point that way: one that is more ahead than aside, where there is one.
  const next = ([right, down]) => least(points.filter(lit), (i) => {
    const [x, y] = at(i), dx = x - place[0], dy = y - place[1]
    const ahead = dx * right + dy * down, aside = Math.abs(dx * down + dy * right)
    return ahead > 0.01 ? Math.hypot(dx, dy) + (aside > ahead ? 1e6 : 0) : Infinity
  })
  const here = () => nearest(place ?? [wide / 2, HEIGHT / 2])
  function stretch([right, down]) {
    if (!corner) begin()
    place = clamped([place[0] + STRIDE * right, place[1] + STRIDE * down])
    say()
  }
  function begin() {
    const i = here()
    corner = at(i)
    margin = MARGIN
    look(i)
  }
  function move(step, shift) {
    if (shift) return stretch(step)
    look(place ? next(step) ?? here() : here())
  }
  tip.keys(plot, move, {
    " ": () => (corner ? end() : begin()),
    Enter: () => {
      if (corner) return end()
      const i = place && near(place)
      if (opens(i)) root.open(i)
    },
    Escape: () => {
      const shown = brush
      picture.hush()
      if (!corner) brush = null
      drop()
      if (shown && !brush) root.tell(null)
      return told()
    },
  })
  plot.onblur = () => {
    picture.hush()
    if (margin) drop()
  }
  root.again = (news) => {
    const other = String(news.brush) !== String(brush)
    brush = news.brush
    picture.redraw(other)
  }
  picture.drawn(draw)
}
