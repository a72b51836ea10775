// The page: what is asked, two runs at most, the player between them and everything that is drawn of them.
class Side {
  constructor(page, name) {
    this.name = name
    this.root = el("section", "side")
    this.title = el("div", "title")
    this.root.append(this.title)
    this.texts = new Texts(`tokens of ${name}`, (place, step) => page.player.go(place ?? page.player.cursor + step))
    this.mapHome = el("div", "heat")
    this.map = new ExpertMap(this.mapHome, "Experts", (...where) => page.choose(...where))
    this.keep = el("div", "keep")
    this.root.append(this.texts.root, this.mapHome, this.keep)
    this.take = null
  }
}
class Page {
  constructor(root, data, tell) {
    Object.assign(this, { root, data, tell, about: { state: "loading" }, changes: new Map(data.changes), routers: [] })
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches
    this.controls = new Controls(data, {
      run: () => this.run(), stop: () => this.stop(), model: () => this.meet(), side: () => this.arrange(), layer: () => this.draw(),
    })
    this.player = new Player(() => this.draw(), still)
    this.menu = new ExpertMenu((key, how) => this.change(key, how))
    this.a = new Side(this, "A")
    this.b = new Side(this, "B")
    this.route = new RoutePanel()
    this.differs = new Differences()
    this.chips = el("div", "chips")
    this.sides = el("div", "sides")
    this.sides.append(this.a.root, this.b.root)
    this.lower = el("div", "lower")
    this.lower.append(this.route.root, this.differs.root)
    root.replaceChildren(this.controls.root, this.chips, this.player.root, this.sides, this.lower)
    this.arrange()
    this.meet()
    this.watcher = setInterval(() => { if (!root.isConnected) this.leave() }, 1000)
  }
  leave() { clearInterval(this.watcher); this.abort?.abort() }
  get side() { return this.controls.side.node.value }
  // Until the model that was chosen is there.
  async meet() {
    const model = this.controls.model.node.value, turn = (this.turn = {})
    this.stop()
    this.routers = []
    for (this.about = { state: "loading" }; this.turn === turn && this.root.isConnected;) {
      this.controls.suit(this.about, this.side)
      const about = await endpoint.about(model)
      if (this.turn !== turn) return
      this.about = about
      if (about.state !== "loading") break
      this.controls.say(`${model || "The model"} is loading…`)
      await new Promise((done) => setTimeout(done, 300))
    }
    if (this.about.state === "failed") this.controls.say(this.about.sentence, true)
    if (this.about.state === "ready") this.met()
  }
  met() {
    const { about } = this
    this.learn(about.routers)
    const known = new Set(this.routers.flatMap((r) => Array.from({ length: r.experts }, (_, e) => `${r.place}:${e}`)))
    for (const key of this.changes.keys()) if (!known.has(key)) this.changes.delete(key)
    const models = about.models || [about.model]
    this.controls.model.fill(models.map((name) => [name, name]), about.model)
    this.a.take = this.b.take = null
    for (const side of [this.a, this.b]) { side.texts.begin(null); side.texts.take = null; side.keep.replaceChildren() }
    this.player.begin()
    this.controls.say(`${about.name} is ready: ${this.routers.length} routers${about.proved ? ", proved" : ""}.${about.overrides?.group_size ? " A picture is routed as a group of its own (group_size=batch)." : ""}`)
    this.arrange()
  }
  // The routers, the last one first; one that was found only when it ran is told with the run.
  learn(routers) {
    if (!routers?.length || this.routers.length) return
    const many = new Set(routers.map((r) => r.stack)).size > 1, name = (r) => (r.layer === null ? r.name : many ? `${r.stack} ${r.layer}` : `layer ${r.layer}`)
    const twice = (r) => routers.filter((other) => name(other) === name(r)).length > 1
    this.routers = routers.map((r) => ({ ...r, label: twice(r) ? `${name(r)} ${r.name.split(".").at(-1)}` : name(r) })).reverse()
    this.controls.layer.fill(routers.map((r, place) => [r.router, this.routers.at(-1 - place).label]), routers[Math.floor(routers.length / 2)].router)
  }
  arrange() {
    const two = this.side !== "none"
    this.controls.suit(this.about, this.side)
    this.sides.classList.toggle("two", two)
    this.b.root.hidden = !two
    if (!two) this.b.take = null
    this.marks()
    this.draw()
    this.compare()
  }
  // Chips of what is changed, each of which can be taken back.
  marks() {
    this.chips.replaceChildren(...[...this.changes].map(([key, how]) => {
      const chip = el("button", "chip change", `${key} ${how}`)
      chip.title = "take this change back"
      chip.append(el("span", "", "×"))
      chip.onclick = () => this.change(key, null)
      return chip
    }))
    this.chips.hidden = !this.changes.size || this.side === "none"
    if (this.changes.size && this.side !== "none") this.chips.prepend(el("span", "", "In B:"))
  }
  choose(router, expert, home, at) { this.menu.open(router, expert, home, at, this.changes.get(`${router.place}:${expert}`)) }
  change(key, how) {
    if (how === null) this.changes.delete(key)
    else this.changes.set(key, how)
    if (this.side === "none") { this.controls.side.node.value = "changed"; this.arrange() }
    this.marks()
    this.draw()
    clearTimeout(this.soon)
    if (this.a.take?.status === "end") this.soon = setTimeout(() => this.again(), 350)
  }
  asked(text, changed) {
    const { controls } = this, found = { model: this.about.model, text: this.about.reads === "image" ? "" : text }
    if (this.about.generates) found.tokens = Number(controls.tokens.value)
    if (this.about.chat && controls.chat.checked && !controls.picture) Object.assign(found, { text: "", messages: [{ role: "user", content: text }] })
    if (this.about.pictures && controls.picture) Object.assign(found, { image: controls.picture.url, picture: controls.picture.name })
    if (changed) found.edits = [...this.changes].map(([key, how]) => `${key}=${how}`)
    return found
  }
  async run() {
    if (this.about.state !== "ready") return this.meet()
    this.tell("asked", { prompt: this.controls.prompt.node.value, model: this.about.model, ...this.beside(), n: Date.now() })
    this.player.begin()
    if (await this.through(this.a, this.asked(this.controls.prompt.node.value, false))) await this.again()
  }
  // What is said of B, so that the address can say it too.
  beside() { return { beside: this.side, other: this.side === "other" ? this.controls.other.node.value : "", change: [...this.changes].map(([key, how]) => `${key}=${how}`).join() } }
  // What stands beside it.
  async again() {
    if (this.side === "none") return
    this.tell("asked", { prompt: this.controls.prompt.node.value, model: this.about.model, ...this.beside(), n: Date.now() })
    const text = this.side === "other" ? this.controls.other.node.value : this.controls.prompt.node.value
    const asked = this.asked(text, true)
    if (this.a.take?.status === "end" && text === this.a.take.asked.text && this.about.generates) asked.score = this.a.take.ids
    await this.through(this.b, asked)
  }
  async through(side, asked) {
    this.abort?.abort()
    const abort = (this.abort = new AbortController()), take = (side.take = new Take(asked))
    side.texts.begin(take, this.controls.picture?.url)
    side.keep.replaceChildren()
    if (side === this.a && this.side !== "none") { this.b.take = null; this.b.texts.begin(null); this.b.texts.take = null; this.b.keep.replaceChildren() }
    this.state()
    await endpoint.run(asked, (event) => {
      if (side.take !== take) return
      take.hear(event)
      this.learn(event.routers)
      this.state()
      this.player.grown(Math.max(this.a.take?.length || 0, this.b.take?.length || 0))
      this.draw()
      this.compare()
    }, abort.signal)
    if (side.take !== take) return false
    if (take.status === "end") this.keeping(side)
    this.draw()
    return take.status === "end" && take.why !== "stopped"
  }
  stop() {
    for (const side of [this.a, this.b]) if (side.take && !side.take.over && side.take.uid) endpoint.stop(side.take.uid)
  }
  state() {
    const now = [this.a, this.b].find((side) => side.take && !side.take.over), wrong = [this.a, this.b].find((side) => side.take?.status === "refused")
    this.controls.end.disabled = !now
    if (now) {
      const { take } = now, said = take.nexts.length || take.length
      this.controls.say(take.status === "waits" ? (take.before ? `${take.before} before this one in line…` : "asked…") : `${now.name} runs: ${said} ${said === 1 ? "token" : "tokens"}`)
    } else if (wrong) this.controls.say(wrong.take.sentence[0].toUpperCase() + wrong.take.sentence.slice(1), true)
    else {
      const why = { stopped: "Stopped.", time: "Its time was up.", ended: "It came to its end.", done: "Done." }
      this.controls.say([this.a, this.b].filter((side) => side.take).map((side) => why[side.take.why]).at(-1) || "")
    }
  }
  keeping(side) {
    const { take, keep } = side, name = el("input"), button = el("button", "plain", "Keep"), said = el("span", "note")
    name.value = `${side.name === "B" && take.asked.edits?.length ? take.asked.edits.join(" ") + ": " : ""}${(take.asked.text || take.asked.picture || "conversation").slice(0, 60)}`
    name.setAttribute("aria-label", `Name of the run of ${side.name}`)
    button.onclick = async () => {
      button.disabled = true
      said.textContent = "keeping…"
      const found = await endpoint.keep(take.run, name.value)
      said.classList.toggle("wrong", found.run === undefined)
      said.textContent = found.run === undefined ? found.sentence : `Kept as run ${found.run}. `
      button.disabled = found.run !== undefined
      if (found.run === undefined) return
      const open = el("button", "link", "Open it in Tokens")
      open.onclick = () => this.tell("opened", { run: found.run, n: Date.now() })
      said.append(open)
    }
    const code = el("code", "command", take.command.map((part) => (/^[\w.,:=+/-]+$/.test(part) ? part : `'${part.replaceAll("'", "'\\''")}'`)).join(" "))
    code.title = "does the same again; with --store STORE it is kept"
    keep.replaceChildren(name, button, said, code)
  }
  draw() {
    const { player, routers } = this, router = Number(this.controls.layer.node.value), style = getComputedStyle(this.root)
    const chosen = routers.find((r) => r.router === router)
    const two = this.side !== "none", change = two && this.a.take && this.b.take ? changeOfLogP(this.a.take, this.b.take) : null
    const first = this.a.take ? this.a.take.length - (change?.length || 0) + (this.a.take.pending ? 1 : 0) : 0
    const under = (place) => {
      const v = change?.[place - first]
      if (v === null || v === undefined) return null
      const strong = Math.abs(v) < 0.005 ? 0 : Math.min(30 + Math.abs(v) * 70, 100)
      return [`color-mix(in srgb, ${v < 0 ? "#d55e00" : "#009e73"} ${strong}%, transparent)`, `in B ${signed(v, 3)} nats`]
    }
    const at = (take) => Math.min(player.cursor, (take?.length || 0) - 1)  // who said less stays at its end
    for (const side of [this.a, this.b]) {
      if (!chosen || side.root.hidden) continue
      const { take } = side, changed = side === this.b
      side.title.hidden = !two
      side.root.classList.toggle("wide", side.map.routers?.some((r) => r.experts > 32))
      side.title.replaceChildren(el("b", "", two ? side.name : ""), el("span", "", this.titled(side)))
      if (take) side.texts.draw(at(take), this.painter(style, take, chosen), side === this.a && change ? under : null)
      side.map.say("Experts, layer by layer", changed ? "with what is changed in B; click an expert to change it" : "lit: those that run for this token; click one to change it in B")
      side.map.tell(take, routers, at(take), changed || this.side === "none" ? this.changes : null)
    }
    const hue = (r) => palette(style, this.a.take || new Take({}), r.router, r.experts)
    this.route.draw([{ take: this.a.take, name: two ? "A" : "" }, { take: two ? this.b.take : null, name: "B" }], at, routers, hue)
  }
  // The router of a stack whose layer is nearest to the chosen one, and its colours.
  painter(style, take, chosen) {
    const known = new Map()
    return (stack) => {
      if (!known.has(stack)) {
        const there = this.routers.filter((r) => r.stack === stack), router = chosen.stack === stack || !there.length ? chosen : least(there, (r) => Math.abs(r.layer - chosen.layer))
        known.set(stack, { router: router.router, colour: palette(style, take, router.router, router.experts) })
      }
      return known.get(stack)
    }
  }
  compare() { this.differs.draw(this.a.take, this.side === "none" ? null : this.b.take, this.routers, ["in A", "in B"]) }
  titled(side) {
    if (side === this.a) return this.side === "none" ? "" : "as it is"
    const changed = [...this.changes].map(([key, how]) => `${key} ${how}`).join(", ")
    return [this.side === "other" ? "another prompt" : "the same prompt", changed].filter(Boolean).join(", ") + (this.side === "changed" && !changed ? ": click an expert in the map" : "")
  }
}
export default function ({ parentElement, data, setStateValue }) {
  const root = parentElement.querySelector(".live-page")
  root.tell = setStateValue
  if (root.page && root.drawn === data.sign) return
  root.page?.leave()
  root.drawn = data.sign
  root.page = new Page(root, data, (name, value) => root.tell(name, value))
  return () => { if (!root.isConnected) root.page.leave() }
}
