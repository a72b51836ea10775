// Points on a plane, on one canvas. Hovering says what the nearest one is; dragging sends the rectangle, a click lets it go.
export default function ({ parentElement, data, setTriggerValue }) {
  const root = parentElement.querySelector(".scatter")
  root.tell = (brush) => setTriggerValue("brush", brush)
  if (root.sign === data.sign) return root.over(data.brush)
  root.sign = data.sign
  const head = el("div", "head"), legend = el("div", "legend"), plot = el("div", "plot"), canvas = el("canvas")
  const tip = el("div", "tip"), HEIGHT = 440, EDGE = 10, pen = canvas.getContext("2d")
  head.append(el("b", "", data.title), el("span", "", data.subtitle || ""))
  canvas.setAttribute("role", "img")
  canvas.setAttribute("aria-label", `${data.title}; the table beside it lists the tokens`)
  plot.append(canvas, tip)
  root.replaceChildren(head, legend, plot)
  const range = (values) => [Math.min(...values), Math.max(...values)]
  const [x0, x1] = range(data.x), [y0, y1] = range(data.y)
  let brush = data.brush, only = null, drag = null, wide = 1, drawn = ""
  const px = (x) => EDGE + ((x - x0) / (x1 - x0 || 1)) * (wide - 2 * EDGE), py = (y) => HEIGHT - EDGE - ((y - y0) / (y1 - y0 || 1)) * (HEIGHT - 2 * EDGE)
  const ux = (p) => x0 + ((p - EDGE) / (wide - 2 * EDGE)) * (x1 - x0), uy = (p) => y0 + ((HEIGHT - EDGE - p) / (HEIGHT - 2 * EDGE)) * (y1 - y0)
  const hue = (style) => {
    const hues = style.getPropertyValue("--st-chart-categorical-colors").split(",").map((c) => c.trim())
    return (group) => (data.grey.includes(data.groups[group]) ? "#9AA0A6" : hues[group % hues.length])
  }

  function draw(always) {
    const style = getComputedStyle(root), room = root.clientWidth, look = [room, style.color, brush, only].join()
    if (!room || (look === drawn && !always)) return
    drawn = look
    wide = Math.min(room, 900)
    const scale = devicePixelRatio || 1, colour = hue(style)
    Object.assign(canvas, { width: Math.round(wide * scale), height: HEIGHT * scale })
    Object.assign(canvas.style, { width: wide + "px", height: HEIGHT + "px" })
    pen.setTransform(scale, 0, 0, scale, 0, 0)
    const within = (i) => !brush || (data.x[i] >= brush[0] && data.x[i] <= brush[1] && data.y[i] >= brush[2] && data.y[i] <= brush[3])
    data.x.forEach((x, i) => {
      pen.globalAlpha = within(i) && (only === null || data.group[i] === only) ? 0.8 : 0.12
      pen.fillStyle = colour(data.group[i])
      pen.beginPath()
      pen.arc(px(x), py(data.y[i]), data.x.length > 500 ? 2.8 : 4, 0, 7)
      pen.fill()
    })
    pen.globalAlpha = 1
    const box = drag || (brush && [px(brush[0]), py(brush[3]), px(brush[1]), py(brush[2])])
    if (box) {
      pen.strokeStyle = style.color
      pen.strokeRect(box[0], box[1], box[2] - box[0], box[3] - box[1])
    }
    for (const chip of legend.children) chip.style.setProperty("--c", colour(+chip.dataset.group))
  }

  data.groups.forEach((name, group) => {
    const chip = el("button", "chip")
    chip.dataset.group = group
    chip.append(el("i"), el("span", "", name), el("small", "", data.group.filter((g) => g === group).length))
    chip.title = "show only these"
    chip.onclick = () => {
      only = only === group ? null : group
      for (const other of legend.children) other.classList.toggle("on", +other.dataset.group === only)
      draw()
    }
    legend.append(chip)
  })
  const at = (event) => {
    const home = canvas.getBoundingClientRect()
    return [Math.max(Math.min(event.clientX - home.left, wide), 0), Math.max(Math.min(event.clientY - home.top, HEIGHT), 0)]
  }
  canvas.onpointerdown = (event) => {
    canvas.setPointerCapture(event.pointerId)
    drag = [...at(event), ...at(event)]
  }
  canvas.onpointermove = (event) => {
    const [x, y] = at(event)
    if (drag) {
      drag.splice(2, 2, x, y)
      tip.classList.remove("shown")
      return draw(true)
    }
    let best = -1, near = 100
    data.x.forEach((vx, i) => {
      const far = (px(vx) - x) ** 2 + (py(data.y[i]) - y) ** 2
      if (far < near) [best, near] = [i, far]
    })
    tip.classList.toggle("shown", best >= 0)
    if (best < 0) return
    tip.replaceChildren(el("b", "", data.names[best]), ...data.notes[best].filter(Boolean).map((note) => el("div", "", note)))
    tip.style.left = Math.max(Math.min(px(data.x[best]) + 12, wide - 230), 0) + "px"
    tip.style.top = Math.min(py(data.y[best]) + 12, HEIGHT - 90) + "px"
  }
  canvas.onpointerleave = () => tip.classList.remove("shown")
  canvas.onpointerup = () => {
    if (!drag) return
    const [a, b, c, d] = drag, before = brush
    drag = null
    const far = Math.abs(a - c) > 4 && Math.abs(b - d) > 4
    brush = far ? [ux(Math.min(a, c)), ux(Math.max(a, c)), uy(Math.max(b, d)), uy(Math.min(b, d))].map((v) => +v.toFixed(3)) : null
    draw(true)
    if (brush || before) root.tell(brush)
  }
  root.over = (next) => { brush = next; draw() }
  draw()
  root.size?.disconnect()
  root.size = new ResizeObserver(() => draw())
  root.size.observe(root)
}
