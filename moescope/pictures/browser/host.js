// Draws the components of a page without a server, as Streamlit would: parts are in a script of JSON, each goes into the
// element that has its number. In a notebook the page lies in a frame, whose height and ground follow.
const page = document.documentElement, told = JSON.parse(document.getElementById("parts").textContent)
const outside = (() => { try { return window.frameElement ? window.parent.document.body : null } catch { return null } })()
const dark = () => {
  if (!outside) return null
  const { jpThemeLight } = outside.dataset, kind = outside.className + " " + (outside.dataset.vscodeThemeKind || "")
  return jpThemeLight !== undefined ? jpThemeLight === "false" : /vscode-(dark|high-contrast)(?!-light)/.test(kind) ? true : /vscode-light/.test(kind) ? false : null
}
const chosen = page.dataset.theme
const dress = () => { const is = dark(); if (!chosen && is !== null) page.dataset.theme = is ? "dark" : "light" }
dress()
const roots = told.map(({ name, root, data }, number) => {
  const home = document.getElementById("part-" + number), box = el("div", root)
  home.replaceChildren(box)
  const silent = () => {}
  components[name]({ parentElement: home, data, setTriggerValue: silent, setStateValue: silent })
  return box
})
const again = () => roots.forEach((root) => root.again?.({ focus: null, brush: null }))
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again)
const worn = () => page.dataset.theme
let before
window.addEventListener("beforeprint", () => { before = worn(); page.dataset.theme = "light"; again() })
window.addEventListener("afterprint", () => { before ? (page.dataset.theme = before) : delete page.dataset.theme; again() })
if (outside) {
  page.classList.add("inside")
  new MutationObserver(() => { dress(); again() }).observe(outside, { attributes: true })
  const fit = () => { window.frameElement.style.height = document.querySelector("main").offsetHeight + 4 + "px" }
  new ResizeObserver(fit).observe(document.querySelector("main"))
}
