// A heat map on one canvas: a cell per column and row. Names from the data are only ever set as text.
// The cell under the mouse, or the one the arrow keys are on, is said in a tip; a click or Enter sends it.
export default function ({ parentElement, data, setTriggerValue }) {
  const root = parentElement.querySelector(".heat")
  root.tell = (cell) => setTriggerValue("cell", cell)
  if (root.sign === data.sign) return root.again()
  root.sign = data.sign
  const bytes = (text) => {
    const raw = atob(text), out = new Uint8Array(raw.length)
    for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i)
    return out.buffer
  }
  const numbers = ([kind, text]) => (kind === "f4" ? new Float32Array(bytes(text)) : new Float64Array(bytes(text)))
  const values = numbers(data.values)
  const more = data.more.map(([name, format, packed]) => [name, format, numbers(packed)])
  const cols = data.x.length, rows = data.y.length, [low, middle, high] = data.span
  const trimmed = (v, digits) => (Number.isFinite(v) ? String(Number(v.toPrecision(digits))) : "–")
  const said = (v, format, digits = 3) => {
    if (!Number.isFinite(v)) return "–"
    const sign = format.startsWith("+") && v > 0 ? "+" : ""
    if (format.endsWith("%")) return sign + trimmed(100 * v, digits) + " %"
    return sign + (Number.isInteger(v) ? v.toLocaleString("en") : trimmed(v, digits + 1))
  }

  const label = `${data.title}. ${data.subtitle || ""} ${rows} × ${cols} cells; arrow keys read them` + (data.click ? ", Enter opens one" : "")
  const picture = new Picture(root, data, "heat map", label), { canvas, pen, plot, tip } = picture
  plot.classList.toggle("click", data.click)

  let at = { left: 0, top: 0, wide: 1, high: 1 }
  const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16))
  function ramp(style) {
    const stops = colours(style, middle === null ? "sequential" : "diverging").map(rgb)
    if (stops.length < 2) return () => "#888888"
    const table = Array.from({ length: 256 }, (_, i) => {
      const place = (i / 255) * (stops.length - 1), from = Math.min(Math.floor(place), stops.length - 2)
      return `rgb(${stops[from].map((c, k) => Math.round(c + (stops[from + 1][k] - c) * (place - from))).join(",")})`
    })
    return (v) => {
      const half = (a, b) => (b > a ? between(0, (v - a) / (b - a), 1) : 0.5)
      const share = middle === null ? half(low, high) : v < middle ? half(low, middle) / 2 : 0.5 + (high > middle ? half(middle, high) / 2 : 0)
      return table[Math.round(share * 255)]
    }
  }

  function draw(style, room) {
    const small = font(style, "11px"), large = font(style, "12px")
    pen.font = small
    const width = (words) => pen.measureText(words).width
    const cut = (words, most) => {
      if (width(words) <= most) return words
      let keep = words.length
      while (keep > 1 && width(words.slice(0, keep) + "…") > most) keep--
      return words.slice(0, keep) + "…"
    }
    const ticks = (names, most) => names.map((name) => cut(name, most))
    const down = ticks(data.y, 150), across = ticks(data.x, 110)
    const right = 78, left = Math.ceil(Math.max(...down.map(width))) + 30, longest = Math.max(...across.map(width))
    const wide = Math.max(Math.min((room - left - right) / cols, 92), 0.5)
    const tall = Math.max(Math.min(460 / rows, 30), Math.min(110 / rows, 44), 2)
    const slanted = longest > 30 && longest + 6 > wide, below = slanted ? Math.ceil(longest * 0.6) + 34 : 40
    at = { left, top: 6, wide, high: tall }
    const size = { width: left + wide * cols + right, height: at.top + tall * rows + below }
    picture.clear(size.width, size.height)
    canvas.dataset.cells = JSON.stringify({ ...at, cols, rows })
    const colour = ramp(style), gap = wide > 7 && tall > 7 ? 1 : 0
    for (let i = 0; i < values.length; i++) {
      if (Number.isNaN(values[i])) continue
      const x = left + (i % cols) * wide, y = at.top + Math.floor(i / cols) * tall, x0 = Math.round(x), y0 = Math.round(y)
      pen.fillStyle = colour(values[i])
      pen.fillRect(x0, y0, Math.round(x + wide) - x0 - gap, Math.round(y + tall) - y0 - gap)
    }
    pen.fillStyle = style.color
    words(down, across, { left, wide, tall, slanted, size, small, large, longest })
    legend(style, colour, size.width - right + 14, Math.min(tall * rows, 170), small)
  }

  function words(down, across, { left, wide, tall, slanted, size, small, large, longest }) {
    const bottom = at.top + tall * rows
    const every = (count, step, need) => Math.ceil(need / step) || 1
    pen.globalAlpha = 0.72
    pen.font = small
    pen.textBaseline = "middle"
    pen.textAlign = "right"
    const jump = every(rows, tall, 12)
    down.forEach((name, i) => { if (i % jump === 0) pen.fillText(name, left - 6, at.top + (i + 0.5) * tall) })
    const skip = every(cols, wide, slanted ? 13 : longest + 6)
    across.forEach((name, i) => {
      if (i % skip) return
      pen.save()
      pen.translate(left + (i + 0.5) * wide, bottom + 6)
      if (slanted) { pen.rotate(-0.6); pen.textAlign = "right"; pen.fillText(name, 0, 4) }
      else { pen.textAlign = "center"; pen.textBaseline = "top"; pen.fillText(name, 0, 0) }
      pen.restore()
    })
    pen.globalAlpha = 0.9
    pen.font = large
    pen.textAlign = "center"
    pen.textBaseline = "bottom"
    pen.fillText(data.names[0], left + (wide * cols) / 2, size.height - 2)
    pen.save()
    pen.translate(13, at.top + (tall * rows) / 2)
    pen.rotate(-Math.PI / 2)
    pen.fillText(data.names[1], 0, 0)
    pen.restore()
  }

  function legend(style, colour, x, height, small) {
    for (let i = 0; i < height; i++) {
      const share = 1 - i / Math.max(height - 1, 1)
      pen.fillStyle = colour(middle === null ? low + share * (high - low)
        : share < 0.5 ? low + 2 * share * (middle - low) : middle + (2 * share - 1) * (high - middle))
      pen.fillRect(x, at.top + i, 10, 1.5)
    }
    pen.fillStyle = style.color
    pen.font = small
    pen.globalAlpha = 0.72
    pen.textAlign = "left"
    pen.textBaseline = "middle"
    const marks = middle === null ? [[high, 0], [(low + high) / 2, 0.5], [low, 1]] : [[high, 0], [middle, 0.5], [low, 1]]
    const shown = marks.filter(([v], i) => i !== 1 || (v !== low && v !== high))
    const past = (v) => (v === high && data.beyond[1] ? "≥ " : v === low && data.beyond[0] ? "≤ " : "")
    shown.forEach(([v, share]) => pen.fillText(past(v) + said(v, data.format), x + 14, at.top + 5 + share * (height - 10)))
    pen.globalAlpha = 1
  }

  let cell = null
  function show(next) {
    cell = next
    if (!cell) return picture.hush()
    const [i, j] = cell, n = j * cols + i, x = at.left + i * at.wide, y = at.top + j * at.high
    const numbers = [[data.names[2], data.format, values], ...more].map(([name, format, column]) => row(name, said(column[n], format)))
    picture.mark([x, y, at.wide, at.high])
    tip.say([x, y, at.high], el("b", "", `${data.names[1]} ${data.y[j]} · ${data.names[0]} ${data.x[i]}`), ...numbers)
  }
  const under = (event) => {
    const [x, y] = picture.at(event), i = Math.floor((x - at.left) / at.wide), j = Math.floor((y - at.top) / at.high)
    return i >= 0 && i < cols && j >= 0 && j < rows ? [i, j] : null
  }
  const pick = () => { if (cell && data.click) root.tell({ x: data.keys[0][cell[0]], y: data.keys[1][cell[1]] }) }
  canvas.onmousemove = (event) => show(under(event))
  canvas.onmouseleave = plot.onblur = () => show(null)
  canvas.onclick = (event) => { show(under(event)); pick() }
  function move([right, down]) {
    const [i, j] = cell || [-right, -down]
    show([between(0, i + right, cols - 1), between(0, j + down, rows - 1)])
  }
  tip.keys(plot, move, { Enter: pick, " ": pick, Escape: () => show(null) })
  root.again = () => picture.redraw()
  picture.drawn(draw)
}
