// Experts of one decision by weight, one beside the other: [[expert, weight or null, dropped], ...], each in its colour.
function routeBar(chosen, hue) {
  const weight = (w) => Math.max(w ?? 1, 0), total = chosen.reduce((sum, [, w]) => sum + weight(w), 0) || 1, bar = el("div", "ms-bar")
  bar.append(...chosen.map(([expert, w, gone]) => {
    const wide = (100 * weight(w)) / total, words = w !== null && wide > 25 ? `${expert} · ${w.toFixed(2)}` : `${expert}`
    const piece = el("i", gone ? "dropped" : "", wide >= 5 * `${expert}`.length ? words : "")  // cut in half it is another number
    Object.assign(piece.style, { width: wide + "%", background: hue(expert) })
    piece.title = `expert ${expert}, ` + (w === null ? "no weight" : "weight " + Number(w.toPrecision(4))) + (gone ? ", dropped" : "")
    return piece
  }))
  return bar
}
