// One prompt's run as it grows: tokens in the order in which they were routed, and each one's way through the routers.
class Take {
  constructor(asked) {
    this.asked = asked
    this.status = "waits"
    this.sequences = new Map()
    this.tokens = []
    this.at = new Map()  // token: its place in the list
    this.routes = new Map()  // token: {router: decision}
    this.labels = new Map()  // token: {kind: label}
    this.nexts = []  // what was chosen after which token, and among what
    this.classes = null
    this.pending = null  // chosen, and not yet routed
    this.why = this.sentence = ""
  }
  hear(event) {
    if (event.event === "waits") Object.assign(this, { before: event.before, uid: event.uid })
    else if (event.event === "begin") this.status = "runs"
    else if (event.event === "tokens" || event.event === "next") this.grow(event)
    else if (event.event === "refused") Object.assign(this, { status: "refused", sentence: event.sentence })
    else if (event.event === "end") Object.assign(this, { status: "end", why: event.why, run: event.run, scores: event.scores, command: event.command })
  }
  get over() { return this.status === "end" || this.status === "refused" }
  get length() { return this.tokens.length }
  grow({ sequences = [], tokens = [], decisions = [], labels = [], next }) {
    for (const one of sequences) this.sequences.set(one.sequence, one)
    for (const token of tokens) {
      this.at.set(token.token, this.tokens.length)
      this.tokens.push({ ...token, stack: this.sequences.get(token.sequence)?.stack || "" })
      this.routes.set(token.token, new Map())
      if (token.generated) this.pending = null
    }
    for (const { token, kind, label } of labels) this.labels.set(token, { ...this.labels.get(token), [kind]: label })
    for (const one of decisions) this.routes.get(one.token)?.set(one.router, one)
    if (next?.classes) this.classes = next.classes
    if (next?.chosen) {
      this.nexts.push({ after: this.tokens.at(-1)?.token, ...next })
      this.pending = next.chosen
    }
  }
  // The stacks in order: what reads, then what writes.
  get stacks() { return [...new Set(this.tokens.map((token) => token.stack))] }
  get writes() { return this.tokens.at(-1)?.stack }
  route(place) { return this.routes.get(this.tokens[place]?.token) || new Map() }
  first(place, router) { return this.route(place).get(router)?.experts[0] ?? null }
  // What could have been said behind a token.
  next(place) { return this.nexts.find((next) => next.after === this.tokens[place]?.token) || null }
  // Vocabulary ids of the text that is written, and the log-probability of each where the model chose it.
  get ids() {
    const own = this.tokens.filter((token) => token.stack === this.writes)
    const found = own.map((token) => token.vocab_id)
    return this.pending ? [...found, this.pending.id] : found
  }
  get logP() {
    const first = this.ids.length - this.nexts.length
    return this.ids.map((_, i) => (i < first ? null : this.nexts[i - first].chosen.log_p))
  }
  get made() { return this.nexts.map((next) => next.chosen.text).join("") }
  // How much of an even share each expert of a router had over the first so many tokens.
  loads(router, experts, until) {
    const found = new Float32Array(experts)
    let total = 0
    for (let place = 0; place < until; place++) {
      const decision = this.route(place).get(router)
      decision?.experts.forEach((expert, rank) => { if (!decision.dropped[rank] && expert < experts) { found[expert]++; total++ } })
    }
    return total ? found.map((count) => (count / total) * experts) : found
  }
}
const shownToken = (text) => (text ?? "∅").replaceAll("▁", " ").replaceAll("Ġ", " ").replaceAll("Ċ", "\n")
const visibleToken = (text) => {
  const shown = shownToken(text).replaceAll("\n", "↵")
  return shown.trim() === shown && shown ? shown : shown.replaceAll(" ", "·") || "∅"
}
const percent = (share) => `${Number((100 * share).toPrecision(3))} %`  // as all pages say shares
const signed = (value, digits = 2) => `${value > 0 ? "+" : value < 0 ? "−" : ""}${Math.abs(value).toFixed(digits)}`
// A colour for each expert: its own up to so many as there are, else the busiest have one.
function palette(style, take, router, experts) {
  const hues = colours(style, "categorical")
  if (experts <= hues.length) return (expert) => (expert === null ? "transparent" : hues[expert])
  const tally = new Map()
  take.tokens.forEach((_, place) => { const e = take.first(place, router); if (e !== null) tally.set(e, (tally.get(e) || 0) + 1) })
  const busiest = [...tally.entries()].sort((a, b) => b[1] - a[1] || a[0] - b[0]).slice(0, hues.length - 1).map(([e]) => e).sort((a, b) => a - b)
  return (expert) => (expert === null ? "transparent" : busiest.includes(expert) ? hues[busiest.indexOf(expert)] : "#8a8f98")
}
