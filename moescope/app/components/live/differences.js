// What differs between two runs: where their texts part, how many decisions took other experts, how much less probable one finds
// what the other said. Counted over the tokens that both share, from the first on.
function shared(a, b) {
  let count = 0
  const same = (x, y) => x && y && x.stack === y.stack && x.vocab_id === y.vocab_id && x.position === y.position
  while (same(a.tokens[count], b.tokens[count])) count++
  return count
}
const setOf = (decision) => [...decision.experts].filter((_, rank) => !decision.dropped[rank]).sort((x, y) => x - y).join()
function changedRoutes(a, b, count, routers) {
  return routers.map((router) => {
    let seen = 0, other = 0
    for (let place = 0; place < count; place++) {
      const [x, y] = [a, b].map((take) => take.route(place).get(router.router))
      if (!x || !y) continue
      seen++
      other += setOf(x) !== setOf(y)
    }
    return { router, seen, other }
  }).filter(({ seen }) => seen)
}
// Change of the log-probability of what A said, token by token (null where it is the prompt's).
function changeOfLogP(a, b) {
  if (!b.scores || b.scores.length !== a.ids.length) return null
  return a.logP.map((own, i) => (own === null || b.scores[i] === null ? null : b.scores[i] - own))
}
class Differences {
  constructor() { this.root = el("div", "differences") }
  draw(a, b, routers, names) {
    this.root.replaceChildren()
    if (!a?.length || !b?.length) return
    const count = shared(a, b), apart = count < Math.max(a.length, b.length), lines = []
    if (!count) lines.push("The two texts begin differently, so their routes are not compared token by token.")
    else {
      const changed = changedRoutes(a, b, count, routers), seen = changed.reduce((sum, x) => sum + x.seen, 0), other = changed.reduce((sum, x) => sum + x.other, 0)
      lines.push(`Over the first ${count === 1 ? "token" : `${count} tokens`}, which both share, ${other} of ${seen} decisions (${percent(other / seen)}) took other experts.`)
      this.root.append(this.bars(changed))
    }
    if (apart && count && (a.over || b.over || Math.min(a.length, b.length) > count)) {
      const [x, y] = [a, b].map((take) => take.tokens[count]?.text ?? (take.ids.length > count ? take.pending?.text : undefined))
      if (x !== undefined && y !== undefined) lines.push(`The texts part at token ${count}: “${visibleToken(x)}” ${names[0]}, “${visibleToken(y)}” ${names[1]}.`)
    } else if (count && a.over && b.over) lines.push("Both say the same.")
    const change = changeOfLogP(a, b)?.filter((v) => v !== null)
    if (change?.length) {
      const sum = change.reduce((x, y) => x + y, 0)
      const words = Math.abs(sum) < 0.005 ? "as probable as A does" : `${sum < 0 ? "less" : "more"} probable, by ${Math.abs(sum).toFixed(2)} nats`
      lines.push(`B finds what A says ${words}, over its ${change.length} generated tokens (${signed(sum / change.length, 3)} nats per token; lines under A's tokens: orange less, green more).`)
    }
    this.root.prepend(el("b", "", "What differs"), ...lines.map((line) => el("p", "", line)))
  }
  bars(changed) {
    const box = el("div", "shares")
    for (const { router, seen, other } of changed) {
      const line = el("div"), track = el("i")
      track.style.setProperty("--v", `${(100 * other) / seen}%`)
      line.append(el("span", "", router.label), track, el("em", "", `${other} of ${seen}`))
      box.append(line)
    }
    return box
  }
}
