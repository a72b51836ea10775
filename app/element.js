// Before every component: a node with its class and its text, which is only ever set as text.
const el = (tag, name, text) => {
  const node = document.createElement(tag)
  if (name) node.className = name
  if (text !== undefined) node.textContent = text
  return node
}
