// Ribbons from experts of one layer to experts of the next. What is under the mouse, or the expert that the arrow keys are on,
// is said in a tip; a click or Enter on an expert lights its ribbons at once and sends it.
export default function ({ parentElement, data, setTriggerValue }) {
  const root = parentElement.querySelector(".flow")
  root.tell = (node) => setTriggerValue("node", node)
  if (root.sign === data.sign) return root.again(data)
  root.sign = data.sign
  const HEIGHT = 440, TOP = 24, THICK = 12, columns = data.layers.length
  const label = `${data.title}. ${data.subtitle || ""} ${data.nodes.length} experts; arrow keys read them, Enter follows one; ` +
    `the table under SQL has the numbers of the ${data.links.length} ribbons`
  const picture = new Picture(root, data, "flow diagram", label), { canvas, pen, plot, tip } = picture
  let focus = data.focus, shapes = [], boxes = [], here = -1
  const name = (column, expert) => `${data.names[column]} expert ${expert}`
  const tokens = (n) => n.toLocaleString("en") + " tokens"
  const followed = (column, expert) => focus && focus[0] === data.layers[column] && focus[1] === expert

  function draw(style, room) {
    const wide = Math.min(room, 1000), step = (wide - 60) / Math.max(columns - 1, 1), tall = HEIGHT - TOP - 6
    const left = (column) => 10 + column * step, up = (share) => TOP + (1 - share) * tall
    const hues = colours(style, "categorical"), hue = (expert) => hues[expert % hues.length]
    picture.clear(wide, HEIGHT)
    shapes = data.links.map(([column, expert, next, n, low, high, low1, high1]) => {
      const a = left(column) + THICK, b = left(column + 1), m = (a + b) / 2, path = new Path2D()
      path.moveTo(a, up(low))
      path.bezierCurveTo(m, up(low), m, up(low1), b, up(low1))
      path.lineTo(b, up(high1))
      path.bezierCurveTo(m, up(high1), m, up(high), a, up(high))
      path.closePath()
      pen.fillStyle = hue(expert)
      pen.globalAlpha = !focus ? 0.42 : followed(column, expert) || followed(column + 1, next) ? 0.75 : 0.07
      pen.fill(path)
      return [path, `${name(column, expert)} → ${name(column + 1, next)}`, n]
    })
    pen.globalAlpha = 1
    pen.textBaseline = "middle"
    boxes = data.nodes.map(([column, expert, , , low, high]) => {
      const box = [left(column), up(high), THICK, Math.max(up(low) - up(high), 1)]
      pen.fillStyle = hue(expert)
      pen.fillRect(...box)
      if (box[3] > 9) {
        pen.fillStyle = style.color
        pen.font = font(style, `${followed(column, expert) ? "bold " : ""}10px`)
        pen.fillText(expert, box[0] + 15, box[1] + box[3] / 2)
      }
      return box
    })
    pen.fillStyle = style.color
    pen.font = font(style, "12px")
    data.names.forEach((name, column) => pen.fillText(name, left(column), 10))
  }

  const beside = ([x, y]) => [x + 14, y, 6]  // the pointer
  const say = (spot, title, n, ...more) => tip.say(spot, el("b", "", title), el("div", "", tokens(n)), ...more)
  function look(i, spot) {
    const [column, expert, n, share] = data.nodes[i], part = `${(100 * share).toFixed(1)} % of the layer`
    here = i
    picture.mark(boxes[i])
    say(spot, name(column, expert), n, el("div", "", part), el("small", "", `click or Enter to ${followed(column, expert) ? "let it go" : "follow it"}`))
  }
  function pick(i) {
    const [column, expert] = data.nodes[i]
    focus = followed(column, expert) ? null : [data.layers[column], expert]
    picture.redraw(true)
    root.tell(focus)
    return focus ? `${name(column, expert)} is followed` : "nothing is followed"
  }
  const under = ([x, y]) => boxes.findIndex(([l, t, w, h]) => x >= l - 2 && x <= l + w + 14 && y >= t && y <= t + h)
  canvas.onmousemove = (event) => {
    const [x, y] = picture.at(event), i = under([x, y]), spot = beside([x, y])
    canvas.style.cursor = i < 0 ? "default" : "pointer"
    if (i >= 0) return look(i, spot)
    const ribbon = shapes.findLast(([path]) => pen.isPointInPath(path, x * picture.scale, y * picture.scale))
    picture.hush()
    if (ribbon) say(spot, ribbon[1], ribbon[2])
  }
  canvas.onmouseleave = plot.onblur = () => picture.hush()
  canvas.onclick = (event) => {
    const spot = picture.at(event), i = under(spot)
    if (i < 0) return
    pick(i)
    look(i, beside(spot))
  }

  // Up and down to the next expert of the layer, left and right to the one at this height of the next layer.
  const middle = (i) => boxes[i][1] + boxes[i][3] / 2
  const next = ([right, down]) => least(data.nodes.keys(), (i) => {
    const aside = data.nodes[i][0] - data.nodes[here][0], below = middle(i) - middle(here)
    return aside === right && (right || below * down > 0) ? Math.abs(below) : Infinity
  })
  const first = () => Math.max(data.nodes.findIndex(([column, expert]) => followed(column, expert)), 0)
  function read(i) {
    const [left, top, , high] = boxes[i]
    look(i, [left, top, high])
  }
  const move = (step) => read(here < 0 ? first() : next(step) ?? here)
  function enter() {
    if (here < 0) return move()
    const words = pick(here)
    read(here)
    return words
  }
  tip.keys(plot, move, { Enter: enter, " ": enter, Escape: () => picture.hush() })
  root.again = (news) => {
    const other = String(news.focus) !== String(focus)
    focus = news.focus
    picture.redraw(other)
  }
  picture.drawn(draw)
}
