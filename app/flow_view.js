// Ribbons from experts of one layer to experts of the next, on one canvas. What is under the mouse is said in a tip;
// a click on an expert lights its ribbons at once and sends it.
export default function ({ parentElement, data, setTriggerValue }) {
  const root = parentElement.querySelector(".flow")
  root.tell = (node) => setTriggerValue("node", node)
  if (root.sign === data.sign) return root.light(data.focus)
  root.sign = data.sign
  const head = el("div", "head"), plot = el("div", "plot"), canvas = el("canvas"), tip = el("div", "tip")
  head.append(el("b", "", data.title), el("span", "", data.subtitle || ""))
  canvas.setAttribute("role", "img")
  canvas.setAttribute("aria-label", `${data.title}. ${data.links.length} ribbons; the table under SQL has their numbers`)
  plot.append(canvas, tip)
  root.replaceChildren(head, plot)
  const HEIGHT = 440, TOP = 24, pen = canvas.getContext("2d"), columns = data.layers.length
  let focus = data.focus, drawn = "", shapes = [], boxes = [], scale = 1

  function draw() {
    const style = getComputedStyle(root), room = root.clientWidth, look = [room, style.color, focus].join()
    if (!room || look === drawn) return
    drawn = look
    scale = devicePixelRatio || 1
    const wide = Math.min(room, 1000), step = (wide - 60) / Math.max(columns - 1, 1), tall = HEIGHT - TOP - 6
    const left = (column) => 10 + column * step, up = (share) => TOP + (1 - share) * tall
    Object.assign(canvas, { width: Math.round(wide * scale), height: HEIGHT * scale })
    Object.assign(canvas.style, { width: wide + "px", height: HEIGHT + "px" })
    pen.setTransform(scale, 0, 0, scale, 0, 0)
    const hues = style.getPropertyValue("--st-chart-categorical-colors").split(",").map((c) => c.trim())
    const touched = (column, expert) => focus && focus[0] === data.layers[column] && focus[1] === expert
    shapes = data.links.map((link) => {
      const [column, expert, next, n, low, high, low1, high1] = link
      const a = left(column) + 12, b = left(column + 1), m = (a + b) / 2, path = new Path2D()
      path.moveTo(a, up(low))
      path.bezierCurveTo(m, up(low), m, up(low1), b, up(low1))
      path.lineTo(b, up(high1))
      path.bezierCurveTo(m, up(high1), m, up(high), a, up(high))
      path.closePath()
      pen.fillStyle = hues[expert % hues.length]
      pen.globalAlpha = !focus ? 0.42 : touched(column, expert) || touched(column + 1, next) ? 0.75 : 0.07
      pen.fill(path)
      return [path, `layer ${data.layers[column]} expert ${expert} → layer ${data.layers[column + 1]} expert ${next}`, n]
    })
    pen.globalAlpha = 1
    pen.textBaseline = "middle"
    boxes = data.nodes.map(([column, expert, tokens, share, low, high]) => {
      const box = [left(column), up(high), 12, Math.max(up(low) - up(high), 1)]
      pen.fillStyle = hues[expert % hues.length]
      pen.fillRect(...box)
      if (box[3] > 9) {
        pen.fillStyle = style.color
        pen.font = `${touched(column, expert) ? "bold " : ""}10px ${style.getPropertyValue("--st-font")}`
        pen.fillText(expert, box[0] + 15, box[1] + box[3] / 2)
      }
      return [box, column, expert, tokens, share]
    })
    pen.fillStyle = style.color
    pen.font = `12px ${style.getPropertyValue("--st-font")}`
    data.layers.forEach((layer, column) => pen.fillText(`layer ${layer}`, left(column), 10))
  }

  const at = (event) => {
    const home = canvas.getBoundingClientRect()
    return [event.clientX - home.left, event.clientY - home.top]
  }
  const node = ([x, y]) => boxes.find(([[l, t, w, h]]) => x >= l - 2 && x <= l + w + 14 && y >= t && y <= t + h)
  canvas.onmousemove = (event) => {
    const [x, y] = at(event), box = node([x, y])
    const ribbon = box ? null : shapes.findLast(([path]) => pen.isPointInPath(path, x * scale, y * scale))
    canvas.style.cursor = box ? "pointer" : "default"
    tip.classList.toggle("shown", Boolean(box || ribbon))
    if (!box && !ribbon) return
    const title = box ? `layer ${data.layers[box[1]]} expert ${box[2]}` : ribbon[1]
    const count = (box ? box[3] : ribbon[2]).toLocaleString("en") + " tokens"
    tip.replaceChildren(el("b", "", title), el("div", "", count))
    if (box) tip.append(el("div", "", `${(100 * box[4]).toFixed(1)} % of the layer`), el("small", "", "click to follow it"))
    tip.style.left = Math.max(Math.min(x + 14, canvas.clientWidth - 230), 0) + "px"
    tip.style.top = Math.min(y + 14, HEIGHT - 90) + "px"
  }
  canvas.onmouseleave = () => tip.classList.remove("shown")
  canvas.onclick = (event) => {
    const box = node(at(event))
    if (!box) return
    const next = [data.layers[box[1]], box[2]], same = focus && next.join() === focus.join()
    focus = same ? null : next
    draw()
    root.tell(focus)
  }
  root.light = (next) => { focus = next; draw() }
  draw()
  root.size?.disconnect()
  root.size = new ResizeObserver(draw)
  root.size.observe(root)
}
