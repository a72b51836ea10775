// What is asked: the model, a prompt or a picture, how many tokens, and what stands beside it.
const SIDES = [["none", "nothing"], ["changed", "the same, experts changed"], ["other", "another prompt"]]
class Controls {
  constructor(data, { run, stop, model, side, layer }) {
    this.root = el("div", "controls")
    this.picture = null
    this.model = this.select("Model", data.models.map((name) => [name, name]), data.model, model)
    this.tokens = el("input")
    Object.assign(this.tokens, { type: "number", min: 1, max: 512, value: data.tokens })
    this.side = this.select("Beside it", SIDES, data.side, side)
    this.layer = this.select("Colour by", [], "", layer)
    this.prompt = this.area("Prompt", data.prompt, run)
    this.other = this.area("Other prompt", data.other, run)
    this.chat = el("input")
    this.chat.type = "checkbox"
    this.start = el("button", "go", "Run")
    this.start.onclick = run
    this.end = el("button", "plain", "Stop")
    this.end.onclick = stop
    this.note = el("div", "note")
    this.note.setAttribute("role", "status")
    this.drop = this.dropped(data.samples)
    const bar = el("div", "bar"), asks = el("div", "asks")
    bar.append(this.model.root, this.labelled("Tokens", this.tokens), this.side.root, this.layer.root, this.labelled("Chat turn", this.chat))
    asks.append(this.prompt.root, this.other.root, this.drop)
    const acts = el("div", "acts")
    acts.append(this.start, this.end, this.note)
    this.root.append(bar, asks, acts)
  }
  labelled(words, node) {
    const label = el("label", "field")
    label.append(el("span", "", words), node)
    return label
  }
  select(words, options, chosen, changed) {
    const node = el("select"), fill = (list, value) => {
      node.replaceChildren(...list.map(([key, name]) => { const option = el("option", "", name); option.value = key; return option }))
      if (list.some(([key]) => String(key) === String(value))) node.value = value
    }
    fill(options, chosen)
    node.onchange = () => changed(node.value)
    return { root: this.labelled(words, node), node, fill }
  }
  area(words, text, run) {
    const node = el("textarea")
    node.rows = 2
    node.value = text || ""
    node.placeholder = "Type a sentence, then Enter"
    node.spellcheck = false
    node.onkeydown = (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return
      event.preventDefault()
      run()
    }
    return { root: this.labelled(words, node), node }
  }
  dropped(samples) {
    const zone = el("div", "drop"), file = el("input"), few = el("div", "samples"), words = el("span", "", "Drop a picture here, or ")
    const open = el("button", "plain", "choose one")
    Object.assign(file, { type: "file", accept: "image/*", hidden: true })
    file.setAttribute("aria-label", "A picture")
    open.onclick = () => file.click()
    file.onchange = () => this.take(file.files[0])
    zone.ondragover = (event) => { event.preventDefault(); zone.classList.add("over") }
    zone.ondragleave = () => zone.classList.remove("over")
    zone.ondrop = (event) => { event.preventDefault(); zone.classList.remove("over"); this.take(event.dataTransfer.files[0]) }
    this.seen = el("img")
    this.seen.alt = ""
    for (const [place, url] of samples.entries()) {
      const button = el("button", "sample"), image = el("img")
      image.src = url
      image.alt = `sample picture ${place + 1}`
      button.onclick = () => this.look(url, `sample-${place + 1}.png`)
      button.append(image)
      few.append(button)
    }
    zone.append(this.seen, words, open, file, few)
    return zone
  }
  take(file) {
    if (!file) return
    if (!file.type.startsWith("image/") || file.size > 16 << 20) return this.say("A picture of at most 16 MiB can be dropped here.", true)
    const reader = new FileReader()
    reader.onload = () => this.look(reader.result, file.name)
    reader.readAsDataURL(file)
  }
  look(url, name) {
    this.picture = { url, name }
    this.seen.src = url
    this.seen.alt = name
    this.drop.classList.add("has")
    this.start.focus()
  }
  // What the model takes is asked, and nothing else.
  suit(about, side) {
    const ready = about.state === "ready", pixels = ready && about.reads === "image"
    this.prompt.root.hidden = pixels
    this.other.root.hidden = pixels || side !== "other"
    this.drop.hidden = !ready || !about.pictures
    this.drop.querySelector(".samples").hidden = !pixels
    this.chat.parentElement.hidden = !ready || !about.chat
    this.tokens.parentElement.hidden = ready && !about.generates
    this.start.disabled = !ready
  }
  say(words, wrong = false) {
    this.note.textContent = words
    this.note.classList.toggle("wrong", wrong)
  }
}
