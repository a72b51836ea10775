// Where the view stands: it walks from token to token at a speed of its own, waits for those that have not come, and can be
// stopped, stepped and set anywhere. The model is not held up by it.
const SPEEDS = [["2 a second", 2], ["5 a second", 5], ["12 a second", 12], ["as they come", Infinity]]
class Player {
  constructor(moved, still) {
    this.moved = moved
    this.cursor = -1
    this.count = 0
    this.playing = true
    this.rate = still ? Infinity : 12
    this.root = el("div", "player")
    this.root.setAttribute("role", "group")
    this.root.setAttribute("aria-label", "Player")
    const button = (icon, words, act) => {
      const node = el("button", "round", icon)
      node.setAttribute("aria-label", words)
      node.title = words
      node.onclick = act
      return node
    }
    this.main = button("⏸", "Pause", () => this.toggle())
    this.line = el("input", "line")
    Object.assign(this.line, { type: "range", min: 0, max: 0, value: 0 })
    this.line.setAttribute("aria-label", "Token")
    this.line.oninput = () => this.go(+this.line.value)
    this.speed = el("select")
    this.speed.setAttribute("aria-label", "Speed")
    SPEEDS.forEach(([words, rate]) => { const option = el("option", "", words); option.value = rate; option.selected = rate === this.rate; this.speed.append(option) })
    this.speed.onchange = () => { this.rate = Number(this.speed.value); if (this.playing) this.play() }
    this.words = el("span", "place")
    this.root.append(button("⏮", "To the first token", () => this.go(0)), button("◀", "One token back", () => this.step(-1)), this.main,
      button("▶", "One token on", () => this.step(1)), button("⏭", "To the last token", () => this.go(this.count - 1)), this.line, this.words, this.speed)
  }
  begin() { this.cursor = -1; this.count = 0; this.play() }
  // There are so many tokens now.
  grown(count) {
    this.count = count
    if (this.playing && !this.timer) this.play()
    this.draw()
  }
  play() {
    this.playing = true
    clearTimeout(this.timer)
    this.timer = null
    this.tick()
    this.draw()
  }
  tick() {
    this.timer = null
    if (!this.playing || this.cursor >= this.count - 1) return
    this.cursor = this.rate === Infinity ? this.count - 1 : this.cursor + 1
    this.timer = this.rate === Infinity ? null : setTimeout(() => this.tick(), 1000 / this.rate)
    this.draw()
    this.moved()
  }
  pause() { this.playing = false; clearTimeout(this.timer); this.timer = null; this.draw() }
  toggle() {
    if (this.playing && this.cursor < this.count - 1) return this.pause()
    if (this.cursor >= this.count - 1) this.cursor = -1
    this.play()
  }
  step(by) { this.go(this.cursor + by) }
  go(place) {
    if (!this.count) return
    this.pause()
    this.cursor = between(0, place, this.count - 1)
    this.draw()
    this.moved()
  }
  draw() {
    const runs = this.playing && this.cursor < this.count - 1
    this.main.textContent = runs ? "⏸" : "⏵"
    this.main.setAttribute("aria-label", runs ? "Pause" : "Play")
    this.main.title = runs ? "Pause" : "Play"
    this.line.max = Math.max(this.count - 1, 0)
    this.line.value = Math.max(this.cursor, 0)
    this.words.textContent = this.count ? `token ${this.cursor + 1} of ${this.count}` : "no token yet"
  }
}
