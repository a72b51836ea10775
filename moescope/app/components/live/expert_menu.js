// What is changed in an expert: nothing, off, forced, its logit or its weight. Changes are {"2:5": "off" | "forced" | "+1.5" | "x0.5"}.
class ExpertMenu {
  constructor(changed) {
    this.changed = changed
    this.root = el("div", "menu")
    this.root.setAttribute("role", "dialog")
    this.root.onkeydown = (event) => {
      event.stopPropagation()  // the map below it has keys of its own
      if (event.key === "Escape") this.close()
    }
    document.addEventListener("pointerdown", (event) => { if (this.home && !event.composedPath().includes(this.root)) this.close() })
  }
  open(router, expert, home, [left, top], now) {
    this.home = home
    const title = el("b", "", `${router.label} · expert ${expert}`), ways = el("div", "ways")
    this.root.setAttribute("aria-label", `Change ${router.label}, expert ${expert}`)
    const tell = (how) => { this.changed(`${router.place}:${expert}`, how); this.show(how, buttons, nats, factor) }
    const button = (words, how, about) => {
      const node = el("button", "way", words)
      node.title = about
      node.onclick = () => tell(how)
      return [how, node]
    }
    const buttons = new Map([
      button("as it is", null, "nothing is changed"),
      button("off", "off", "it cannot be chosen; the next best expert runs in its place"),
      button("forced", "forced", "it runs for every token, in the place of the least-weighted one"),
    ])
    const nats = this.slider("added to its logit", -6, 6, 0.5, 0, (v) => `${signed(v, 1)} nats`, (v) => tell(v ? `${v > 0 ? "+" : "-"}${Math.abs(v)}` : null))
    const factor = this.slider("its weight times", 0, 3, 0.25, 1, (v) => `× ${v}`, (v) => tell(v === 1 ? null : `x${v}`))
    ways.append(...buttons.values())
    this.root.replaceChildren(title, ways, nats.root, factor.root)
    this.show(now || null, buttons, nats, factor)
    home.append(this.root)
    const most = Math.max(home.clientWidth - this.root.offsetWidth, 0)
    Object.assign(this.root.style, { left: Math.min(left, most) + "px", top: top + 6 + "px" })
    buttons.get("off").focus()
  }
  slider(words, low, high, step, plain, say, tell) {
    const root = el("label", "slide"), input = el("input"), value = el("em")
    Object.assign(input, { type: "range", min: low, max: high, step, value: plain })
    input.setAttribute("aria-label", words)
    input.oninput = () => { value.textContent = say(+input.value) }
    input.onchange = () => tell(+input.value)
    root.append(el("span", "", words), input, value)
    return { root, set: (number) => { input.value = number ?? plain; value.textContent = say(+input.value) } }
  }
  show(how, buttons, nats, factor) {
    for (const [name, node] of buttons) node.setAttribute("aria-pressed", name === how)
    nats.set(/^[+-]/.test(how || "") ? +how : undefined)
    factor.set(/^x/.test(how || "") ? +how.slice(1) : undefined)
  }
  close() {
    const home = this.home
    this.home = null
    this.root.remove()
    home?.focus?.()
  }
}
