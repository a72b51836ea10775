// Where the view stands: it walks from token to token at a speed of its own, waits for those that have not come, and can be
// stopped, stepped and set anywhere. The model is not held up by it.
const ICONS = {
  first: "M5 5h2v14H5zM19 5v14L8 12z", back: "M15 5v14L5 12z", play: "M7 4v16l13-8z", pause: "M6 5h4v14H6zM14 5h4v14h-4z", on: "M9 5v14l10-7z",
  last: "M17 5h2v14h-2zM5 5v14l11-7z",
}
function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg"), path = document.createElementNS("http://www.w3.org/2000/svg", "path")
  svg.setAttribute("viewBox", "0 0 24 24")
  svg.setAttribute("aria-hidden", "true")
  path.setAttribute("d", ICONS[name])
  svg.append(path)
  return svg
}
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
    const button = (name, words, act) => {
      const node = el("button", "round")
      node.append(icon(name))
      node.setAttribute("aria-label", words)
      node.title = words
      node.onclick = act
      return node
    }
    this.main = button("pause", "Pause", () => this.toggle())
    this.line = el("input", "line")
    Object.assign(this.line, { type: "range", min: 0, max: 0, value: 0 })
    this.line.setAttribute("aria-label", "Token")
    this.line.oninput = () => this.go(+this.line.value)
    this.speed = el("select")
    this.speed.setAttribute("aria-label", "Speed")
    SPEEDS.forEach(([words, rate]) => { const option = el("option", "", words); option.value = rate; option.selected = rate === this.rate; this.speed.append(option) })
    this.speed.onchange = () => { this.rate = Number(this.speed.value); if (this.playing) this.play() }
    this.words = el("span", "place")
    this.root.append(button("first", "To the first token", () => this.go(0)), button("back", "One token back", () => this.step(-1)), this.main,
      button("on", "One token on", () => this.step(1)), button("last", "To the last token", () => this.go(this.count - 1)), this.line, this.words, this.speed)
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
    this.main.replaceChildren(icon(runs ? "pause" : "play"))
    this.main.setAttribute("aria-label", runs ? "Pause" : "Play")
    this.main.title = runs ? "Pause" : "Play"
    this.line.max = Math.max(this.count - 1, 0)
    this.line.value = Math.max(this.cursor, 0)
    this.words.textContent = this.count ? `token ${this.cursor + 1} of ${this.count}` : "no token yet"
  }
}
