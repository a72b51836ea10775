// The SQL field: words in colours, and completion of tables, views, columns and keywords while one types. The field stays
// Streamlit's own: a picture of its text lies over it, and what is chosen is typed into it.
const WORDS = ("select from where group by order having limit offset with recursive as materialized join left right full inner outer cross lateral " +
  "semi anti using on and or not in is null true false case when then else end distinct all any exists between like ilike union except intersect " +
  "values filter over partition window rows range unbounded preceding following current row asc desc nulls first last qualify sample " +
  "count sum avg min max median mode list unnest round coalesce nullif cast try_cast quantile_cont stddev corr regexp_matches " +
  "row_number rank dense_rank lag lead any_value arg_max arg_min string_agg describe show tables exclude replace").split(" ")
const PIECES = /(--[^\n]*|\/\*[\s\S]*?(?:\*\/|$))|('(?:[^']|'')*(?:'|$))|("(?:[^"]|"")*(?:"|$))|(\b\d[\d_]*(?:\.\d+)?(?:e[+-]?\d+)?\b)|([A-Za-z_]\w*)/gi
const KINDS = ["comment", "string", "name", "number"]
const node = (tag, name, text) => Object.assign(document.createElement(tag), { className: name || "", textContent: text ?? "" })

class Field {
  constructor(area, known) {
    this.area = area
    this.learn(known)
    this.room = area.parentElement
    this.room.style.position = "relative"
    this.over = node("pre", "ms-sql")
    this.mirror = node("pre", "ms-sql ms-mirror")
    this.list = node("ul", "ms-words")
    this.said = node("div", "ms-said")
    for (const one of [this.over, this.mirror]) one.setAttribute("aria-hidden", "true")
    Object.assign(this.list, { id: "ms-words", hidden: true })
    this.list.setAttribute("role", "listbox")
    this.list.setAttribute("aria-label", "completions")
    this.said.setAttribute("aria-live", "polite")
    area.setAttribute("aria-autocomplete", "list")
    area.classList.add("ms-typed")
    area.spellcheck = false
    this.room.append(this.over, this.mirror, this.list, this.said)
    const on = { input: () => this.ask(), keydown: (event) => this.key(event), blur: () => this.close(), scroll: () => this.follow(), click: () => this.close() }
    for (const [name, call] of Object.entries(on)) area.addEventListener(name, call)
    new ResizeObserver(() => this.follow()).observe(area)
    this.paint()
  }
  learn(known) {
    this.tables = new Map(known.map(([name, columns]) => [name.toLowerCase(), { name, columns }]))
    this.columns = new Set(known.flatMap(([, columns]) => columns).map((name) => name.toLowerCase()))
  }
  paint() {
    const text = (this.text = this.area.value)
    let last = 0
    this.over.replaceChildren()
    for (const found of text.matchAll(PIECES)) {
      if (found.index > last) this.over.append(text.slice(last, found.index))
      const group = found.slice(1, 5).findIndex((one) => one !== undefined), word = found[0].toLowerCase()
      const kind = group >= 0 ? KINDS[group] : this.tables.has(word) ? "table" : this.columns.has(word) ? "name" : WORDS.includes(word) ? "word" : ""
      this.over.append(kind ? node("span", kind, found[0]) : found[0])
      last = found.index + found[0].length
    }
    this.over.append(text.slice(last) + "\n")
    this.follow()
  }
  follow() {
    const own = getComputedStyle(this.area)
    for (const one of [this.over, this.mirror]) {
      for (const name of ["font", "letterSpacing", "padding", "lineHeight", "tabSize", "wordBreak"]) one.style[name] = own[name]
      Object.assign(one.style, { left: this.area.offsetLeft + "px", top: this.area.offsetTop + "px", width: this.area.clientWidth + "px", height: this.area.clientHeight + "px" })
    }
    this.over.scrollTop = this.area.scrollTop
  }
  // Columns behind "alias.", else names that begin so: columns of what the query names, tables and views, keywords, other columns.
  found() {
    const before = this.area.value.slice(0, this.area.selectionStart)
    const end = before.match(/(?:(\w+)\s*\.\s*)?(\w*)$/), of = end[1], begun = end[2]
    const quiet = [...before.matchAll(PIECES)].some((m) => (m[1] !== undefined || m[2] !== undefined) && m.index + m[0].length === before.length && !/['/]$/.test(m[0].slice(1)))
    if (quiet || /^\d/.test(begun) || (!begun && of === undefined)) return []
    const named = [...this.area.value.matchAll(/\b(?:from|join)\s+(\w+)(?:\s+(?:as\s+)?(\w+))?/gi)].filter((m) => this.tables.has(m[1].toLowerCase()))
    const table = (name) => this.tables.get(name.toLowerCase())
    if (of !== undefined) {
      const alias = named.find((m) => m[2]?.toLowerCase() === of.toLowerCase())
      const home = table(of) ?? (alias && table(alias[1]))
      return home ? this.begin(begun, home.columns.map((name) => [name, home.name])) : []
    }
    const mine = named.flatMap((m) => table(m[1]).columns.map((name) => [name, table(m[1]).name]))
    const all = [...mine, ...[...this.tables.values()].map(({ name }) => [name, "table"]), ...WORDS.map((word) => [word, ""]), ...[...this.tables.values()].flatMap(({ name, columns }) => columns.map((column) => [column, name]))]
    return this.begin(begun, all)
  }
  begin(begun, names) {
    const start = begun.toLowerCase(), seen = new Map()
    for (const [name, of] of names) if (name.toLowerCase().startsWith(start) && !seen.has(name)) seen.set(name, of)
    this.length = begun.length
    return seen.size === 1 && seen.has(begun) ? [] : [...seen].slice(0, 8)
  }
  ask() {
    this.paint()
    this.at = -1
    const found = this.found()
    this.names = found.map(([name]) => name)
    this.list.replaceChildren(...found.map(([name, of], place) => {
      const line = node("li"), more = node("small", "", of)
      line.append(node("span", "", name), more)
      line.id = "ms-word-" + place
      line.setAttribute("role", "option")
      line.onmousedown = (event) => { event.preventDefault(); this.take(place) }
      return line
    }))
    if (!found.length) return this.close()
    this.mirror.replaceChildren(this.area.value.slice(0, this.area.selectionStart - this.length), node("i", "", "x"))
    const place = this.mirror.lastChild
    this.list.style.left = Math.min(this.area.offsetLeft + place.offsetLeft, Math.max(this.area.clientWidth - 240, 0)) + "px"
    this.list.style.top = this.area.offsetTop + place.offsetTop + place.offsetHeight - this.area.scrollTop + "px"
    this.list.hidden = false
    this.said.textContent = `${found.length} completions, first ${found[0][0]}; Tab takes it`
  }
  key(event) {
    if (this.list.hidden) return
    const steps = { ArrowDown: 1, ArrowUp: -1 }
    if (event.key in steps) this.mark(this.at < 0 ? (event.key === "ArrowDown" ? 0 : this.names.length - 1) : (this.at + steps[event.key] + this.names.length) % this.names.length)
    else if (event.key === "Tab" && !event.shiftKey) this.take(Math.max(this.at, 0))
    else if (event.key === "Enter" && this.at >= 0 && !event.ctrlKey && !event.metaKey) this.take(this.at)
    else if (event.key === "Escape") this.close()
    else return
    event.preventDefault()
    event.stopPropagation()
  }
  mark(place) {
    this.at = place
    this.list.childNodes.forEach((line, n) => line.setAttribute("aria-selected", n === place))
    this.area.setAttribute("aria-activedescendant", "ms-word-" + place)
    this.said.textContent = this.names[place]
  }
  take(place) {
    const end = this.area.selectionStart, word = this.names[place]
    this.area.focus()
    this.area.setSelectionRange(end - this.length, end)
    document.execCommand("insertText", false, word)  // as if it were typed: it can be undone
    this.close()
  }
  close() {
    this.list.hidden = true
    this.area.removeAttribute("aria-activedescendant")
  }
}
let field
export default function ({ data }) {
  const look = () => {
    const area = document.querySelector('[data-testid="stTextArea"] textarea')
    if (!area) return
    if (field?.area !== area) field = new Field(area, data.known)
    else if (field.text !== area.value && document.activeElement !== area) field.paint()
  }
  if (field) field.learn(data.known)
  look()
  const beat = setInterval(look, 250)
  return () => clearInterval(beat)
}
