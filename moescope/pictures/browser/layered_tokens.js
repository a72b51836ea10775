// Coloured tokens with a slider of layers; under them the route of the token that is chosen, through all layers.
export default function ({ parentElement, data }) {
  const root = parentElement.querySelector(".layered"), view = el("div"), route = el("div", "route")
  const bar = el("label", "layers"), slider = el("input"), name = el("output")
  let at = data.at, selected = data.base.selected
  Object.assign(slider, { type: "range", min: 0, max: data.layers.length - 1, value: at })
  slider.setAttribute("aria-label", "layer")
  bar.append(el("span", "", "layer"), slider, name)
  if (data.layers.length < 2) bar.hidden = true
  view.append(el("div", "view"))
  root.replaceChildren(bar, view, route)
  function draw() {
    const layer = data.layers[at]
    name.textContent = layer.name + " · " + layer.about
    slider.setAttribute("aria-valuetext", layer.name)
    const notes = data.base.notes.map((common, i) => [...layer.sure[i].map((v, k) => (v === null ? "" : ["entropy ", "margin "][k] + v.toFixed(3))), ...common].filter(Boolean))
    const shown = { ...data.base, ...layer, notes, selected, sign: "layer " + at }
    components.colored_tokens({ parentElement: view, data: shown, setStateValue: (_, id) => { selected = id; follow() } })
  }
  function follow() {
    const i = data.base.ids.indexOf(selected)
    if (i < 0) return route.replaceChildren(el("p", "hint", "Click a token for its route through all layers; Tab, arrow keys and Enter do it too."))
    const rows = data.layers.filter((layer) => layer.experts[i].length).map((layer) => [layer.name, layer.known,
      layer.experts[i].map((expert, r) => [expert, layer.weights[i][r], layer.dropped[i][r]]), ...layer.sure[i]])
    const box = el("div", "routed")
    route.replaceChildren(box)
    components.route_table({ parentElement: route, data: { title: `Route of “${data.base.names[i]}”`, notes: data.base.notes[i], rows } })
  }
  slider.oninput = () => { at = +slider.value; draw() }
  root.again = () => {}
  draw()
  follow()
}
